// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's devicetree: QEMU's own, merged with the overlay that declares the carveouts, and what
//! is derived from it for the secure world and for EL3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::carveouts;
use crate::engine::{Job, Plan, Step};
use crate::host;
use crate::vm::machine;

/// Devices that abort when the normal world touches them on a machine with a secure world.
const UNUSABLE: [&str; 3] = ["/pl031@9010000", "/pl061@9030000", "/gpio-keys"];

/// The devicetree and its derivatives.
#[derive(Debug, Clone)]
pub struct Devicetree {
    /// The step that makes them.
    pub step: Step,
}

impl Devicetree {
    /// The blob that firmware and Linux get.
    pub fn blob(&self) -> PathBuf {
        self.step.file("merged.dtb")
    }

    /// Source of the devicetree that is embedded in OP-TEE.
    pub fn secure_source(&self) -> PathBuf {
        self.step.file("ringfence-secure.dts")
    }

    /// Directory with the header that gives EL3 the carveouts' bounds.
    pub fn include(&self) -> PathBuf {
        self.step.file("include")
    }
}

/// Declares the devicetree.
pub fn declare(plan: &mut Plan, workspace: &Path) -> Result<Devicetree> {
    let directory = workspace.join("dts");
    let qemu = host::qemu_version().unwrap_or_default();
    let step = plan
        .step("devicetree")
        .input(&directory)
        .param("machine", machine::board().join(" "))
        .param("qemu", qemu)
        .param("derivation", include_str!("../carveouts.rs"))
        .runs(move |job| build(job, &directory))?;
    Ok(Devicetree { step })
}

fn build(job: &Job, directory: &Path) -> Result<()> {
    let base = job.file("base.dtb");
    let dump = format!("dumpdtb={}", base.display());
    let mut qemu = Command::new(host::QEMU);
    qemu.args(["-nodefaults", "-display", "none"])
        .args(machine::board())
        .args(["-machine", &dump]);
    job.run(&mut qemu)?;
    for node in UNUSABLE {
        job.run(
            Command::new("fdtput")
                .args(["-t", "s"])
                .arg(&base)
                .args([node, "status", "disabled"]),
        )?;
    }
    let preprocessed = job.file("overlay.dts");
    let mut preprocess = Command::new("gcc");
    preprocess
        .args([
            "-E",
            "-nostdinc",
            "-undef",
            "-P",
            "-x",
            "assembler-with-cpp",
            "-I",
        ])
        .arg(directory);
    job.run(
        preprocess
            .arg(directory.join("qemu-virt.dtso"))
            .arg("-o")
            .arg(&preprocessed),
    )?;
    let overlay = job.file("overlay.dtbo");
    let mut compile = Command::new("dtc");
    job.run(
        compile
            .args(["-Wno-avoid_unnecessary_addr_size", "-@"])
            .args(["-I", "dts", "-O", "dtb", "-o"])
            .arg(&overlay)
            .arg(&preprocessed),
    )?;
    let merged = job.file("merged.dtb");
    job.run(
        Command::new("fdtoverlay")
            .arg("-i")
            .arg(&base)
            .arg("-o")
            .arg(&merged)
            .arg(&overlay),
    )?;
    let derived = carveouts::derive(&fs::read(&merged)?)
        .context("derive the carveouts from the merged devicetree")?;
    fs::write(job.file("ringfence-secure.dts"), derived.secure_dts)?;
    fs::create_dir(job.file("include"))?;
    fs::write(
        job.file("include/ringfence_carveouts.h"),
        derived.el3_header,
    )?;
    Ok(())
}
