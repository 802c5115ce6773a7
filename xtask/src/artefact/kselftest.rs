// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's own test of dma-buf heaps, unmodified, out of the kernel's source.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::kernel::Kbuild;
use super::source::Source;
use super::CROSS_COMPILE;
use crate::engine::{Plan, Step};

/// Where it is in the kernel's source.
const FOLDER: &str = "tools/testing/selftests";

/// Its name in the guest.
pub const PROGRAM: &str = "kselftest-dmabuf-heap";

/// The built test.
#[derive(Debug, Clone)]
pub struct Kselftest {
    /// The step that builds it.
    pub step: Step,
}

impl Kselftest {
    /// The program: needs no library.
    pub fn program(&self) -> PathBuf {
        self.step.file(PROGRAM)
    }
}

/// Declares the test, built as its own Makefile does.
pub fn declare(plan: &mut Plan, source: &Source, kbuild: &Kbuild) -> Result<Kselftest> {
    let (tree, kbuild) = (source.tree.clone(), kbuild.clone());
    let step = plan
        .step("kselftest")
        .needs(&source.step)
        .runs(move |job| {
            let (objects, headers) = (job.file("build"), job.file("headers"));
            fs::create_dir(&objects)?;
            let mut install = kbuild.make(&objects);
            install.arg(format!("INSTALL_HDR_PATH={}", headers.display()));
            job.run(install.arg("headers_install"))?;
            let tests = tree.join(FOLDER);
            let mut compiler = Command::new(format!("{CROSS_COMPILE}gcc"));
            compiler
                .args(["-static", "-O3", "-Wl,-no-as-needed", "-Wall"])
                .arg("-isystem")
                .arg(headers.join("include"))
                .arg("-I")
                .arg(&tests)
                .arg("-o")
                .arg(job.file(PROGRAM))
                .arg(tests.join("dmabuf-heaps/dmabuf-heap.c"));
            job.run(&mut compiler)?;
            fs::remove_dir_all(headers)?;
            fs::remove_dir_all(objects)?;
            Ok(())
        })?;
    Ok(Kselftest { step })
}
