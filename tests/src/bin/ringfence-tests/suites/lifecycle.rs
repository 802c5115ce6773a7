// SPDX-License-Identifier: MIT OR Apache-2.0

//! What protection lives through: the TEE's driver going and coming, suspend,
//! and many that allocate and release at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence_tests::guest::hostile::Hostile;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::ta::Ta;
use ringfence_tests::guest::{allocation, deadline, expect_errno, heap_info, supplicant};
use rustix::io::Errno;
use rustix::process::{kill_process, Signal};

use super::attacks::Prey;
use super::modules::all_online;
use super::protect::handle;
use super::region::{self, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("release_beside_allocation", release_beside_allocation),
    ("a_closed_buffer_makes_room_at_once", room_at_once),
    ("suspend_with_live_buffers", suspend),
    ("the_tees_driver_goes_and_comes", optee_goes_and_comes),
    (
        "a_buffer_is_released_while_the_tee_is_away",
        released_without_tee,
    ),
];

const MIB: u64 = 1 << 20;

/// How long a driver may take to come or go.
const SOON: Duration = Duration::from_secs(60);

/// Threads share a heap that has just enough room for all: nobody is ever
/// refused, because what is released is free before `close` returns.
fn release_beside_allocation() -> anyhow::Result<()> {
    const THREADS: u64 = 4;
    const ROUNDS: usize = 10;
    let before = heap_info(UI)?;
    let share = before.size / THREADS;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(move || -> anyhow::Result<()> {
                    let heap = allocation::open(UI)?;
                    for round in 0..ROUNDS {
                        let buffer = allocation::allocate_size(&heap, share)
                            .with_context(|| format!("round {round}"))?;
                        drop(buffer);
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let after = heap_info(UI)?;
    anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    expect_zero(region::of(UI)?, "after all of them")
}

/// All of a heap is one buffer, again and again.
fn room_at_once() -> anyhow::Result<()> {
    for name in [UI, region::CAMERA] {
        let heap = allocation::open(name)?;
        let size = heap_info(name)?.size;
        for round in 0..3 {
            drop(
                allocation::allocate_size(&heap, size)
                    .with_context(|| format!("{name}, round {round}"))?,
            );
        }
    }
    Ok(())
}

/// Writes a word to a file of the kernel's.
fn tell(path: impl AsRef<Path>, word: &str) -> anyhow::Result<()> {
    let path = path.as_ref();
    fs::write(path, word).with_context(|| format!("{word} > {}", path.display()))
}

/// The devices are suspended and resumed, with content in a buffer; the machine
/// itself is not.
fn suspend() -> anyhow::Result<()> {
    let mut prey = Prey::new()?;
    let hostile = Hostile::load()?;
    hostile.order("awake yes")?;
    tell("/sys/module/suspend/parameters/pm_test_delay", "0")?;
    for level in ["freezer", "devices"] {
        tell("/sys/power/pm_test", level)?;
        let outcome = tell("/sys/power/state", "freeze");
        tell("/sys/power/pm_test", "none")?;
        outcome?;
        prey.unharmed()?;
        let (buffer, range) = region::allocate(VIDEO, MIB)?;
        expect_killed(range.page(0), "a buffer made after it")?;
        drop(buffer);
        expect_zero(range, "released after it")?;
    }
    hostile.order("awake no")?;
    prey.release()
}

/// The platform driver of OP-TEE, and its device.
const DRIVER: &str = "/sys/bus/platform/drivers/optee";

fn optee_device() -> anyhow::Result<String> {
    fs::read_dir(DRIVER)
        .context(DRIVER)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.contains(':') || name.ends_with("optee"))
        .context("OP-TEE's driver has no device")
}

/// The supplicant holds the TEE's device open, so it has to go first.
fn stop_supplicant() -> anyhow::Result<()> {
    for process in supplicant::processes()? {
        kill_process(process, Signal::TERM)?;
        let gone = || Ok((!supplicant::exists(process)).then_some(()));
        deadline::until(SOON, "tee-supplicant ends", gone)?;
    }
    Ok(())
}

/// Takes OP-TEE's driver from its device, and gives it back.
fn without_optee<T>(meanwhile: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let device = optee_device()?;
    stop_supplicant()?;
    tell(format!("{DRIVER}/unbind"), &device)?;
    let outcome = meanwhile();
    tell(format!("{DRIVER}/bind"), &device)?;
    let supplicant = Command::new("tee-supplicant").arg("-d").status()?;
    anyhow::ensure!(supplicant.success(), "tee-supplicant: {supplicant}");
    all_online()?;
    outcome
}

/// Content without the session that it was decrypted by, so that nobody has the
/// TEE's device open.
fn content_without_session() -> anyhow::Result<(Prey, Buffer)> {
    let prey = Prey::new()?;
    let (other, _) = region::allocate(UI, MIB)?;
    Ok((prey, other))
}

fn optee_goes_and_comes() -> anyhow::Result<()> {
    for _ in 0..2 {
        let (prey, other) = content_without_session()?;
        let Prey {
            buffer,
            range,
            fixture,
            ta,
            ..
        } = prey;
        drop(ta);
        let heap = allocation::open(VIDEO)?;
        without_optee(|| {
            anyhow::ensure!(!heap_info(VIDEO)?.online, "online without a TEE");
            expect_killed(range.page(0), "without a TEE")?;
            expect_killed(range.last_page(), "without a TEE")?;
            let outcome = allocation::allocate_size(&heap, 4096);
            expect_errno(outcome, Errno::NODEV, "allocation without a TEE")
        })?;
        expect_killed(range.page(0), "with the TEE again")?;
        let mut ta = Ta::open()?;
        fixture.expect_content(&mut ta, handle(&buffer)?)?;
        drop((ta, buffer, other));
        expect_zero(range, "after release")?;
    }
    Ok(())
}

fn released_without_tee() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let (prey, other) = content_without_session()?;
    let Prey {
        buffer, range, ta, ..
    } = prey;
    drop(ta);
    without_optee(|| {
        drop(buffer);
        expect_killed(range.page(0), "released without a TEE")?;
        expect_killed(range.last_page(), "released without a TEE")?;
        Ok(())
    })?;
    deadline::until(SOON, "release", || {
        Ok((heap_info(VIDEO)?.free == heap_info(VIDEO)?.size).then_some(()))
    })?;
    expect_zero(range, "when the TEE is there again")?;
    drop(other);
    super::settled(&before)
}
