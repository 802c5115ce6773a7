// SPDX-License-Identifier: MIT OR Apache-2.0

//! The regions behind heaps, as the devicetree has them (`/reserved-memory`,
//! Devicetree Specification, section 3.5).

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use super::memory::PhysicalRange;

/// The node of a heap's region, if there is one.
fn node(heap: &str) -> anyhow::Result<Option<PathBuf>> {
    const FOLDER: &str = "/proc/device-tree/reserved-memory";
    for entry in fs::read_dir(FOLDER).context(FOLDER)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.split('@').next() == Some(heap) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Whether a heap's region is one that Linux does not count as its own memory.
pub fn is_unmapped(heap: &str) -> anyhow::Result<bool> {
    Ok(node(heap)?.is_some_and(|node| node.join("no-map").exists()))
}

/// Where a heap's region is.
pub fn of(heap: &str) -> anyhow::Result<PhysicalRange> {
    let node = node(heap)?.with_context(|| format!("no reserved memory is named {heap}"))?;
    // Two cells of address and two of size, big-endian.
    let reg = fs::read(node.join("reg"))?;
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_be_bytes(reg.get(at..at + 8)?.try_into().ok()?))
    };
    Ok(PhysicalRange {
        start: number(0).context("reg is too short")?,
        size: number(8).context("reg is too short")?,
    })
}
