// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's own programs: the `ringfence` command, the tests, and the scenarios.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::userland::Userland;
use crate::engine::{Plan, Step};
use crate::rust::{CrossBuild, Library};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Programs that go to `/usr/bin`.
const PROGRAMS: [&str; 4] = [
    "ringfence",
    "ringfence-tests",
    "ringfence-scenario",
    "ringfence-bench",
];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The step that builds them.
    pub step: Step,
}

impl Programs {
    /// Name and file of each program.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
        PROGRAMS.iter().map(|&name| (name, self.step.file(name)))
    }
}

/// Declares the programs.
pub fn declare(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    userland: &Userland,
) -> Result<Programs> {
    let step = plan
        .step("guest-programs")
        .needs(&userland.step)
        .input(&workspace.join("host"))
        .input(&workspace.join("tests"))
        // Tests decode pictures themselves, and compare.
        .input(&workspace.join("ta/decoder"))
        .input(&workspace.join("ta/src"))
        .input(&workspace.join("ta/Cargo.toml"))
        .param("programs", PROGRAMS.join(" "));
    let step = library.inputs(step, workspace);
    let (root, library, export) = (
        workspace.to_owned(),
        library.clone(),
        userland.client_export(),
    );
    let step = step.runs(move |job| {
        let built = library.build(
            job,
            &CrossBuild {
                workspace: &root,
                target: TARGET,
                std: "std,panic_abort",
                std_features: true,
                arguments: &[
                    "--profile",
                    "guest",
                    "--package",
                    "ringfence",
                    "--package",
                    "ringfence-tests",
                    "--bins",
                ],
                rustflags: "",
                environment: &[("OPTEE_CLIENT_EXPORT", &export)],
            },
        )?;
        for name in PROGRAMS {
            fs::copy(built.join("guest").join(name), job.file(name))?;
        }
        Ok(())
    })?;
    Ok(Programs { step })
}
