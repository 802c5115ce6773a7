// SPDX-License-Identifier: MIT OR Apache-2.0

//! A region that is fenced as a whole: buffers that cost no secure call, parts
//! that are named when somebody asks, and an end that opens all of it, zeroed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use ringfence::proto::command::{self, result};
use ringfence::proto::firewall::fail_point;
use ringfence::proto::message::DigestRequest;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::memory::{self, expect_killed, expect_zero, Outcome};
use ringfence_tests::guest::module::{self, CARVEOUT};
use ringfence_tests::guest::ta::{self, derail, expect_code, expect_done, Ta, Way};
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info};
use rustix::io::Errno;

use super::fixture::{expect_zeros, Fixture};
use super::modules::{all_online, unload_carveout};
use super::protect::handle;
use super::region::{self, RECORD, UI, VIDEO, WHOLE};
use super::{workers_at_rest, Test};

pub const TESTS: &[Test] = &[
    (
        "the_first_buffer_fences_all_of_the_region",
        first_buffer_fences_all,
    ),
    (
        "the_region_opens_by_itself_after_the_last_release",
        opens_by_itself,
    ),
    ("a_buffer_costs_no_secure_call", no_secure_call),
    ("parts_are_named_when_asked_for_and_kept_apart", parts),
    (
        "a_named_buffer_is_zeroed_before_somebody_else_gets_it",
        named_is_zeroed,
    ),
    (
        "a_buffer_without_a_name_is_zeroed_by_the_secure_world",
        unnamed_is_zeroed,
    ),
    (
        "a_request_has_dirty_memory_zeroed_when_it_needs_it",
        dirty_memory_on_request,
    ),
    ("all_of_the_region_can_be_one_buffer", one_buffer),
    ("a_part_that_is_mapped_keeps_the_region", mapped_part),
    ("buffers_and_content_survive_a_panic", survives_a_panic),
    ("a_panic_at_any_command_loses_nothing", panics),
    ("a_fence_that_fails_is_taken_back", failed_fence),
    (
        "a_region_that_does_not_open_is_quarantined_until_asked_for",
        failed_open,
    ),
    (
        "a_part_that_is_not_zeroed_is_quarantined_until_asked_for",
        failed_forget,
    ),
    ("a_lost_answer_is_made_up_for", lost_answers),
    ("video_is_not_for_a_recording_region", other_use_case),
    ("few_windows_are_told_as_enospc", few_windows),
    ("a_region_that_was_left_behind_is_opened", left_behind),
];

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// How long a region stays fenced without a buffer: `region_idle`, unless set.
const IDLE: Duration = Duration::from_millis(500);

/// How long a region may take to open by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has an idle region opened at once, and waits until it is.
fn open_now() -> anyhow::Result<()> {
    debug::retry(RECORD)?;
    deadline::until(PATIENCE, "the region opens", || {
        Ok((heap_info(RECORD)?.protected_bytes == 0).then_some(()))
    })?;
    let info = heap_info(RECORD)?;
    anyhow::ensure!(info.free == WHOLE.size, "{info:?}");
    anyhow::ensure!(ranges()? == (0, 0), "{:?} in the ledger", ranges()?);
    Ok(())
}

/// The secure world's figures: fenced ranges with named parts, and how many of
/// them are quarantined.
fn ranges() -> anyhow::Result<(u32, u32)> {
    let info = SecureSession::open()?.info()?;
    Ok((info.ranges, info.quarantined))
}

fn expect_fenced(info: &HeapInfo) -> anyhow::Result<()> {
    anyhow::ensure!(info.protected_bytes == WHOLE.size, "{info:?}");
    Ok(())
}

fn first_buffer_fences_all() -> anyhow::Result<()> {
    let whole = region::of(RECORD)?;
    expect_zero(whole.page(0), "before the first buffer")?;
    let (buffer, range) = region::allocate(RECORD, MIB)?;
    expect_fenced(&heap_info(RECORD)?)?;
    anyhow::ensure!(ranges()? == (1, 0), "{:?} in the ledger", ranges()?);
    for (what, page) in [
        ("the buffer", range.page(3)),
        ("the region's first page", whole.page(0)),
        ("a free page", range.page(range.size / PAGE)),
        ("the region's last page", whole.last_page()),
    ] {
        expect_killed(page, what)?;
    }
    // No further than the region.
    let beside = region::of(UI)?.last_page();
    match memory::read(beside)? {
        Outcome::Read { .. } => {}
        other => anyhow::bail!("another region's page: {other:?}"),
    }
    // Still fenced: the next buffer may be on its way.
    let released = Instant::now();
    drop(buffer);
    let outcome = expect_killed(range.page(0), "right after the release");
    if released.elapsed() < IDLE {
        outcome?;
    }
    open_now()?;
    expect_zero(whole, "after the region was opened")
}

fn opens_by_itself() -> anyhow::Result<()> {
    let (buffer, _) = region::allocate(RECORD, PAGE)?;
    let (other, _) = region::allocate(RECORD, PAGE)?;
    drop(buffer);
    std::thread::sleep(Duration::from_millis(700));
    expect_fenced(&heap_info(RECORD)?)?;
    drop(other);
    deadline::until(PATIENCE, "the region opens by itself", || {
        Ok((heap_info(RECORD)?.protected_bytes == 0).then_some(()))
    })?;
    expect_zero(region::of(RECORD)?, "after the region has opened")
}

fn no_secure_call() -> anyhow::Result<()> {
    let (kept, _) = region::allocate(RECORD, PAGE)?;
    let device = allocation::open(RECORD)?;
    // The next command of any kind would fail.
    let armed = debug::arm("tee", 1)?;
    let mut buffers = Vec::new();
    for pages in 1..50 {
        buffers.push(allocation::allocate_size(&device, pages * PAGE)?);
    }
    let left = debug::armed()?;
    anyhow::ensure!(
        left.contains(&("tee".to_owned(), 1)),
        "a command was sent: {left:?}"
    );
    drop(armed);
    let info = heap_info(RECORD)?;
    anyhow::ensure!(info.buffers == 50, "{info:?}");
    drop((kept, buffers));
    open_now()
}

fn digest(ta: &mut Ta, raw: u64, length: u64) -> anyhow::Result<[u8; 32]> {
    let request = DigestRequest {
        key: [7; 32],
        offset: 0,
        length,
    };
    expect_done(ta.digest(raw, &request), "DIGEST")
}

fn parts() -> anyhow::Result<()> {
    let mut ta = Ta::open()?;
    let mut buffers = Vec::new();
    for _ in 0..20 {
        buffers.push(region::allocate(RECORD, 3 * PAGE)?);
    }
    anyhow::ensure!(ranges()? == (1, 0), "named unasked: {:?}", ranges()?);
    let mut handles = HashSet::new();
    for (buffer, _) in &buffers {
        let raw = handle(buffer)?;
        anyhow::ensure!(handle(buffer)? == raw, "another handle the second time");
        handles.insert(raw);
    }
    anyhow::ensure!(handles.len() == buffers.len(), "{handles:x?}");
    anyhow::ensure!(ranges()? == (21, 0), "{:?} in the ledger", ranges()?);
    // What is written to one shows in no other.
    let first = handle(&buffers[5].0)?;
    expect_done(ta.fill(first, 0xa5), "FILL")?;
    for (index, (buffer, _)) in buffers.iter().enumerate() {
        if index != 5 {
            expect_zeros(&mut ta, handle(buffer)?, 3 * PAGE)?;
        }
    }
    for (offset, length) in [(3 * PAGE, 1), (3 * PAGE - 1, 2), (u64::MAX, 1), (0, 0)] {
        let what = format!("{length} bytes at {offset:#x} of a part");
        expect_code(
            ta.hold(first, offset, length),
            result::BAD_PARAMETERS,
            &what,
        )?;
    }
    drop(buffers);
    anyhow::ensure!(ranges()? == (1, 0), "names are left: {:?}", ranges()?);
    open_now()
}

fn named_is_zeroed() -> anyhow::Result<()> {
    const SIZE: u64 = 3 * MIB + PAGE;
    let (kept, _) = region::allocate(RECORD, PAGE)?;
    let mut ta = Ta::open()?;
    let (buffer, range) = region::allocate(RECORD, SIZE)?;
    let closed = handle(&buffer)?;
    expect_done(ta.fill(closed, 0xff), "FILL")?;
    drop(buffer);
    for raw in [closed] {
        expect_code(ta.fill(raw, 1), result::ITEM_NOT_FOUND, "a closed handle")?;
    }
    let (next, again) = region::allocate(RECORD, SIZE)?;
    anyhow::ensure!(again == range, "{again:x?}, not {range:x?}");
    let raw = handle(&next)?;
    anyhow::ensure!(raw != closed, "the handle was used again");
    expect_zeros(&mut ta, raw, SIZE)?;
    drop((next, kept));
    open_now()
}

/// Bytes that have to be zeroed before somebody gets them.
fn dirty() -> anyhow::Result<u64> {
    debug::figure(RECORD, "dirty")
}

fn unnamed_is_zeroed() -> anyhow::Result<()> {
    let (kept, _) = region::allocate(RECORD, PAGE)?;
    let mut ta = Ta::open()?;
    let mut buffers = Vec::new();
    for _ in 0..64 {
        buffers.push(region::allocate(RECORD, PAGE)?.0);
    }
    expect_done(ta.meter(), "METER")?;
    drop(buffers);
    deadline::until(PATIENCE, "no memory is dirty", || {
        Ok((dirty()? == 0).then_some(()))
    })?;
    let costs = expect_done(ta.meter(), "METER")?;
    anyhow::ensure!(costs.scrubs > 0, "nothing was zeroed: {costs:?}");
    anyhow::ensure!(
        costs.firmware_calls == 0,
        "the fence was touched: {costs:?}"
    );
    // Neighbours are zeroed together.
    anyhow::ensure!(costs.scrubs <= 32, "{costs:?}");
    drop(kept);
    open_now()
}

fn dirty_memory_on_request() -> anyhow::Result<()> {
    let (kept, _) = region::allocate(RECORD, PAGE)?;
    let (buffer, range) = region::allocate(RECORD, 8 * MIB)?;
    workers_at_rest()?;
    // The worker fails, and comes back a second later.
    let armed = debug::arm("background", 1)?;
    drop(buffer);
    deadline::until(PATIENCE, "the worker has failed", || {
        Ok(debug::armed()?
            .contains(&("background".to_owned(), 0))
            .then_some(()))
    })?;
    anyhow::ensure!(dirty()? == 8 * MIB, "{} bytes are dirty", dirty()?);
    let mut ta = Ta::open()?;
    expect_done(ta.meter(), "METER")?;
    // Only with the dirty memory does it fit.
    let (large, taken) = region::allocate(RECORD, WHOLE.size - PAGE)?;
    anyhow::ensure!(taken.start <= range.start, "{taken:x?}, {range:x?}");
    let costs = expect_done(ta.meter(), "METER")?;
    anyhow::ensure!((4..=5).contains(&costs.scrubs), "{costs:?}");
    drop(armed);
    expect_zeros(&mut ta, handle(&large)?, WHOLE.size - PAGE)?;
    drop((large, kept));
    open_now()
}

fn one_buffer() -> anyhow::Result<()> {
    let whole = region::of(RECORD)?;
    let mut ta = Ta::open()?;
    for _ in 0..2 {
        let (buffer, range) = region::allocate(RECORD, whole.size)?;
        anyhow::ensure!(range == whole, "{range:x?} is not {whole:x?}");
        let device = allocation::open(RECORD)?;
        let outcome = allocation::allocate_size(&device, PAGE);
        expect_errno(outcome, Errno::NOMEM, "a page more")?;
        let raw = handle(&buffer)?;
        expect_zeros(&mut ta, raw, whole.size)?;
        expect_done(ta.fill(raw, 0x77), "FILL")?;
        drop(buffer);
    }
    open_now()?;
    expect_zero(whole, "after the region was opened")
}

fn mapped_part() -> anyhow::Result<()> {
    let mut ta = Ta::open()?;
    let (buffer, range) = region::allocate(RECORD, MIB)?;
    expect_done(ta.hold(handle(&buffer)?, PAGE, 1), "HOLD")?;
    drop(buffer);
    let info = heap_info(RECORD)?;
    anyhow::ensure!(info.quarantined == MIB && info.buffers == 0, "{info:?}");
    debug::retry(RECORD)?;
    expect_fenced(&heap_info(RECORD)?)?;
    expect_killed(range.page(1), "released while mapped")?;
    let (other, elsewhere) = region::allocate(RECORD, MIB)?;
    anyhow::ensure!(elsewhere.start != range.start, "handed out while mapped");
    drop(other);
    expect_done(ta.let_go(), "LET_GO")?;
    deadline::until(PATIENCE, "the part comes back", || {
        Ok((heap_info(RECORD)?.quarantined == 0).then_some(()))
    })?;
    open_now()
}

fn panic() -> anyhow::Result<()> {
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")
}

fn survives_a_panic() -> anyhow::Result<()> {
    let (named, range) = region::allocate(RECORD, MIB)?;
    let (unnamed, _) = region::allocate(RECORD, MIB)?;
    let old = handle(&named)?;
    let mut before = Ta::open()?;
    expect_done(before.fill(old, 0x3c), "FILL")?;
    let content = digest(&mut before, old, MIB)?;

    panic()?;
    expect_killed(range.page(0), "right after the panic")?;
    // Linux does not even notice: no call is needed.
    let (third, _) = region::allocate(RECORD, MIB)?;
    let new = handle(&named)?;
    anyhow::ensure!(new != old, "the handle was not renewed");
    let mut ta = Ta::open()?;
    anyhow::ensure!(
        digest(&mut ta, new, MIB)? == content,
        "the content is not what it was"
    );
    expect_code(ta.fill(old, 1), result::ITEM_NOT_FOUND, "the old handle")?;
    expect_zeros(&mut ta, handle(&unnamed)?, MIB)?;
    panic()?;
    drop(named);
    panic()?;
    drop((unnamed, third));
    open_now()?;
    expect_zero(region::of(RECORD)?, "after the region was opened")
}

fn panics() -> anyhow::Result<()> {
    use command::{LIST, NAME, PROTECT, SCRUB, UNPROTECT};
    for way in [Way::PanicBefore, Way::PanicAfter] {
        for command in [PROTECT, NAME, SCRUB, UNPROTECT, LIST] {
            let what = format!("command {command:#x}, {way:?}");
            let armed = derail(command, way)?;
            let round = || -> anyhow::Result<()> {
                let device = allocation::open(RECORD)?;
                // Whatever fails may fail, but nothing may be lost.
                let Ok(buffer) = allocation::allocate_size(&device, MIB) else {
                    return Ok(());
                };
                let _second = allocation::allocate_size(&device, MIB);
                let _handle = Control::open()?.buffer(&buffer);
                Ok(())
            };
            round()?;
            drop(armed);
            open_now().context(what)?;
        }
    }
    expect_zero(region::of(RECORD)?, "after all of it")
}

fn failed_fence() -> anyhow::Result<()> {
    let device = allocation::open(RECORD)?;
    for (point, nth) in [
        (fail_point::FENCE, 1),
        (fail_point::FENCE, 9),
        (fail_point::SCRUB, 1),
        (fail_point::SCRUB, 16),
    ] {
        let armed = ta::arm(point, nth)?;
        let outcome = allocation::allocate_size(&device, PAGE);
        expect_errno(outcome, Errno::IO, &format!("point {point}, pass {nth}"))?;
        drop(armed);
        open_now()?;
    }
    drop(allocation::allocate_size(&device, PAGE)?);
    open_now()
}

fn failed_open() -> anyhow::Result<()> {
    let device = allocation::open(RECORD)?;
    for (point, nth) in [
        (fail_point::SCRUB, 3),
        (fail_point::OPEN, 1),
        (fail_point::OPEN, 7),
    ] {
        let what = format!("point {point}, pass {nth}");
        drop(allocation::allocate_size(&device, PAGE)?);
        let armed = ta::arm(point, nth)?;
        // Asks for it; what fails then is not tried again.
        debug::retry(RECORD)?;
        drop(armed);
        let info = heap_info(RECORD)?;
        if info.protected_bytes != 0 {
            anyhow::ensure!(info.quarantined == WHOLE.size, "{what}: {info:?}");
            anyhow::ensure!(info.free == 0 && info.largest_free == 0, "{what}: {info:?}");
            expect_killed(region::of(RECORD)?.last_page(), &what)?;
            let outcome = allocation::allocate_size(&device, PAGE);
            expect_errno(outcome, Errno::IO, &what)?;
        }
        open_now().with_context(|| what.clone())?;
        expect_zero(region::of(RECORD)?.last_page(), &what)?;
    }
    Ok(())
}

fn failed_forget() -> anyhow::Result<()> {
    let (kept, _) = region::allocate(RECORD, PAGE)?;
    let mut ta = Ta::open()?;
    let (buffer, range) = region::allocate(RECORD, 4 * MIB)?;
    expect_done(ta.fill(handle(&buffer)?, 0x99), "FILL")?;
    let armed = ta::arm(fail_point::SCRUB, 2)?;
    drop(buffer);
    drop(armed);
    let info = heap_info(RECORD)?;
    anyhow::ensure!(info.quarantined == 4 * MIB, "{info:?}");
    anyhow::ensure!(ranges()? == (2, 1), "{:?} in the ledger", ranges()?);
    // Others are served, elsewhere.
    let (other, elsewhere) = region::allocate(RECORD, 4 * MIB)?;
    anyhow::ensure!(elsewhere.start >= range.end(), "handed out unzeroed");
    drop((other, kept));
    debug::retry(RECORD)?;
    deadline::until(PATIENCE, "the part comes back", || {
        Ok((heap_info(RECORD)?.quarantined == 0).then_some(()))
    })?;
    open_now()?;
    expect_zero(range, "after the region was opened")
}

fn lost_answers() -> anyhow::Result<()> {
    let device = allocation::open(RECORD)?;
    // To PROTECT: fenced, without a buffer.
    let armed = debug::arm("answer", 1)?;
    let outcome = allocation::allocate_size(&device, PAGE);
    expect_errno(outcome, Errno::IO, "the answer to PROTECT is lost")?;
    drop(armed);
    open_now()?;
    // To NAME: the list tells the handle, and the content is left alone.
    let (buffer, _) = region::allocate(RECORD, MIB)?;
    let armed = debug::arm("answer", 1)?;
    let raw = handle(&buffer)?;
    drop(armed);
    expect_zeros(&mut Ta::open()?, raw, MIB)?;
    // To the release of a named part.
    let armed = debug::arm("answer", 1)?;
    drop(buffer);
    drop(armed);
    open_now()
}

fn other_use_case() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(RECORD, MIB)?;
    let mut ta = Ta::open()?;
    expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    expect_code(
        ta.decrypt(
            handle(&buffer)?,
            &fixture.request(0),
            &fixture.ciphertext[..4096],
        ),
        result::ACCESS_DENIED,
        "video into a recording",
    )?;
    drop(buffer);
    open_now()
}

/// The test firewall pretends to have few windows.
fn few_windows() -> anyhow::Result<()> {
    let armed = ta::arm(fail_point::WINDOWS, 2)?;
    let heap = allocation::open(VIDEO)?;
    let (first, _) = region::allocate(VIDEO, 2 * PAGE)?;
    let (between, _) = region::allocate(VIDEO, 2 * PAGE)?;
    let (last, last_range) = region::allocate(VIDEO, 2 * PAGE)?;
    // All of them touch: one window. A region of its own is the second.
    let (recording, _) = region::allocate(RECORD, PAGE)?;
    let full = heap_info(UI)?;
    let outcome = allocation::allocate_size(&allocation::open(UI)?, PAGE);
    expect_errno(outcome, Errno::NOSPC, "a third stretch")?;
    anyhow::ensure!(heap_info(UI)? == full, "{:?}", heap_info(UI)?);
    drop(allocation::allocate_size(&heap, PAGE)?);

    // The middle can't be opened: it would take a window more.
    drop(between);
    let info = heap_info(VIDEO)?;
    anyhow::ensure!(info.quarantined == 2 * PAGE, "{info:?}");
    drop(first);
    deadline::until(PATIENCE, "the middle opens", || {
        Ok((heap_info(VIDEO)?.quarantined == 0).then_some(()))
    })?;
    expect_killed(last_range.page(0), "the last of them")?;
    drop((last, recording));
    drop(armed);
    open_now()
}

fn left_behind() -> anyhow::Result<()> {
    let whole = region::of(RECORD)?;
    let (buffer, range) = region::allocate(RECORD, MIB)?;
    expect_done(Ta::open()?.fill(handle(&buffer)?, 0x42), "FILL")?;
    // Neither the part is forgotten nor the region opened, and the module goes.
    let armed = derail(command::UNPROTECT, Way::Refused(result::GENERIC))?;
    drop(buffer);
    drop(armed);
    let info = heap_info(RECORD)?;
    anyhow::ensure!(info.quarantined == MIB, "{info:?}");
    unload_carveout()?;
    expect_killed(range.page(0), "left behind")?;
    expect_killed(whole.last_page(), "left behind, beside the part")?;
    anyhow::ensure!(ranges()? == (2, 0), "{:?} in the ledger", ranges()?);
    module::load(CARVEOUT)?;
    all_online()?;
    open_now()?;
    expect_zero(whole, "after the module came back")?;

    // An idle region is opened before the module goes.
    drop(region::allocate(RECORD, MIB)?);
    unload_carveout()?;
    anyhow::ensure!(ranges()? == (0, 0), "{:?} in the ledger", ranges()?);
    expect_zero(whole.page(0), "after the module has gone")?;
    module::load(CARVEOUT)?;
    all_online()
}
