// SPDX-License-Identifier: MIT OR Apache-2.0

//! The trusted application panics, and what is protected stays so.

use ringfence::control::Control;
use ringfence::proto::command::result;
use ringfence::proto::firewall::fail_point;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::{self, expect_code, Ta};
use ringfence_tests::guest::{debug, heap_info};

use super::fixture::{expect_zeros, Fixture};
use super::protect::handle;
use super::region::{self, UI, VIDEO};
use super::{settled, Test};

pub const TESTS: &[Test] = &[
    (
        "a_panic_leaves_buffers_protected_and_usable",
        buffers_survive_a_panic,
    ),
    (
        "a_buffer_can_be_released_after_a_panic",
        release_after_a_panic,
    ),
    ("every_session_dies_with_the_application", sessions_die),
    ("panics_again_and_again_lose_nothing", many_panics),
    ("many_buffers_are_recovered", many_buffers),
    (
        "a_handle_asked_for_after_a_panic_is_alive",
        handle_after_a_panic,
    ),
    (
        "a_quarantined_range_is_retried_after_a_panic",
        retry_after_a_panic,
    ),
];

const PAGE: u64 = 4096;

/// Makes the trusted application panic; its caller hears that it is dead.
fn panic() -> anyhow::Result<()> {
    expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC")
}

fn buffers_survive_a_panic() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, range) = region::allocate(VIDEO, fixture.ciphertext.len() as u64)?;
    let old = handle(&buffer)?;
    fixture.decrypt(&mut Ta::open()?, old)?;

    panic()?;
    expect_killed(range.page(0), "right after the panic")?;
    expect_killed(range.last_page(), "right after the panic, last page")?;

    // The next command of the kernel finds the application dead, and recovers.
    let (second, second_range) = region::allocate(VIDEO, 2 * PAGE)?;
    expect_killed(second_range.page(1), "a buffer made after the panic")?;
    expect_killed(range.page(0), "after the recovery")?;

    let new = handle(&buffer)?;
    anyhow::ensure!(new != old, "the handle was not renewed");
    let mut ta = Ta::open()?;
    let content = fixture.expect_content(&mut ta, old);
    anyhow::ensure!(content.is_err(), "the old handle still works");
    fixture.expect_content(&mut ta, new)?;
    expect_zeros(&mut ta, handle(&second)?, 2 * PAGE)?;

    drop(buffer);
    expect_zero(range, "after release")?;
    expect_killed(second_range.page(0), "the other one, not released")?;
    drop(second);
    expect_zero(second_range, "the other one after release")
}

fn release_after_a_panic() -> anyhow::Result<()> {
    for heap in [VIDEO, UI] {
        let before = heap_info(heap)?;
        let (buffer, range) = region::allocate(heap, 3 << 20)?;
        panic()?;
        drop(buffer);
        let after = heap_info(heap)?;
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
        expect_zero(range, "after release")?;
    }
    Ok(())
}

fn sessions_die() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let mut witness = Ta::open()?;
    witness
        .load_licence(&fixture.licence)
        .map_err(|code| anyhow::anyhow!("LOAD_LICENCE: {code:#010x}"))?;
    panic()?;
    expect_code(
        witness.load_licence(&fixture.licence),
        result::TARGET_DEAD,
        "a session from before the panic",
    )?;
    // A new one works, and knows none of the old keys.
    let (buffer, _) = region::allocate(VIDEO, PAGE)?;
    expect_code(
        Ta::open()?.decrypt(
            handle(&buffer)?,
            &fixture.request(0),
            &fixture.ciphertext[..16],
        ),
        result::ITEM_NOT_FOUND,
        "a key from before the panic",
    )
}

fn many_panics() -> anyhow::Result<()> {
    let (kept, kept_range) = region::allocate(VIDEO, 5 * PAGE)?;
    for round in 0..5 {
        let (buffer, range) = region::allocate(VIDEO, (round + 1) * PAGE)?;
        panic()?;
        if round % 2 == 0 {
            drop(buffer);
            let (again, _) = region::allocate(VIDEO, PAGE)?;
            drop(again);
            expect_zero(range, "released after a panic")?;
        } else {
            let (other, other_range) = region::allocate(VIDEO, PAGE)?;
            drop(buffer);
            panic()?;
            drop(other);
            expect_zero(other_range, "released after a second panic")?;
            expect_zero(range, "released between two panics")?;
        }
        expect_killed(kept_range.last_page(), "the buffer that is kept")?;
    }
    expect_zeros(&mut Ta::open()?, handle(&kept)?, 5 * PAGE)
}

/// A player that finds its session dead asks for the handle again, and nobody
/// else has talked to the secure world meanwhile.
fn handle_after_a_panic() -> anyhow::Result<()> {
    let (buffer, _) = region::allocate(VIDEO, PAGE)?;
    let old = handle(&buffer)?;
    panic()?;
    let new = handle(&buffer)?;
    anyhow::ensure!(new != old, "the handle is from before the panic");
    expect_zeros(&mut Ta::open()?, new, PAGE)
}

/// One request is enough, though the kernel's session has died unnoticed.
fn retry_after_a_panic() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let (buffer, range) = region::allocate(VIDEO, PAGE)?;
    let armed = ta::arm(fail_point::OPEN, 1)?;
    drop(buffer);
    drop(armed);
    let info = heap_info(VIDEO)?;
    anyhow::ensure!(info.quarantined == PAGE, "{info:?}");
    panic()?;
    expect_killed(range.page(0), "in quarantine, after the panic")?;
    debug::retry(VIDEO)?;
    settled(&before)?;
    expect_zero(range, "after the retry")
}

fn many_buffers() -> anyhow::Result<()> {
    const COUNT: u64 = 100;
    let before = Control::open()?.heaps()?;
    let mut buffers = Vec::new();
    for _ in 0..COUNT {
        buffers.push(region::allocate(VIDEO, PAGE)?);
    }
    let mut old = Vec::new();
    for (buffer, _) in &buffers {
        old.push(handle(buffer)?);
    }
    panic()?;
    // Any command of the kernel's, even for another heap, finds them all again.
    drop(region::allocate(UI, PAGE)?);
    let mut ta = Ta::open()?;
    for ((buffer, _), old) in buffers.iter().zip(&old).step_by(9) {
        let new = handle(buffer)?;
        anyhow::ensure!(new != *old, "a handle was not renewed");
        expect_zeros(&mut ta, new, PAGE)?;
    }
    let ranges: Vec<_> = buffers.iter().map(|(_, range)| *range).collect();
    for range in ranges.iter().step_by(33) {
        expect_killed(*range, "one of many")?;
    }
    drop(buffers);
    settled(&before)?;
    for range in ranges.iter().step_by(33) {
        expect_zero(*range, "one of many after release")?;
    }
    Ok(())
}
