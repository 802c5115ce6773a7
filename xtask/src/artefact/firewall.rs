// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pseudo-TA's ledger: a Rust static library that OP-TEE's core links behind a C shim.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::engine::{Plan, Step};
use crate::rust::{CrossBuild, Library};
use crate::stack::Build;

/// OP-TEE's core runs without floating point.
const TARGET: &str = "aarch64-unknown-none-softfloat";

/// The built ledger.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// The step that builds it.
    pub step: Step,
    /// The C shim's directory.
    pub shim: PathBuf,
}

impl Firewall {
    /// The static library.
    pub fn library(&self) -> PathBuf {
        self.step.file("libringfence_firewall.a")
    }
}

/// Declares the ledger.
pub fn declare(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    build: Build,
) -> Result<Firewall> {
    let features = match build {
        Build::Test => "test-injection",
        Build::Product => "optee",
    };
    let step = plan
        .step(&build.name("firewall"))
        .input(&workspace.join("ta/firewall/src"))
        .input(&workspace.join("ta/firewall/Cargo.toml"))
        .param("features", features);
    let step = library.inputs(step, workspace);
    let (root, library) = (workspace.to_owned(), library.clone());
    let step = step.runs(move |job| {
        let arguments = [
            "--package",
            "ringfence-firewall",
            "--lib",
            "--profile",
            "firewall",
            "--features",
            features,
        ];
        let built = library.build(
            job,
            &CrossBuild {
                workspace: &root,
                target: TARGET,
                std: "core,panic_abort",
                std_features: false,
                arguments: &arguments,
                rustflags: "-Crelocation-model=pic",
                environment: &[],
            },
        )?;
        fs::copy(
            built.join("firewall/libringfence_firewall.a"),
            job.file("libringfence_firewall.a"),
        )?;
        Ok(())
    })?;
    Ok(Firewall {
        step,
        shim: workspace.join("ta/firewall/pta"),
    })
}
