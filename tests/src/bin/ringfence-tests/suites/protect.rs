// SPDX-License-Identifier: MIT OR Apache-2.0

//! What protection promises: the normal world can't look, before, while or
//! after.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::proto::command::result;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::memory::{self, expect_killed, expect_zero, Outcome};
use ringfence_tests::guest::ta::{expect_code, Ta};
use ringfence_tests::guest::{
    allocation, deadline, debug, dma_buf, expect_errno, heap_info, open_files,
};
use rustix::io::Errno;

use super::command::Holder;
use super::fixture::{expect_zeros, Fixture};
use super::region::{self, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("protected_pages_kill_their_reader", protected_pages_kill),
    (
        "a_buffer_in_the_middle_leaves_its_neighbours_alone",
        neighbours_are_left_alone,
    ),
    ("cpu_access_is_refused", cpu_access_is_refused),
    (
        "old_content_is_gone_before_the_fence_is_up",
        old_content_is_gone,
    ),
    (
        "decrypted_content_is_gone_after_release",
        decrypted_content_is_gone,
    ),
    ("the_whole_region_is_one_buffer", the_whole_region),
    ("many_small_buffers_are_told_apart", many_small_buffers),
    (
        "more_buffers_than_the_secure_world_takes",
        more_than_there_is_room_for,
    ),
    (
        "a_trusted_ui_buffer_takes_no_decrypted_content",
        trusted_ui_takes_no_content,
    ),
    ("a_buffer_outlives_its_maker", a_buffer_outlives_its_maker),
    ("a_killed_process_leaves_nothing_behind", a_killed_process),
    ("a_handle_is_for_holders_of_the_fd", handles_are_not_shown),
];

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

fn protected_pages_kill() -> anyhow::Result<()> {
    for heap in [VIDEO, UI] {
        let (buffer, range) = region::allocate(heap, 5 * MIB + PAGE)?;
        for (what, page) in [
            ("first page", range.page(0)),
            ("second page", range.page(1)),
            ("a page in the middle", range.page(range.size / PAGE / 2)),
            ("last page", range.last_page()),
        ] {
            expect_killed(page, what)?;
        }
        let neighbour = region::free_neighbour(heap, range)?;
        match memory::read(neighbour)? {
            Outcome::Read { .. } => {}
            other => anyhow::bail!("a free page beside it: {other:?}"),
        }
        drop(buffer);
        expect_zero(range, "after release")?;
    }
    Ok(())
}

fn neighbours_are_left_alone() -> anyhow::Result<()> {
    let (low, low_range) = region::allocate(VIDEO, 3 * PAGE)?;
    let (middle, range) = region::allocate(VIDEO, 3 * PAGE)?;
    let (high, high_range) = region::allocate(VIDEO, 3 * PAGE)?;
    drop(middle);
    expect_zero(range, "released between two others")?;
    for (what, page) in [
        ("first buffer", low_range.page(0)),
        ("its last page", low_range.last_page()),
        ("third buffer", high_range.page(0)),
        ("its last page", high_range.last_page()),
    ] {
        expect_killed(page, what)?;
    }
    drop((low, high));
    expect_zero(low_range, "the first buffer")?;
    expect_zero(high_range, "the third buffer")
}

fn cpu_access_is_refused() -> anyhow::Result<()> {
    for heap in [VIDEO, UI] {
        let (buffer, _) = region::allocate(heap, PAGE)?;
        for flags in [
            dma_buf::SYNC_READ,
            dma_buf::SYNC_WRITE,
            dma_buf::SYNC_READ | dma_buf::SYNC_WRITE,
        ] {
            expect_errno(dma_buf::sync(&buffer, flags), Errno::ACCESS, "SYNC")?;
        }
        let fd = buffer.as_fd();
        let mut bytes = [0; 16];
        expect_errno(rustix::io::read(fd, &mut bytes), Errno::INVAL, "read")?;
        expect_errno(rustix::io::write(fd, &bytes), Errno::INVAL, "write")?;
    }
    Ok(())
}

fn old_content_is_gone() -> anyhow::Result<()> {
    const SIZE: u64 = 4 * MIB + 3 * PAGE;
    // Whatever the heap will hand out is full of something else now.
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    drop(buffer);
    match memory::fill(range)? {
        Outcome::Read { nonzero } => anyhow::ensure!(nonzero == SIZE, "not filled: {nonzero}"),
        other => anyhow::bail!("a free range can't be filled: {other:?}"),
    }
    let (buffer, again) = region::allocate(VIDEO, SIZE)?;
    anyhow::ensure!(again == range, "{again:x?}, but {range:x?} was filled");
    let handle = handle(&buffer)?;
    expect_zeros(&mut Ta::open()?, handle, SIZE)?;
    drop(buffer);
    expect_zero(range, "after release")
}

fn decrypted_content_is_gone() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, range) = region::allocate(VIDEO, fixture.ciphertext.len() as u64)?;
    fixture.decrypt(&mut Ta::open()?, handle(&buffer)?)?;
    expect_killed(range.page(0), "the content's first page")?;
    drop(buffer);
    expect_zero(range, "after release")
}

fn the_whole_region() -> anyhow::Result<()> {
    for heap in [VIDEO, UI] {
        let region = region::of(heap)?;
        let (buffer, range) = region::allocate(heap, region.size)?;
        anyhow::ensure!(range == region, "{range:x?} is not {region:x?}");
        expect_killed(range.page(0), "first page of the region")?;
        expect_killed(range.last_page(), "last page of the region")?;
        drop(buffer);
        expect_zero(region, "the region after release")?;
    }
    // Protection reaches no further than the region: the next one is free, and
    // its first page can be touched.
    let (video, ui) = (region::of(VIDEO)?, region::of(UI)?);
    anyhow::ensure!(ui.start == video.end(), "the regions are not neighbours");
    let (buffer, _) = region::allocate(VIDEO, video.size)?;
    let seen = memory::read(ui.page(0))?;
    drop(buffer);
    anyhow::ensure!(matches!(seen, Outcome::Read { .. }), "{ui:x?}: {seen:?}");
    Ok(())
}

fn many_small_buffers() -> anyhow::Result<()> {
    const COUNT: usize = 200;
    let control = Control::open()?;
    let heap = allocation::open(VIDEO)?;
    let mut buffers = Vec::new();
    let mut handles = HashSet::new();
    for _ in 0..COUNT {
        let buffer = allocation::allocate_size(&heap, PAGE)?;
        handles.insert(control.buffer(&buffer)?.protected_handle()?);
        buffers.push(buffer);
    }
    anyhow::ensure!(handles.len() == COUNT, "only {} handles", handles.len());
    anyhow::ensure!(heap_info(VIDEO)?.protected_bytes == COUNT as u64 * PAGE);
    let ranges = debug::ranges(VIDEO)?;
    anyhow::ensure!(ranges.len() == COUNT, "{} ranges", ranges.len());
    for line in ranges.iter().step_by(COUNT / 4) {
        expect_killed(line.range, "one of many")?;
    }
    drop(buffers);
    expect_zero(ranges[0].range, "the first one")?;
    expect_zero(ranges[COUNT - 1].range, "the last one")
}

fn more_than_there_is_room_for() -> anyhow::Result<()> {
    let room = SecureSession::open()?.info()?.max_ranges;
    let _limit = open_files::Limit::set(u64::from(room) + 100)?;
    let heap = allocation::open(VIDEO)?;
    let mut buffers = Vec::new();
    for _ in 0..room {
        buffers.push(allocation::allocate_size(&heap, PAGE)?);
    }
    let full = heap_info(VIDEO)?;
    for size in [PAGE, 1 << 20] {
        let outcome = allocation::allocate_size(&heap, size);
        expect_errno(outcome, Errno::NOMEM, "one buffer too many")?;
        let after = heap_info(VIDEO)?;
        anyhow::ensure!(after == full, "{after:?}, not {full:?}");
    }
    buffers.pop();
    drop(allocation::allocate_size(&heap, PAGE)?);
    Ok(())
}

fn trusted_ui_takes_no_content() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(UI, MIB)?;
    let handle = handle(&buffer)?;
    let mut ta = Ta::open()?;
    ta.load_licence(&fixture.licence)
        .map_err(|code| anyhow::anyhow!("LOAD_LICENCE: {code:#010x}"))?;
    expect_code(
        ta.decrypt(handle, &fixture.request(0), &fixture.ciphertext[..4096]),
        result::ACCESS_DENIED,
        "video into a trusted-ui buffer",
    )?;
    expect_zeros(&mut ta, handle, MIB)
}

fn a_buffer_outlives_its_maker() -> anyhow::Result<()> {
    let before = heap_info(VIDEO)?;
    let maker = Holder::allocate(VIDEO, MIB)?;
    let line = debug::ranges(VIDEO)?.pop().context("no range")?;
    anyhow::ensure!(line.pid == maker.pid, "allocated by {line:?}");
    let buffer = maker.buffer()?;
    maker.end()?;
    let info = Control::open()?.buffer(&buffer)?;
    anyhow::ensure!(info.size == MIB && info.protected, "{info:?}");
    expect_killed(line.range.page(0), "after its maker has ended")?;
    drop(buffer);
    let after = heap_info(VIDEO)?;
    anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    expect_zero(line.range, "after release")
}

fn a_killed_process() -> anyhow::Result<()> {
    let before = heap_info(VIDEO)?;
    let maker = Holder::allocate(VIDEO, 8 * MIB)?;
    let range = debug::ranges(VIDEO)?.pop().context("no range")?.range;
    expect_killed(range.page(7), "while its maker lives")?;
    maker.kill()?;
    // The parent may hear of the death before the last file is closed.
    deadline::until(Duration::from_secs(60), "release", || {
        Ok((heap_info(VIDEO)? == before).then_some(()))
    })?;
    expect_zero(range, "after its maker was killed")
}

fn handles_are_not_shown() -> anyhow::Result<()> {
    let (buffer, _) = region::allocate(VIDEO, PAGE)?;
    for line in debug::ranges(VIDEO)? {
        anyhow::ensure!(line.handle == "-", "debugfs shows {line:?}");
    }
    // A holder of the fd sees the same handle each time.
    let control = Control::open()?;
    let copy = Buffer::from(buffer.as_fd().try_clone_to_owned()?);
    let (first, second) = (control.buffer(&buffer)?, control.buffer(&copy)?);
    anyhow::ensure!(first == second && first.handle.is_some());
    Ok(())
}

/// The number that names a buffer to the secure world.
pub fn handle(buffer: &Buffer) -> anyhow::Result<u64> {
    Ok(Control::open()?.buffer(buffer)?.protected_handle()?.raw())
}
