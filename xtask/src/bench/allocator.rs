// SPDX-License-Identifier: MIT OR Apache-2.0
//! The range allocator and its peers on this machine, call by call under callgrind.

use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::rust::Toolchain;
use crate::stack::workspace;

/// The document that the allocator's benchmark `counts` writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocators {
    /// What is counted.
    pub unit: String,
    /// Bytes that every allocation is a multiple of.
    pub granule: u64,
    /// One entry for each subject on each workload in each region.
    pub results: Vec<Workload>,
}

/// One allocator on one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Bytes managed.
    pub region: u64,
    /// Name of the workload.
    pub workload: String,
    /// Name of the allocator.
    pub subject: String,
    /// Calls that allocated.
    pub alloc: Calls,
    /// Calls that found no run.
    pub refused: Calls,
    /// Calls that freed.
    pub free: Calls,
}

/// Instructions of a kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// How many there were.
    pub calls: u64,
    /// The dearest one.
    pub max: u64,
    /// Half of them cost no more than this.
    pub median: u64,
}

/// Runs the benchmark.
pub fn measure() -> Result<Allocators> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counts.json");
    let status = Toolchain::detect()?
        .cargo()
        .current_dir(workspace())
        .args(["bench", "--quiet", "--locked"])
        .args(["--package", "ringfence-range-alloc", "--bench", "counts"])
        .args(["--", "--json"])
        .arg(&file)
        // Its own table says more than is wanted here, and progress is no result.
        .stdout(Stdio::null())
        .status()
        .context("start cargo")?;
    ensure!(status.success(), "cargo bench: {status}");
    let text = std::fs::read(&file)?;
    serde_json::from_slice(&text).context("the allocator's counts")
}
