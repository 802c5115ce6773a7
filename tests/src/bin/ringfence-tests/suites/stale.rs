// SPDX-License-Identifier: MIT OR Apache-2.0

//! What was in a buffer is never seen in the next one, however early that
//! comes; and memory that is not zeroed yet is as good as free.
//!
//! The tests load the module with parameters of their own, mostly with the
//! background scrubber off: then memory stays dirty until a request takes it.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence_tests::guest::memory::{self, expect_zero, Outcome, PhysicalRange};
use ringfence_tests::guest::module::{self, CARVEOUT};
use ringfence_tests::guest::open_files::Limit;
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info};
use rustix::io::Errno;

use super::modules::{all_online, unload_carveout};
use super::region::{self, CAMERA, FIRMWARE};
use super::{workers_at_rest, Test};

pub const TESTS: &[Test] = &[
    (
        "released_memory_is_free_at_once_and_clean_soon",
        released_memory_is_clean_soon,
    ),
    (
        "what_the_firmware_left_is_not_handed_out",
        firmware_is_not_trusted,
    ),
    ("a_whole_region_of_dirty_memory_is_one_run", whole_region),
    (
        "clean_and_dirty_neighbours_make_one_buffer",
        neighbours_make_one_buffer,
    ),
    (
        "under_pressure_without_a_scrubber_nothing_is_stale",
        pressure_without_scrubber,
    ),
    (
        "under_pressure_beside_the_scrubber_nothing_is_stale",
        pressure_beside_scrubber,
    ),
    (
        "a_scrub_that_fails_leaves_the_range_dirty",
        failed_scrub_of_a_request,
    ),
    (
        "a_background_scrub_that_fails_is_made_up_for",
        failed_background_scrub,
    ),
    (
        "a_slow_scrubber_does_not_keep_the_module",
        slow_scrubber_keeps_nothing,
    ),
    (
        "what_is_released_to_an_unbound_heap_is_scrubbed_after_it",
        released_to_unbound_heap,
    ),
    (
        "memory_that_firmware_cleared_can_be_trusted",
        cleared_memory_is_trusted,
    ),
];

/// Tests that not every kernel runs: 16,384 buffers take the debug kernel half a minute. Records that
/// can't be had are only made to fail there.
pub fn on_this_kernel() -> &'static [Test] {
    match debug::is_debug_kernel() {
        true => &[],
        false => &[(
            "dirty_ranges_make_way_when_records_run_out",
            records_run_out,
        )],
    }
}

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// The heap of most tests. Both are unprotected, and differ in size, 192 MiB and 16 MiB: the debug
/// kernel is there for other faults than stale memory, and slow.
fn subject() -> &'static str {
    match debug::is_debug_kernel() {
        true => FIRMWARE,
        false => CAMERA,
    }
}

/// How long all of a region may take to be scrubbed.
const SCRUBBED: Duration = Duration::from_secs(60);

fn reload(parameters: &[&str]) -> anyhow::Result<()> {
    if module::is_loaded(CARVEOUT)? {
        unload_carveout()?;
    }
    module::load_with(CARVEOUT, parameters)?;
    all_online()
}

/// Runs `test` with the module loaded like that, and loads it as usual after.
fn with_module(
    parameters: &[&str],
    test: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    reload(parameters)?;
    let outcome = test();
    reload(&[])?;
    outcome
}

/// Waits until all of a heap's free memory is clean.
fn scrubbed(heap: &str) -> anyhow::Result<()> {
    deadline::until(SCRUBBED, "the scrubber is done", || {
        Ok((dirty(heap)? == 0).then_some(()))
    })?;
    anyhow::ensure!(debug::dirty_ranges(heap)?.is_empty());
    anyhow::ensure!(debug::figure(heap, "clean")? == heap_info(heap)?.free);
    Ok(())
}

fn dirty(heap: &str) -> anyhow::Result<u64> {
    debug::figure(heap, "dirty")
}

/// Fills a range with what must not be seen again.
fn fill(range: PhysicalRange) -> anyhow::Result<()> {
    match memory::fill(range)? {
        Outcome::Read { nonzero } if nonzero == range.size => Ok(()),
        other => anyhow::bail!("{range:x?} can't be filled: {other:?}"),
    }
}

fn expect_filled(range: PhysicalRange, what: &str) -> anyhow::Result<()> {
    match memory::read(range)? {
        Outcome::Read { nonzero } if nonzero == range.size => Ok(()),
        other => anyhow::bail!("{what}: {range:x?} was touched: {other:?}"),
    }
}

/// Allocates, and fails unless all of the buffer is zero.
fn zeroed(heap: &str, size: u64) -> anyhow::Result<(Buffer, PhysicalRange)> {
    let (buffer, range) = region::allocate(heap, size)?;
    expect_zero(range, "a new buffer")?;
    Ok((buffer, range))
}

fn expect_free(heap: &str, free: u64, largest: u64) -> anyhow::Result<()> {
    let info = heap_info(heap)?;
    anyhow::ensure!(
        (info.free, info.largest_free) == (free, largest),
        "{info:?}, not {free} free and {largest} in one run"
    );
    let clean = debug::figure(heap, "clean")?;
    let dirty = dirty(heap)?;
    // The scrubber may have been at work between the two.
    anyhow::ensure!(
        clean <= free && dirty <= free,
        "{clean} clean, {dirty} dirty"
    );
    Ok(())
}

fn released_memory_is_clean_soon() -> anyhow::Result<()> {
    let heap = subject();
    let size = heap_info(heap)?.size;
    scrubbed(heap)?;
    let (buffer, range) = zeroed(heap, size / 4)?;
    fill(range)?;
    expect_free(heap, size - range.size, size - range.size)?;
    drop(buffer);
    expect_free(heap, size, size)?;
    scrubbed(heap)?;
    expect_zero(range, "after the scrubber")?;
    expect_free(heap, size, size)
}

fn firmware_is_not_trusted() -> anyhow::Result<()> {
    let heap = subject();
    let region = region::of(heap)?;
    unload_carveout()?;
    fill(region)?;
    with_module(&["scrub_rate=0"], || {
        anyhow::ensure!(dirty(heap)? == region.size, "{} bytes dirty", dirty(heap)?);
        expect_free(heap, region.size, region.size)?;
        let (buffer, range) = zeroed(heap, 5 * MIB + PAGE)?;
        anyhow::ensure!(dirty(heap)? == region.size - range.size, "{}", dirty(heap)?);
        // Just that was zeroed.
        let behind = PhysicalRange {
            start: range.end(),
            size: PAGE,
        };
        expect_filled(behind, "behind the buffer")?;
        drop(buffer);
        anyhow::ensure!(dirty(heap)? == region.size, "{} bytes dirty", dirty(heap)?);
        Ok(())
    })?;
    scrubbed(heap)?;
    expect_zero(region, "after the scrubber")
}

fn whole_region() -> anyhow::Result<()> {
    let heap = subject();
    let region = region::of(heap)?;
    with_module(&["scrub_rate=0"], || {
        for _ in 0..2 {
            let (buffer, range) = zeroed(heap, region.size)?;
            anyhow::ensure!(range == region, "{range:x?}");
            anyhow::ensure!(dirty(heap)? == 0, "{} bytes dirty", dirty(heap)?);
            let device = allocation::open(heap)?;
            let outcome = allocation::allocate_size(&device, PAGE);
            expect_errno(outcome, Errno::NOMEM, "a page of a full heap")?;
            fill(range)?;
            drop(buffer);
            anyhow::ensure!(dirty(heap)? == region.size, "{} bytes dirty", dirty(heap)?);
        }
        Ok(())
    })
}

fn neighbours_make_one_buffer() -> anyhow::Result<()> {
    let heap = subject();
    let region = region::of(heap)?;
    let quarter = region.size / 4;
    // So that it can be trusted.
    scrubbed(heap)?;
    with_module(&["scrub_rate=0", "trust_cleared=1"], || {
        let mut buffers = Vec::new();
        for _ in 0..3 {
            buffers.push(region::allocate(heap, quarter)?);
        }
        for (_, range) in &buffers {
            fill(*range)?;
        }
        // Taken, dirty, dirty, clean.
        buffers.truncate(1);
        anyhow::ensure!(dirty(heap)? == 2 * quarter, "{} bytes dirty", dirty(heap)?);
        expect_free(heap, 3 * quarter, 3 * quarter)?;
        let device = allocation::open(heap)?;
        let outcome = allocation::allocate_size(&device, 3 * quarter + PAGE);
        expect_errno(outcome, Errno::NOMEM, "more than there is")?;
        let (_clean, clean) = zeroed(heap, quarter)?;
        anyhow::ensure!(
            dirty(heap)? == 2 * quarter,
            "clean memory does not go first"
        );
        anyhow::ensure!(clean.end() == region.end(), "{clean:x?}");
        let (small, _) = zeroed(heap, 3 * PAGE)?;
        let (_large, large) = zeroed(heap, 2 * quarter - 3 * PAGE)?;
        anyhow::ensure!(large.end() == clean.start, "{large:x?}");
        expect_free(heap, 0, 0)?;
        drop(small);
        expect_free(heap, 3 * PAGE, 3 * PAGE)
    })
}

/// Longest run of a region beside some ranges in it.
fn longest_run(region: PhysicalRange, live: &VecDeque<(Buffer, PhysicalRange)>) -> u64 {
    let mut taken: Vec<_> = live.iter().map(|(_, range)| *range).collect();
    taken.sort_by_key(|range| range.start);
    let mut run = region.start;
    let mut longest = 0;
    for range in taken {
        longest = longest.max(range.start - run);
        run = range.end();
    }
    longest.max(region.end() - run)
}

/// Allocates, fills and releases by a fixed pattern, in a heap that is nearly
/// full. Each buffer must be zero as a whole, each figure exact, and nothing is
/// refused for which there is room.
fn pressure() -> anyhow::Result<()> {
    // Sixteen take more than the heap has.
    let rounds = debug::tries(32).max(16);
    // A small one, so that every byte of every round can be looked at.
    let heap = FIRMWARE;
    let region = region::of(heap)?;
    let mut live = VecDeque::new();
    let mut free = region.size;
    let mut number = 1_u64;
    for _ in 0..rounds {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let size = PAGE * (1 + (number >> 33) % (region.size / 6 / PAGE));
        while longest_run(region, &live) < size {
            let outcome = allocation::allocate_size(&allocation::open(heap)?, size);
            expect_errno(outcome, Errno::NOMEM, "more than the longest run")?;
            // Not always the oldest one, so that holes come about.
            let index = (number >> 40) as usize % live.len();
            let (buffer, range): (Buffer, PhysicalRange) =
                live.swap_remove_front(index).context("nothing is live")?;
            drop(buffer);
            free += range.size;
            expect_free(heap, free, longest_run(region, &live))?;
        }
        let (buffer, range) = zeroed(heap, size)?;
        fill(range)?;
        free -= size;
        live.push_back((buffer, range));
        expect_free(heap, free, longest_run(region, &live))?;
    }
    Ok(())
}

fn pressure_without_scrubber() -> anyhow::Result<()> {
    with_module(&["scrub_rate=0"], pressure)
}

fn pressure_beside_scrubber() -> anyhow::Result<()> {
    // Slow enough to be caught in the middle of a range.
    with_module(&["scrub_rate=3"], pressure)?;
    pressure()?;
    scrubbed(FIRMWARE)
}

fn failed_scrub_of_a_request() -> anyhow::Result<()> {
    let heap = subject();
    const SIZE: u64 = 5 * MIB;
    let region = region::of(heap)?;
    with_module(&["scrub_rate=0"], || {
        let (buffer, range) = region::allocate(heap, region.size)?;
        fill(range.page(0))?;
        drop(buffer);
        let before = heap_info(heap)?;
        let device = allocation::open(heap)?;
        for point in ["scrub", "record"] {
            let armed = debug::arm(point, 1)?;
            let errno = match point {
                "scrub" => Errno::IO,
                _ => Errno::NOMEM,
            };
            let outcome = allocation::allocate_size(&device, SIZE);
            expect_errno(outcome, errno, &format!("{point} fails"))?;
            drop(armed);
            let after = heap_info(heap)?;
            anyhow::ensure!(after == before, "{point}: {after:?}, not {before:?}");
            anyhow::ensure!(debug::ranges(heap)?.is_empty(), "a range is left");
            anyhow::ensure!(dirty(heap)? == region.size, "{} bytes dirty", dirty(heap)?);
        }
        let (_buffer, again) = zeroed(heap, SIZE)?;
        anyhow::ensure!(again.start == range.start, "another place: {again:x?}");
        Ok(())
    })
}

fn failed_background_scrub() -> anyhow::Result<()> {
    let heap = subject();
    scrubbed(heap)?;
    let (buffer, range) = region::allocate(heap, 9 * MIB)?;
    fill(range)?;
    workers_at_rest()?;
    // In the middle of the range.
    let _armed = debug::arm("background", 3)?;
    drop(buffer);
    deadline::until(SCRUBBED, "the scrubber fails", || {
        Ok(debug::armed()?
            .contains(&("background".to_owned(), 0))
            .then_some(()))
    })?;
    let kept = debug::dirty_ranges(heap)?;
    anyhow::ensure!(
        kept.len() == 1 && kept[0].range == range,
        "not one dirty range, as it was: {kept:x?}"
    );
    // Taken in the middle of its scrubbing it is as clean as any other.
    let whole = region::of(heap)?;
    let (buffer, all) = zeroed(heap, whole.size)?;
    anyhow::ensure!(all == whole, "{all:x?}");
    drop(buffer);
    scrubbed(heap)
}

fn slow_scrubber_keeps_nothing() -> anyhow::Result<()> {
    let region = region::of(CAMERA)?;
    reload(&["scrub_rate=1"])?;
    anyhow::ensure!(
        dirty(CAMERA)? > region.size / 2,
        "{} bytes dirty",
        dirty(CAMERA)?
    );
    let start = Instant::now();
    unload_carveout()?;
    let took = start.elapsed();
    module::load(CARVEOUT)?;
    all_online()?;
    // To scrub what is left would take 96 seconds at least.
    anyhow::ensure!(took < Duration::from_secs(60), "rmmod took {took:?}");
    // And right in the middle of its work.
    for _ in 0..debug::tries(5) {
        reload(&["scrub_rate=100000"])?;
    }
    reload(&[])?;
    scrubbed(CAMERA)
}

fn released_to_unbound_heap() -> anyhow::Result<()> {
    let heap = subject();
    let device = format!("heap-{heap}");
    scrubbed(heap)?;
    let driver = fs::canonicalize(format!("/sys/bus/platform/devices/{device}/driver"))
        .context("the heap's device has no driver")?;
    let tell = |file: &str| {
        let path = driver.join(file);
        fs::write(&path, &device).with_context(|| path.display().to_string())
    };
    let before = heap_info(heap)?;
    let (buffer, range) = region::allocate(heap, before.size / 4)?;
    fill(range)?;
    tell("unbind")?;
    drop(buffer);
    expect_filled(range.last_page(), "nobody scrubs an unbound heap")?;
    tell("bind")?;
    all_online()?;
    let after = heap_info(heap)?;
    anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    drop(zeroed(heap, before.size)?);
    scrubbed(heap)
}

fn cleared_memory_is_trusted() -> anyhow::Result<()> {
    let heap = subject();
    let region = region::of(heap)?;
    let mark = region.last_page();
    unload_carveout()?;
    fill(mark)?;
    with_module(&["trust_cleared=1"], || {
        anyhow::ensure!(dirty(heap)? == 0, "{} bytes dirty", dirty(heap)?);
        anyhow::ensure!(debug::figure(heap, "clean")? == region.size);
        let (buffer, _) = region::allocate(heap, region.size)?;
        expect_filled(mark, "trusted memory")?;
        drop(buffer);
        // What a buffer was in is not trusted.
        scrubbed(heap)?;
        expect_zero(mark, "after the first buffer")
    })?;
    scrubbed(heap)
}

fn records_run_out() -> anyhow::Result<()> {
    /// Ranges that the module keeps records of, for each heap.
    const RECORDS: usize = 1 << 14;
    let _limit = Limit::set(RECORDS as u64 + 64)?;
    with_module(&["scrub_rate=0", "trust_cleared=1"], || {
        let device = allocation::open(CAMERA)?;
        let (large, range) = region::allocate(CAMERA, 4 * MIB)?;
        fill(range)?;
        let allocate = || {
            allocation::allocate_size(&device, PAGE)
                .map_err(|errno| anyhow::anyhow!("one more page: {errno}"))
        };
        let mut buffers = Vec::with_capacity(RECORDS);
        for _ in 1..RECORDS {
            buffers.push(allocate()?);
        }
        let outcome = allocation::allocate_size(&device, PAGE);
        expect_errno(outcome, Errno::NOMEM, "one range too many")?;
        // It keeps its record while it is dirty, and a part of it would need one more.
        drop(large);
        buffers.push(allocate()?);
        anyhow::ensure!(dirty(CAMERA)? == 0, "{} bytes dirty", dirty(CAMERA)?);
        expect_zero(range, "the range that gave up its record")?;
        anyhow::ensure!(heap_info(CAMERA)?.buffers as usize == RECORDS);
        let outcome = allocation::allocate_size(&device, PAGE);
        expect_errno(outcome, Errno::NOMEM, "one range too many")
    })
}
