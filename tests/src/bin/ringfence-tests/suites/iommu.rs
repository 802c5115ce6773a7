// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers in pieces, and others, for a device behind an IOMMU, which copies within
//! them by DMA.

use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence_tests::guest::copier::{Copier, MODULE, MOST};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::memory::{self, Outcome, PhysicalRange};
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info, module};
use rustix::io::Errno;

use super::region::{CAMERA, FIRMWARE, SCATTERED};
use super::Test;

pub const TESTS: &[Test] = &[
    ("scattered_chunks_are_one_run_for_a_device", one_run),
    ("chunks_that_the_cpu_does_not_see_are_too", without_the_cpu),
    ("contiguous_buffers_are_reached_as_well", contiguous),
    ("what_is_not_mapped_any_more_can_be_mapped_again", again),
    ("a_mapping_that_fails_leaves_nothing_behind", failing),
];

const PAGE: u64 = 4096;

/// How long all of a heap may take to be cleared.
const CLEARED: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;

/// The heap of chunks that the CPU does not see.
const PIECES: &str = "pieces";

/// A buffer of `count` chunks of 1 MiB, no two of which are neighbours, and what
/// lies between them.
fn scattered(heap: &str, count: u64) -> anyhow::Result<(Buffer, Vec<Buffer>)> {
    // What waits to be cleared is taken last, wherever it is; without that, one follows the other.
    deadline::until(CLEARED, "the heap is clear", || {
        Ok(debug::dirty_ranges(heap)?.is_empty().then_some(()))
    })?;
    let file = allocation::open(heap)?;
    let mut others = Vec::new();
    for _ in 0..heap_info(heap)?.size / MIB {
        others.push(allocation::allocate_size(&file, MIB)?);
    }
    let mut index = 0;
    others.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    let longest = heap_info(heap)?.largest_free;
    anyhow::ensure!(
        longest == MIB,
        "{heap}: {longest} bytes are free at a stretch"
    );
    let buffer = allocation::allocate_size(&file, count * MIB)?;
    Ok((buffer, others))
}

/// Whole copies are the device's; it says in how many pieces it sees the buffer.
fn copy(copier: &Copier, buffer: &Buffer, from: u64, to: u64, length: usize) -> anyhow::Result<()> {
    let entries = copier
        .copy(buffer, from, to, length)
        .with_context(|| format!("{length} bytes from {from:#x} to {to:#x}"))?;
    anyhow::ensure!(entries == 1, "the device has it in {entries} pieces");
    Ok(())
}

fn one_run() -> anyhow::Result<()> {
    const COUNT: u64 = 4;
    let copier = Copier::open()?;
    let (buffer, _others) = scattered(SCATTERED, COUNT)?;
    let size = usize::try_from(COUNT * MIB)?;
    let mapping = Mapping::new(&buffer, size)?;
    for offset in (0..size).step_by(8) {
        mapping.set(offset, offset as u64 | 1 << 63);
    }
    // From one border of two chunks to another one, and from the first chunk to the last one's end.
    let copies = [
        (MIB - 2048, 3 * MIB - 1000, MOST),
        (0, COUNT * MIB - 104, 104),
    ];
    for (from, to, length) in copies {
        copy(&copier, &buffer, from, to, length)?;
    }
    let place = |offset: u64| usize::try_from(offset);
    for (from, to, length) in copies {
        for step in (0..length).step_by(8) {
            let seen = mapping.get(place(to)? + step);
            let expected = (from + step as u64) | 1 << 63;
            anyhow::ensure!(seen == expected, "{:#x}: {seen:#x}", to + step as u64);
        }
    }
    // And nothing else was written.
    let is_target = |offset: usize| {
        copies
            .iter()
            .any(|&(_, to, length)| (to..to + length as u64).contains(&(offset as u64)))
    };
    for offset in (0..size).step_by(8).filter(|&offset| !is_target(offset)) {
        let seen = mapping.get(offset);
        anyhow::ensure!(seen == offset as u64 | 1 << 63, "{offset:#x}: {seen:#x}");
    }
    Ok(())
}

/// The chunks whose page of this number is not zeros.
fn chunks_with(ranges: &[PhysicalRange], page: u64) -> anyhow::Result<Vec<usize>> {
    let mut found = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        match memory::read(range.page(page))? {
            Outcome::Read { nonzero: 0 } => {}
            Outcome::Read { nonzero: PAGE } => found.push(index),
            seen => anyhow::bail!("page {page} of chunk {index}: {seen:?}"),
        }
    }
    Ok(found)
}

fn without_the_cpu() -> anyhow::Result<()> {
    const COUNT: u64 = 3;
    let copier = Copier::open()?;
    let (buffer, others) = scattered(PIECES, COUNT)?;
    let kept = debug::ranges(PIECES)?;
    drop(others);
    // What is left are this buffer's chunks.
    let ranges: Vec<_> = debug::ranges(PIECES)?
        .into_iter()
        .map(|line| line.range)
        .collect();
    anyhow::ensure!(ranges.len() as u64 == COUNT && kept.len() > ranges.len());
    memory::fill(ranges[1].page(0))?;
    for chunk in 0..COUNT {
        copy(&copier, &buffer, chunk * MIB, chunk * MIB + 2 * PAGE, MOST)?;
    }
    anyhow::ensure!(chunks_with(&ranges, 2)? == [1], "within a chunk");
    for chunk in 0..COUNT {
        let next = (chunk + 1) % COUNT;
        copy(&copier, &buffer, chunk * MIB, next * MIB + 3 * PAGE, MOST)?;
    }
    let found = chunks_with(&ranges, 3)?;
    anyhow::ensure!(found.len() == 1 && found != [1], "to the next: {found:?}");
    Ok(())
}

fn contiguous() -> anyhow::Result<()> {
    let copier = Copier::open()?;
    for heap in [CAMERA, "system"] {
        let buffer = allocation::allocate_size(&allocation::open(heap)?, 4 * MIB)?;
        let mut mapping = Mapping::new(&buffer, 4 << 20)?;
        mapping.fill(0x21);
        mapping.set(0, 0x4242_4242_4242_4242);
        // The system heap's blocks are one run for the device, too.
        copier
            .copy(&buffer, 0, 3 * MIB + 8, MOST)
            .with_context(|| heap.to_owned())?;
        anyhow::ensure!(
            mapping.get((3 << 20) + 8) == 0x4242_4242_4242_4242,
            "{heap}"
        );
        anyhow::ensure!(mapping.others_than(0x21) == 16, "{heap}");
    }
    let buffer = allocation::allocate_size(&allocation::open(FIRMWARE)?, MIB)?;
    let lines = debug::ranges(FIRMWARE)?;
    anyhow::ensure!(lines.len() == 1);
    memory::fill(lines[0].range.page(7))?;
    copy(&copier, &buffer, 7 * PAGE, 9 * PAGE, MOST)?;
    anyhow::ensure!(chunks_with(&[lines[0].range], 9)? == [0]);
    anyhow::ensure!(chunks_with(&[lines[0].range], 8)?.is_empty());
    Ok(())
}

fn again() -> anyhow::Result<()> {
    const ROUNDS: u32 = 40;
    let copier = Copier::open()?;
    let (buffer, _others) = scattered(SCATTERED, 12)?;
    for _ in 0..ROUNDS {
        copy(&copier, &buffer, 0, 0, 0)?;
    }
    drop(copier);
    // The debug kernel reports what a driver that goes has left mapped.
    module::unload(MODULE)?;
    Ok(())
}

fn failing() -> anyhow::Result<()> {
    let copier = Copier::open()?;
    let (buffer, _others) = scattered(SCATTERED, 4)?;
    let before = heap_info(SCATTERED)?;
    let armed = debug::arm("map", 1)?;
    expect_errno(copier.copy(&buffer, 0, 0, 0), Errno::IO, "map")?;
    drop(armed);
    anyhow::ensure!(heap_info(SCATTERED)? == before);
    copy(&copier, &buffer, 0, 0, 0)
}
