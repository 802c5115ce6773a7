// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's devicetree: QEMU's own, merged with the overlay that declares the carveouts, and what
//! is derived from it for the secure world and for EL3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

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

/// Which machine the guest runs on, and which carveouts it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Board {
    /// Those of the product.
    #[default]
    Ordinary,
    /// One processor, and more memory with a carveout in it that is large enough for every
    /// measurement.
    Bench,
    /// Devices on its PCI bus have an IOMMU; one more carveout for them.
    Translated,
}

/// Each, the one first that others are compared with.
const BOARDS: [Board; 3] = [Board::Ordinary, Board::Bench, Board::Translated];

impl Board {
    /// Its overlays, each on top of the one before.
    fn overlays(self) -> &'static [&'static str] {
        match self {
            Self::Ordinary => &["qemu-virt"],
            Self::Bench => &["qemu-virt", "qemu-virt-bench"],
            Self::Translated => &["qemu-virt", "qemu-virt-translated"],
        }
    }

    /// Name of its blob.
    fn blob(self) -> &'static str {
        match self {
            Self::Ordinary => "merged.dtb",
            Self::Bench => "bench.dtb",
            Self::Translated => "translated.dtb",
        }
    }
}

impl Devicetree {
    /// The blob that firmware and Linux get.
    pub fn blob(&self, board: Board) -> PathBuf {
        self.step.file(board.blob())
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
        .param(
            "machine",
            BOARDS
                .map(|board| machine::board(board).join(" "))
                .join("; "),
        )
        .param("qemu", qemu)
        .param("derivation", include_str!("../carveouts.rs"))
        .runs(move |job| build(job, &directory))?;
    Ok(Devicetree { step })
}

fn build(job: &Job, directory: &Path) -> Result<()> {
    let mut declared = None;
    for board in BOARDS {
        let base = dump(job, board)?;
        let merged = merge(job, directory, &base, board)?;
        let derived = carveouts::derive(&fs::read(&merged)?)
            .with_context(|| format!("derive the carveouts from {}", board.blob()))?;
        // Firmware is built once, for all.
        let first = declared.get_or_insert_with(|| derived.clone());
        ensure!(
            derived == *first,
            "{} changes what the secure world guards",
            board.blob()
        );
    }
    let derived = declared.context("there is a board")?;
    fs::write(job.file("ringfence-secure.dts"), derived.secure_dts)?;
    fs::create_dir(job.file("include"))?;
    fs::write(
        job.file("include/ringfence_carveouts.h"),
        derived.el3_header,
    )?;
    Ok(())
}

/// QEMU's own devicetree of a board, without the devices that can't be used; returns the blob.
fn dump(job: &Job, board: Board) -> Result<PathBuf> {
    let base = job.file(format!("base-{}", board.blob()));
    let mut qemu = Command::new(host::QEMU);
    qemu.args(["-nodefaults", "-display", "none"])
        .args(machine::board(board))
        .args(["-machine", &format!("dumpdtb={}", base.display())]);
    job.run(&mut qemu)?;
    for node in UNUSABLE {
        job.run(
            Command::new("fdtput")
                .args(["-t", "s"])
                .arg(&base)
                .args([node, "status", "disabled"]),
        )?;
    }
    Ok(base)
}

/// Applies a board's overlays to `base`; returns the blob.
fn merge(job: &Job, directory: &Path, base: &Path, board: Board) -> Result<PathBuf> {
    let overlays = board
        .overlays()
        .iter()
        .map(|name| compile(job, directory, name))
        .collect::<Result<Vec<_>>>()?;
    let merged = job.file(board.blob());
    job.run(
        Command::new("fdtoverlay")
            .arg("-i")
            .arg(base)
            .arg("-o")
            .arg(&merged)
            .args(overlays),
    )?;
    Ok(merged)
}

/// Compiles the overlay `name`; returns its blob.
fn compile(job: &Job, directory: &Path, name: &str) -> Result<PathBuf> {
    let preprocessed = job.file(format!("{name}.dts"));
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
            .arg(directory.join(format!("{name}.dtso")))
            .arg("-o")
            .arg(&preprocessed),
    )?;
    let overlay = job.file(format!("{name}.dtbo"));
    let mut compile = Command::new("dtc");
    job.run(
        compile
            .args(["-Wno-avoid_unnecessary_addr_size", "-@"])
            .args(["-I", "dts", "-O", "dtb", "-o"])
            .arg(&overlay)
            .arg(&preprocessed),
    )?;
    Ok(overlay)
}
