// SPDX-License-Identifier: MIT OR Apache-2.0

//! /proc/kcore, the kernel's own view of its memory, as an ELF file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::memory::PhysicalRange;

/// A loadable segment.
#[derive(Debug)]
pub struct Segment {
    /// Where it is in the file.
    pub offset: u64,
    /// Physical address; all ones where there is none.
    pub physical: u64,
    /// Bytes.
    pub size: u64,
}

impl Segment {
    /// Whether it has all of a range.
    pub fn holds(&self, range: &PhysicalRange) -> bool {
        self.physical <= range.start
            && range.end() <= self.physical.saturating_add(self.size)
            && self.physical != u64::MAX
    }
}

/// The loadable segments of a 64-bit little-endian ELF file (System V gABI,
/// "Program Header").
pub fn segments(file: &File) -> anyhow::Result<Vec<Segment>> {
    const LOAD: u32 = 1;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let table = u64::from_le_bytes(header[32..40].try_into()?);
    let count = u16::from_le_bytes(header[56..58].try_into()?);
    let mut segments = Vec::new();
    for index in 0..u64::from(count) {
        let mut entry = [0; 56];
        file.read_exact_at(&mut entry, table + index * 56)?;
        let word = |at: usize| -> anyhow::Result<u64> {
            Ok(u64::from_le_bytes(entry[at..at + 8].try_into()?))
        };
        if u32::from_le_bytes(entry[..4].try_into()?) == LOAD {
            segments.push(Segment {
                offset: word(8)?,
                physical: word(24)?,
                size: word(40)?,
            });
        }
    }
    Ok(segments)
}
