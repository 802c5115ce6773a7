// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of the stack, one module each: what it is made from and how.
//!
//! Every module has a `declare` function that adds its steps to a plan and returns a value which
//! knows where the finished files are.

pub mod clip;
pub mod devicetree;
pub mod dtschema;
pub mod firewall;
pub mod initramfs;
pub mod kernel;
pub mod kselftest;
pub mod modules;
pub mod optee;
pub mod programs;
pub mod source;
pub mod ta;
pub mod tf_a;
pub mod userland;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::engine::Job;

/// Prefix of the GNU cross compiler's programs.
pub const CROSS_COMPILE: &str = "aarch64-linux-gnu-";

/// `make` with as many jobs as this machine has processors.
fn make() -> Command {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    let mut make = Command::new("make");
    make.arg(format!("-j{jobs}"))
        .env_remove("MAKEFLAGS")
        .env("LC_ALL", "C");
    make
}

/// Copies a directory, with its attributes.
fn copy_tree(job: &Job, from: &Path, to: &Path) -> Result<()> {
    job.run(
        Command::new("cp")
            .args(["--archive", "--no-target-directory"])
            .arg(from)
            .arg(to),
    )
}
