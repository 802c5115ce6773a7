// SPDX-License-Identifier: MIT OR Apache-2.0
//! OP-TEE OS, in two passes: the kit that trusted applications are built with, then the core with
//! the pseudo-TA linked in and our trusted applications embedded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::devicetree::Devicetree;
use super::firewall::Firewall;
use super::source::Source;
use super::ta::TrustedApplication;
use super::{copy_tree, make, CROSS_COMPILE};
use crate::engine::{Job, Plan, Step};
use crate::stack::Build;

/// Settings of both passes. The GPT tables take the end of the secure DRAM, so OP-TEE gets less.
const SETTINGS: [&str; 13] = [
    "PLATFORM=vexpress-qemu_armv8a",
    "PYTHON3=/usr/bin/python3",
    "CFG_USER_TA_TARGETS=ta_arm64",
    "CFG_ARM64_core=y",
    "CFG_ARM_GICV3=y",
    "CFG_TZDRAM_SIZE=0x00d00000",
    "CFG_SECURE_DATA_PATH=y",
    "CFG_TEE_SDP_MEM_SIZE=0",
    "CFG_DT_DRIVER_EMBEDDED_TEST=n",
    "CFG_PAN=y",
    "CFG_CRYPTO_WITH_CE=y",
    "CFG_CORE_DYN_PROTMEM=n",
    "CFG_TEE_CORE_LOG_LEVEL=2",
];

/// Name of the embedded devicetree's source within OP-TEE's tree.
const SECURE_DTS: &str = "ringfence-secure.dts";

/// The built OP-TEE.
#[derive(Debug, Clone)]
pub struct Optee {
    /// The step that builds it.
    pub step: Step,
}

impl Optee {
    /// One of the images that TF-A's package takes.
    pub fn image(&self, name: &str) -> PathBuf {
        self.step.file("build/core").join(name)
    }
}

/// The kit that trusted applications are built with.
#[derive(Debug, Clone)]
pub struct DevKit {
    /// The step that exports it.
    pub step: Step,
}

impl DevKit {
    /// What `TA_DEV_KIT_DIR` names.
    pub fn dir(&self) -> PathBuf {
        self.step.file("build/export-ta_arm64")
    }
}

/// Declares the development kit.
pub fn declare_dev_kit(plan: &mut Plan, source: &Source) -> Result<DevKit> {
    let tree = source.tree.clone();
    let step = plan
        .step("optee-dev-kit")
        .needs(&source.step)
        .param("settings", SETTINGS.join(" "))
        .runs(move |job| {
            let mut command = call(job, &tree);
            job.run(command.arg("ta_dev_kit"))
        })?;
    Ok(DevKit { step })
}

/// Declares the core.
pub fn declare(
    plan: &mut Plan,
    source: &Source,
    devicetree: &Devicetree,
    firewall: &Firewall,
    applications: &[&TrustedApplication],
    build: Build,
) -> Result<Optee> {
    let (tree, secure_dts) = (source.tree.clone(), devicetree.secure_source());
    let embedded: Vec<String> = applications
        .iter()
        .map(|application| application.stripped().display().to_string())
        .collect();
    let settings = [
        "CFG_RINGFENCE_FIREWALL=y".to_owned(),
        format!("RINGFENCE_FIREWALL_LIB={}", firewall.library().display()),
        format!("EARLY_TA_PATHS={}", embedded.join(" ")),
        format!("CFG_EMBED_DTB_SOURCE_FILE={SECURE_DTS}"),
    ];
    let shim = firewall.shim.clone();
    let mut step = plan.step(&build.name("optee"));
    for application in applications {
        step = step.needs(&application.step);
    }
    let step = step
        .needs(&source.step)
        .needs(&devicetree.step)
        .needs(&firewall.step)
        .input(&shim)
        .param("settings", SETTINGS.join(" "))
        .param("own settings", settings.join(" "))
        .runs(move |job| {
            let own = job.file("source");
            copy_tree(job, &tree, &own)?;
            fs::copy(&secure_dts, own.join("core/arch/arm/dts").join(SECURE_DTS))?;
            // A copy of the shim: the checkout may change while this builds.
            let staged = job.file("pta");
            copy_tree(job, &shim, &staged)?;
            let mut command = call(job, &own);
            command
                .args(&settings)
                .arg(format!("RINGFENCE_FIREWALL_DIR={}", staged.display()));
            job.run(&mut command)
        })?;
    Ok(Optee { step })
}

/// `make` in OP-TEE's `tree`, building into the job's directory.
fn call(job: &Job, tree: &Path) -> std::process::Command {
    let mut command = make();
    command
        .arg("-C")
        .arg(tree)
        .arg(format!("O={}", job.file("build").display()));
    command
        .arg(format!("CROSS_COMPILE={CROSS_COMPILE}"))
        .arg(format!("CROSS_COMPILE64={CROSS_COMPILE}"));
    command.args(SETTINGS);
    command
}
