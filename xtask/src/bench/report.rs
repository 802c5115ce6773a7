// SPDX-License-Identifier: MIT OR Apache-2.0
//! All figures of one measurement, and the file that they are kept in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ringfence_tests::bench::Figures;
use serde::{Deserialize, Serialize};

use crate::stack::workspace;

/// The figures and how they came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was measured with.
    pub conditions: Conditions,
    /// Every heap, in the guest.
    pub heaps: Figures,
}

/// The emulated machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Version of QEMU.
    pub qemu: String,
    /// QEMU's options for the board.
    pub board: String,
    /// QEMU's option that makes time count instructions.
    pub icount: String,
    /// What the kernel's command line has for the measurement.
    pub bootargs: String,
}

/// The file with the checkout's own figures, which the README shows.
pub fn committed() -> PathBuf {
    workspace().join("xtask/bench.json")
}

impl Report {
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
