// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's files in debugfs, for root's eyes only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ringfence::buffer::Buffer;

use super::memory::PhysicalRange;

/// Where the heaps have their directories.
pub const ROOT: &str = "/sys/kernel/debug/ringfence";

/// Whether this is the kernel that looks for faults in itself, and is slow.
pub fn is_debug_kernel() -> bool {
    Path::new("/sys/kernel/debug/kmemleak").exists()
}

/// How often something is tried that goes wrong by chance, if at all: a quarter of `count` on the
/// debug kernel, which notices more each time.
pub fn tries(count: u64) -> u64 {
    match is_debug_kernel() {
        true => count.div_ceil(4),
        false => count,
    }
}

/// An allocated range, as a heap's `ranges` file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeLine {
    /// Where it is.
    pub range: PhysicalRange,
    /// The column where a handle must not be shown.
    pub handle: String,
    /// How it stands, in one word.
    pub state: String,
    /// Who allocated it.
    pub pid: u32,
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn line(text: &str) -> Option<RangeLine> {
    let mut words = text.split_whitespace();
    Some(RangeLine {
        range: PhysicalRange {
            start: number(words.next()?)?,
            size: number(words.next()?)?,
        },
        handle: words.next()?.to_owned(),
        state: words.next()?.to_owned(),
        pid: words.next()?.parse().ok()?,
    })
}

/// The allocated ranges of a heap, in order of address.
pub fn ranges(heap: &str) -> anyhow::Result<Vec<RangeLine>> {
    let mut lines = all_ranges(heap)?;
    lines.retain(|line| line.state != DIRTY);
    Ok(lines)
}

/// The ranges of a heap that are free, but not zeroed yet, in order of address.
pub fn dirty_ranges(heap: &str) -> anyhow::Result<Vec<RangeLine>> {
    let mut lines = all_ranges(heap)?;
    lines.retain(|line| line.state == DIRTY);
    Ok(lines)
}

/// How a range stands that nobody has, and that is not zeroed yet.
const DIRTY: &str = "dirty";

fn all_ranges(heap: &str) -> anyhow::Result<Vec<RangeLine>> {
    let path = PathBuf::from(ROOT).join(heap).join("ranges");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|text| line(text).with_context(|| format!("{}: {text:?}", path.display())))
        .collect()
}

/// A figure of a heap's `stats` file.
pub fn figure(heap: &str, name: &str) -> anyhow::Result<u64> {
    let path = PathBuf::from(ROOT).join(heap).join("stats");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .with_context(|| format!("{}: no {name} in {text:?}", path.display()))
}

/// Calls `allocate`, and finds the one range that is new after it.
pub fn locate(
    heap: &str,
    allocate: impl FnOnce() -> anyhow::Result<Buffer>,
) -> anyhow::Result<(Buffer, PhysicalRange)> {
    let before = ranges(heap)?;
    let buffer = allocate()?;
    let mut new: Vec<_> = ranges(heap)?
        .into_iter()
        .filter(|line| !before.iter().any(|old| old.range == line.range))
        .collect();
    match (new.pop(), new.is_empty()) {
        (Some(line), true) => Ok((buffer, line.range)),
        (last, _) => anyhow::bail!(
            "{} new ranges in {heap} after one allocation",
            new.len() + usize::from(last.is_some())
        ),
    }
}

/// A live buffer, as a heap's `buffers` file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferLine {
    /// Number of the dma-buf's inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Physical address, of a buffer of pages in one run.
    pub start: Option<u64>,
    /// Who allocated it.
    pub pid: u32,
    /// The name of that process.
    pub comm: String,
}

/// The live buffers of a heap, oldest first.
pub fn buffers(heap: &str) -> anyhow::Result<Vec<BufferLine>> {
    let path = PathBuf::from(ROOT).join(heap).join("buffers");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = |text: &str| {
        let mut words = text.splitn(5, ' ');
        Some(BufferLine {
            inode: words.next()?.parse().ok()?,
            size: number(words.next()?)?,
            start: number(words.next()?),
            pid: words.next()?.parse().ok()?,
            comm: words.next()?.to_owned(),
        })
    };
    text.lines()
        .map(|text| line(text).with_context(|| format!("{}: {text:?}", path.display())))
        .collect()
}

/// A failure that the driver will run into; disarmed when this is dropped, so
/// that a test which fails does not fail those after it.
#[derive(Debug)]
pub struct Armed(&'static str);

/// Makes the driver fail the `nth` next time that it passes a point.
pub fn arm(point: &'static str, nth: u32) -> anyhow::Result<Armed> {
    write_inject(&format!("{point} {nth}"))?;
    Ok(Armed(point))
}

impl Drop for Armed {
    fn drop(&mut self) {
        // It was writable a moment ago; if it is not now, the next test says so.
        let _ = write_inject(&format!("{} 0", self.0));
    }
}

/// Writes a line to the driver's `inject` file.
pub fn write_inject(line: &str) -> anyhow::Result<()> {
    let path = PathBuf::from(ROOT).join("inject");
    fs::write(&path, format!("{line}\n")).with_context(|| format!("{}: {line}", path.display()))
}

/// The driver's fail points, each with how many passes are left before it fails.
pub fn armed() -> anyhow::Result<Vec<(String, u32)>> {
    let path = PathBuf::from(ROOT).join("inject");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|text| {
            let (name, left) = text.split_once(' ').context("no fail point")?;
            Ok((name.to_owned(), left.parse()?))
        })
        .collect()
}

/// Asks a heap to try once more to settle what is in quarantine.
pub fn retry(heap: &str) -> anyhow::Result<()> {
    let path = PathBuf::from(ROOT).join(heap).join("retry");
    fs::write(&path, "1\n").with_context(|| path.display().to_string())
}
