// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures injected at every step: the errno is right, no byte is lost, and
//! nothing is left open that should be fenced, or fenced that nobody has.

use std::time::Duration;

use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use ringfence::proto::command::result;
use ringfence::proto::firewall::fail_point;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{self, expect_done, Ta};
use ringfence_tests::guest::video::Capture;
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info};
use rustix::io::Errno;

use super::fixture::Fixture;
use super::protect::handle;
use super::region::{self, CAMERA, RECORD, UI, VIDEO};
use super::{settled, Test};

pub const TESTS: &[Test] = &[
    ("a_failed_allocation_leaves_no_trace", failed_allocations),
    ("an_answer_that_gets_lost_is_made_up_for", lost_answer),
    ("a_release_that_fails_is_made_up_for", failed_release),
    ("a_map_that_fails_leaves_the_buffer_whole", failed_map),
    ("a_fence_that_fails_is_taken_back", failed_fence),
    (
        "a_scrub_that_fails_keeps_the_range_fenced",
        failed_scrub_at_release,
    ),
    (
        "a_range_that_does_not_open_is_kept_until_asked_for",
        failed_open,
    ),
    (
        "a_window_that_fails_leaves_the_buffer_usable",
        failed_window,
    ),
    ("what_is_armed_is_shown_and_can_be_disarmed", armed_is_shown),
];

const PAGE: u64 = 4096;
const SIZE: u64 = 5 << 20;

/// The figures of the secure world: ranges and quarantined ranges.
fn ranges() -> anyhow::Result<(u32, u32)> {
    let info = SecureSession::open()?.info()?;
    Ok((info.ranges, info.quarantined))
}

fn nothing_armed() -> anyhow::Result<()> {
    let armed = debug::armed()?;
    anyhow::ensure!(armed.iter().all(|(_, left)| *left == 0), "{armed:?}");
    Ok(())
}

fn failed_allocations() -> anyhow::Result<()> {
    let protected = [
        ("range", Errno::NOMEM),
        ("record", Errno::NOMEM),
        ("tee", Errno::IO),
        ("export", Errno::NOMEM),
    ];
    let open = [
        ("range", Errno::NOMEM),
        ("record", Errno::NOMEM),
        ("export", Errno::NOMEM),
    ];
    for (heap, points) in [
        (VIDEO, &protected[..]),
        (UI, &protected[..]),
        (CAMERA, &open[..]),
    ] {
        let device = allocation::open(heap)?;
        let before = heap_info(heap)?;
        for &(point, errno) in points {
            let _armed = debug::arm(point, 1)?;
            let what = format!("{heap}: {point} fails");
            expect_errno(allocation::allocate_size(&device, SIZE), errno, &what)?;
            nothing_armed()?;
            let after = heap_info(heap)?;
            anyhow::ensure!(after == before, "{what}: {after:?}, not {before:?}");
            anyhow::ensure!(ranges()? == (0, 0), "{what}: {:?} in the ledger", ranges()?);
            anyhow::ensure!(debug::ranges(heap)?.is_empty(), "{what}: a range is left");
            // And nothing is in the way of the next one.
            drop(allocation::allocate_size(&device, before.size)?);
        }
    }
    Ok(())
}

fn lost_answer() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let device = allocation::open(VIDEO)?;
    let _armed = debug::arm("answer", 1)?;
    let outcome = allocation::allocate_size(&device, SIZE);
    expect_errno(outcome, Errno::IO, "the answer to PROTECT is lost")?;
    settled(&before)?;
    anyhow::ensure!(ranges()? == (0, 0), "{:?} in the ledger", ranges()?);

    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let _armed = debug::arm("answer", 1)?;
    drop(buffer);
    settled(&before)?;
    nothing_armed()?;
    expect_zero(range, "the answer to UNPROTECT is lost")
}

fn failed_release() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    // UNPROTECT is not sent; the driver asks for the list and tries once more.
    let _armed = debug::arm("tee", 1)?;
    drop(buffer);
    settled(&before)?;
    nothing_armed()?;
    expect_zero(range, "UNPROTECT was not sent the first time")?;
    drop(region::allocate(VIDEO, before_of(&before, VIDEO)?.size)?);
    Ok(())
}

fn before_of<'a>(heaps: &'a [HeapInfo], name: &str) -> anyhow::Result<&'a HeapInfo> {
    heaps
        .iter()
        .find(|heap| heap.name == name)
        .ok_or_else(|| anyhow::anyhow!("no heap {name}"))
}

fn failed_map() -> anyhow::Result<()> {
    // Of the protected heaps the one that any device may have.
    for heap in [CAMERA, RECORD] {
        let device = Capture::open()?;
        let (buffer, _) = region::allocate(heap, SIZE)?;
        let _armed = debug::arm("map", 1)?;
        // V4L2 makes EINVAL of whatever errno a mapping fails with.
        let what = format!("a buffer of {heap} for a device");
        expect_errno(device.queue(&buffer), Errno::INVAL, &what)?;
        nothing_armed()?;
        device.queue(&buffer)?;
    }
    // That heap's region is fenced for a while after its last buffer.
    deadline::until(Duration::from_secs(20), "the region opens", || {
        Ok((ranges()? == (0, 0)).then_some(()))
    })
}

/// Makes the firewall fail, then allocates: the failure must show as EIO, and
/// nothing else.
fn fenced_in_vain(point: u32, nth: u32) -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let device = allocation::open(VIDEO)?;
    let _armed = ta::arm(point, nth)?;
    let what = format!("fail point {point}, pass {nth}");
    expect_errno(allocation::allocate_size(&device, SIZE), Errno::IO, &what)?;
    let after = Control::open()?.heaps()?;
    anyhow::ensure!(after == before, "{what}: {after:#?}");
    anyhow::ensure!(ranges()? == (0, 0), "{what}: {:?} in the ledger", ranges()?);
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    expect_killed(range.page(0), "the next buffer")?;
    expect_killed(range.last_page(), "the next buffer's last page")?;
    drop(buffer);
    expect_zero(range, "the next buffer after release")
}

fn failed_fence() -> anyhow::Result<()> {
    // 5 MiB are three blocks of 2 MiB, the last one in part; after that comes
    // the scrub.
    for nth in 1..=3 {
        fenced_in_vain(fail_point::FENCE, nth)?;
    }
    fenced_in_vain(fail_point::SCRUB, 1)?;
    fenced_in_vain(fail_point::SCRUB, 2)
}

/// Releases a buffer with a failure on the way, and has it retried.
fn kept_until_asked_for(point: u32, nth: u32) -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let _armed = ta::arm(point, nth)?;
    drop(buffer);

    let what = format!("fail point {point}, pass {nth}");
    let info = heap_info(VIDEO)?;
    anyhow::ensure!(info.quarantined == SIZE, "{what}: {info:?}");
    anyhow::ensure!(info.buffers == 0, "{what}: {info:?}");
    anyhow::ensure!(info.free == info.size - SIZE, "{what}: {info:?}");
    anyhow::ensure!(ranges()? == (1, 1), "{what}: {:?} in the ledger", ranges()?);
    expect_killed(range.last_page(), &what)?;

    // It is never handed out meanwhile.
    let device = allocation::open(VIDEO)?;
    let mut others = Vec::new();
    while let Ok(other) = allocation::allocate_size(&device, 1 << 20) {
        others.push(other);
    }
    let full = heap_info(VIDEO)?;
    anyhow::ensure!(full.free < 1 << 20, "{what}: {full:?}");
    let taken = debug::ranges(VIDEO)?;
    let shared = taken
        .iter()
        .filter(|line| line.range.start < range.end() && range.start < line.range.end())
        .count();
    anyhow::ensure!(
        shared == 1,
        "{what}: the range is {shared} times in the list"
    );
    drop(others);
    anyhow::ensure!(
        heap_info(VIDEO)?.quarantined == SIZE,
        "{what}: retried unasked"
    );

    debug::retry(VIDEO)?;
    settled(&before)?;
    anyhow::ensure!(ranges()? == (0, 0), "{what}: {:?} in the ledger", ranges()?);
    expect_zero(range, &what)
}

fn failed_scrub_at_release() -> anyhow::Result<()> {
    kept_until_asked_for(fail_point::SCRUB, 1)?;
    kept_until_asked_for(fail_point::SCRUB, 2)
}

fn failed_open() -> anyhow::Result<()> {
    for nth in 1..=3 {
        kept_until_asked_for(fail_point::OPEN, nth)?;
    }
    Ok(())
}

fn failed_window() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, range) = region::allocate(VIDEO, fixture.ciphertext.len() as u64)?;
    let handle = handle(&buffer)?;
    let mut ta = Ta::open()?;
    expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    let armed = ta::arm(fail_point::MAP, 1)?;
    match ta.decrypt(handle, &fixture.request(0), &fixture.ciphertext) {
        Err(code) => anyhow::ensure!(code != result::TARGET_DEAD, "the application has died"),
        Ok(_) => anyhow::bail!("DECRYPT worked without its window"),
    }
    drop(armed);
    expect_killed(range.page(0), "after the failure")?;
    fixture.decrypt(&mut ta, handle)?;
    drop(buffer);
    expect_zero(range, "after release")
}

fn armed_is_shown() -> anyhow::Result<()> {
    let armed = debug::arm("record", 7)?;
    let shown = debug::armed()?;
    anyhow::ensure!(shown.contains(&("record".to_owned(), 7)), "{shown:?}");
    drop(region::allocate(CAMERA, PAGE)?);
    let shown = debug::armed()?;
    anyhow::ensure!(shown.contains(&("record".to_owned(), 6)), "{shown:?}");
    drop(armed);
    nothing_armed()?;
    for wrong in [
        "nonsense 1",
        "",
        "record",
        "record x",
        "record -1",
        "record 1 1",
    ] {
        let outcome = debug::write_inject(wrong);
        anyhow::ensure!(outcome.is_err(), "{wrong:?} was taken");
    }
    nothing_armed()
}
