// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a content command has mapped can't be released under it, what is
//! protected is no input, and no command that goes wrong in the trusted
//! application leaves anything half done.

use std::fs::OpenOptions;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use ringfence::proto::command::{self, result};
use ringfence::secure::SecureSession;
use ringfence_tests::guest::memory::{expect_killed, expect_zero, PhysicalRange};
use ringfence_tests::guest::ta::{derail, expect_code, expect_done, Ta, Way};
use ringfence_tests::guest::{allocation, debug, expect_errno, heap_info, tee_ioctl};
use rustix::io::Errno;

use super::fixture::expect_zeros;
use super::protect::handle;
use super::region::{self, CAMERA, UI, VIDEO};
use super::{settled, Test};

pub const TESTS: &[Test] = &[
    (
        "a_range_that_is_mapped_is_kept_and_released_later",
        mapped_is_kept,
    ),
    (
        "a_session_that_ends_lets_go_of_what_it_has_mapped",
        ended_session_lets_go,
    ),
    (
        "an_application_that_dies_lets_go_of_what_it_has_mapped",
        dead_application_lets_go,
    ),
    ("a_session_maps_no_byte_outside", holds_inside_only),
    ("protected_memory_is_no_input", protected_memory_is_no_input),
    (
        "a_refused_command_of_the_kernel_changes_nothing",
        refused_commands,
    ),
    (
        "a_command_that_is_denied_though_done_is_made_up_for",
        denied_commands,
    ),
    (
        "a_panic_at_any_command_of_the_kernel_loses_nothing",
        panics_at_commands,
    ),
    ("a_secure_world_without_memory_says_so", out_of_memory),
];

const PAGE: u64 = 4096;
const SIZE: u64 = 3 << 20;

/// A buffer whose fd is closed while the trusted application has it mapped.
fn closed_while_mapped(ta: &mut Ta, offset: u64) -> anyhow::Result<PhysicalRange> {
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let raw = handle(&buffer)?;
    expect_done(ta.hold(raw, offset, 1), "HOLD")?;
    drop(buffer);
    region::expect_waiting(VIDEO, range)?;
    let info = heap_info(VIDEO)?;
    anyhow::ensure!(
        info.buffers == 0 && info.quarantined == SIZE && info.protected_bytes == SIZE,
        "{info:?}"
    );
    expect_killed(range.page(0), "kept, first page")?;
    expect_killed(range.last_page(), "kept, last page")?;
    // The handle has gone with the buffer.
    let mut other = Ta::open()?;
    expect_code(
        other.hold(raw, 0, 1),
        result::ITEM_NOT_FOUND,
        "the closed buffer's handle",
    )?;
    Ok(range)
}

fn mapped_is_kept() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let mut ta = Ta::open()?;
    for offset in [0, SIZE - 1] {
        let range = closed_while_mapped(&mut ta, offset)?;
        // Nobody gets it meanwhile.
        let (other, elsewhere) = region::allocate(VIDEO, SIZE)?;
        anyhow::ensure!(
            elsewhere.start >= range.end() || elsewhere.end() <= range.start,
            "{elsewhere:x?} was handed out, {range:x?} is kept"
        );
        drop(other);
        // Asking does not help as long as it is mapped.
        debug::retry(VIDEO)?;
        anyhow::ensure!(heap_info(VIDEO)?.quarantined == SIZE, "opened while mapped");
        expect_done(ta.let_go(), "LET_GO")?;
        settled(&before)?;
        expect_zero(range, "after release")?;
    }
    Ok(())
}

fn ended_session_lets_go() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let mut ta = Ta::open()?;
    let range = closed_while_mapped(&mut ta, PAGE)?;
    drop(ta);
    settled(&before)?;
    expect_zero(range, "after the session's end")
}

fn dead_application_lets_go() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let mut ta = Ta::open()?;
    let range = closed_while_mapped(&mut ta, 0)?;
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")?;
    expect_killed(range.page(0), "after the panic")?;
    debug::retry(VIDEO)?;
    settled(&before)?;
    expect_zero(range, "after the application's death")
}

fn holds_inside_only() -> anyhow::Result<()> {
    let (buffer, _) = region::allocate(VIDEO, SIZE)?;
    let (_beside, _) = region::allocate(VIDEO, SIZE)?;
    let raw = handle(&buffer)?;
    let mut ta = Ta::open()?;
    for (offset, length) in [
        (0, 0),
        (SIZE, 0),
        (SIZE, 1),
        (SIZE - 1, 2),
        (u64::MAX, 1),
        (u64::MAX, u64::MAX),
        (1, u64::MAX),
    ] {
        let what = format!("HOLD of {length:#x} bytes at {offset:#x}");
        expect_code(ta.hold(raw, offset, length), result::BAD_PARAMETERS, &what)?;
    }
    expect_done(ta.hold(raw, SIZE - 1, 1), "the last byte")?;
    expect_done(ta.let_go(), "LET_GO")
}

/// There is no way to name protected memory as a command's input: the TEE driver
/// takes no dma-buf of ours, and nobody can map one to register the mapping.
fn protected_memory_is_no_input() -> anyhow::Result<()> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tee0")
        .context("/dev/tee0")?;
    for heap in [VIDEO, UI, CAMERA] {
        let (buffer, _) = region::allocate(heap, SIZE)?;
        let outcome = tee_ioctl::register_dma_buf(&device, &buffer);
        match outcome {
            Err(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP) => {}
            other => anyhow::bail!("a buffer of {heap} as shared memory: {other:?}"),
        }
    }
    Ok(())
}

/// Nothing is left in either ledger, and all can be had.
fn as_before(before: &[HeapInfo], what: &str) -> anyhow::Result<()> {
    settled(before).with_context(|| what.to_owned())?;
    let info = SecureSession::open()?.info()?;
    anyhow::ensure!(
        (info.ranges, info.quarantined) == (0, 0),
        "{what}: {info:?}"
    );
    Ok(())
}

fn allocate(size: u64) -> Result<Buffer, Errno> {
    let device = allocation::open(VIDEO).map_err(|_| Errno::NXIO)?;
    allocation::allocate_size(&device, size)
}

fn refused_commands() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    for (code, errno) in [
        (result::OUT_OF_MEMORY, Errno::NOMEM),
        (result::BUSY, Errno::BUSY),
        (result::ACCESS_CONFLICT, Errno::IO),
        (0xdead_beef, Errno::IO),
        (result::TARGET_DEAD, Errno::IO),
    ] {
        let what = format!("PROTECT refused with {code:#x}");
        let armed = derail(command::PROTECT, Way::Refused(code))?;
        match (code, allocate(SIZE)) {
            // The driver takes the application for restarted, and tries again.
            (result::TARGET_DEAD, Ok(buffer)) => drop(buffer),
            (_, outcome) => expect_errno(outcome, errno, &what)?,
        }
        drop(armed);
        as_before(&before, &what)?;
    }
    // A refusal to open, and the range is kept until somebody asks.
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let _armed = derail(command::UNPROTECT, Way::Refused(result::GENERIC))?;
    drop(buffer);
    anyhow::ensure!(heap_info(VIDEO)?.quarantined == SIZE, "not in quarantine");
    expect_killed(range.page(0), "UNPROTECT refused")?;
    debug::retry(VIDEO)?;
    as_before(&before, "UNPROTECT refused")?;
    expect_zero(range, "after the retry")
}

fn denied_commands() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    // Fenced, and the driver hears that it is not: it looks at the list.
    let armed = derail(command::PROTECT, Way::Denied(result::GENERIC))?;
    expect_errno(allocate(SIZE), Errno::IO, "PROTECT denied")?;
    drop(armed);
    as_before(&before, "PROTECT denied")?;

    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let armed = derail(command::UNPROTECT, Way::Denied(result::GENERIC))?;
    drop(buffer);
    drop(armed);
    debug::retry(VIDEO)?;
    as_before(&before, "UNPROTECT denied")?;
    expect_zero(range, "UNPROTECT denied")
}

fn panics_at_commands() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    for way in [Way::PanicBefore, Way::PanicAfter] {
        for command in [command::PROTECT, command::LIST, command::HELLO] {
            let what = format!("command {command:#x}, {way:?}");
            let armed = derail(command, way)?;
            // LIST and HELLO are asked when an answer of PROTECT is lost.
            let lost = debug::arm("answer", 1)?;
            if let Ok(buffer) = allocate(SIZE) {
                drop(buffer);
            }
            drop(lost);
            drop(armed);
            debug::retry(VIDEO)?;
            as_before(&before, &what)?;
        }
        for command in [command::UNPROTECT, command::LIST, command::HELLO] {
            let what = format!("at release: command {command:#x}, {way:?}");
            let (buffer, range) = region::allocate(VIDEO, SIZE)?;
            let armed = derail(command, way)?;
            let lost = debug::arm("answer", 1)?;
            drop(buffer);
            drop(lost);
            drop(armed);
            debug::retry(VIDEO)?;
            as_before(&before, &what)?;
            expect_zero(range, &what)?;
        }
    }
    drop(region::allocate(VIDEO, region::of(VIDEO)?.size)?);
    Ok(())
}

fn out_of_memory() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let (buffer, range) = region::allocate(VIDEO, SIZE)?;
    let raw = handle(&buffer)?;
    for command in [command::PROTECT, command::LIST, command::HELLO] {
        let _armed = derail(command, Way::Refused(result::OUT_OF_MEMORY))?;
        match allocate(SIZE) {
            Ok(other) => drop(other),
            Err(Errno::NOMEM) => {}
            Err(errno) => anyhow::bail!("command {command:#x}: {errno}"),
        }
        expect_killed(range.page(0), "the buffer that lives")?;
    }
    expect_zeros(&mut Ta::open()?, raw, SIZE)?;
    drop(buffer);
    as_before(&before, "after it")
}
