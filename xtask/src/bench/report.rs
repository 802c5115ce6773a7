// SPDX-License-Identifier: MIT OR Apache-2.0
//! All figures of one measurement, and the file that they are kept in.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ringfence_tests::bench::Figures;
use serde::{Deserialize, Serialize};

use super::allocator::Allocators;
use super::guest;
use crate::artefact::devicetree::Board;
use crate::host;
use crate::rust::Toolchain;
use crate::stack::workspace;
use crate::vm::{self, machine};

/// The figures and how they came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was measured with.
    pub conditions: Conditions,
    /// Every heap, in the guest.
    pub heaps: Figures,
    /// The range allocator alone, on the building machine.
    pub allocators: Allocators,
}

/// The machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Version of QEMU.
    pub qemu: String,
    /// QEMU's options for the board.
    pub board: String,
    /// QEMU's option that makes time count instructions.
    pub icount: String,
    /// What the guest kernel's command line has for the measurement.
    pub bootargs: String,
    /// Architecture of the building machine.
    pub host: String,
    /// The compiler of the allocator that runs there.
    pub rustc: String,
}

/// The file with the checkout's own figures, which the README shows.
pub fn committed() -> PathBuf {
    workspace().join("xtask/bench.json")
}

impl Report {
    /// What has just been measured on this machine.
    pub fn of(heaps: Figures, allocators: Allocators) -> Result<Self> {
        let conditions = Conditions {
            qemu: host::qemu_version().context("QEMU tells no version")?,
            board: machine::board(Board::Bench).join(" "),
            icount: vm::ICOUNT.to_owned(),
            bootargs: guest::BOOTARGS.to_owned(),
            host: ARCH.to_owned(),
            rustc: Toolchain::detect()?.release().to_owned(),
        };
        Ok(Self {
            conditions,
            heaps,
            allocators,
        })
    }

    /// Reads a file that [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))
    }

    /// Writes the report.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}
