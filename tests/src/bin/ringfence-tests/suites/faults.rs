// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures at every step of a buffer's life, one after the other: wherever it
//! fails, the ledgers of kernel, trusted application and firewall agree after it,
//! and no byte is lost, or can be read that should not.

use std::fs::File;
use std::io::Read;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use ringfence::proto::command::{self, result};
use ringfence::proto::firewall::fail_point;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::debug::RangeLine;
use ringfence_tests::guest::fault::{self, AnyAllocation};
use ringfence_tests::guest::hostile::{Hostile, TRUSTED_DISPLAY};
use ringfence_tests::guest::memory::{self, expect_zero, Outcome, PhysicalRange};
use ringfence_tests::guest::ta::{self, derail, Ta, Way};
use ringfence_tests::guest::{allocation, debug, heap_info};
use rustix::io::Errno;

use super::fixture::Fixture;
use super::protect::handle;
use super::region::{self, CAMERA, VIDEO};
use super::{settled, Test};

pub const TESTS: &[Test] = &[
    ("a_driver_that_fails_at_any_step", driver_steps),
    (
        "a_firmware_that_fails_at_any_step_of_protect",
        firmware_protect,
    ),
    (
        "a_firmware_that_fails_at_any_step_of_release",
        firmware_release,
    ),
    (
        "a_firmware_that_fails_at_any_step_of_decrypt",
        firmware_decrypt,
    ),
    ("an_application_that_panics_at_any_command", panics),
    ("an_application_that_refuses_any_command", refusals),
];

/// For a kernel that fails allocations on request.
pub const OF_MEMORY: &[Test] = &[
    (
        "memory_runs_out_at_any_step_of_allocation",
        memory_of_allocation,
    ),
    ("memory_runs_out_at_any_step_of_release", memory_of_release),
    (
        "memory_runs_out_at_any_step_of_a_question",
        memory_of_questions,
    ),
    ("memory_runs_out_at_any_step_of_a_device", memory_of_devices),
];

/// The tests that this kernel can run.
pub fn on_this_kernel() -> &'static [Test] {
    match fault::is_possible() {
        true => OF_MEMORY,
        false => &[],
    }
}

/// Two and a half blocks of the firmware.
const SIZE: u64 = 5 << 20;

/// More failures than any step has places for.
const ENDLESS: u32 = 500;

/// What a caller may be told.
const ERRNOS: [Errno; 4] = [Errno::NOMEM, Errno::IO, Errno::BUSY, Errno::NFILE];

fn allocate(heap: &str, size: u64) -> anyhow::Result<Result<Buffer, Errno>> {
    let device = allocation::open(heap)?;
    Ok(allocation::allocate_size(&device, size))
}

/// Fails unless a failure is one that a caller may be told of.
fn tolerable<T>(outcome: Result<T, Errno>, what: &str) -> anyhow::Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(errno) if ERRNOS.contains(&errno) => Ok(()),
        Err(errno) => anyhow::bail!("{what}: {errno:?} ({errno})"),
    }
}

/// How things were, and where a buffer of [`SIZE`] lies in each heap.
struct Ground {
    heaps: Vec<HeapInfo>,
    places: [PhysicalRange; 2],
}

impl Ground {
    fn survey() -> anyhow::Result<Self> {
        let heaps = Control::open()?.heaps()?;
        let place = |heap| anyhow::Ok(region::allocate(heap, SIZE)?.1);
        let places = [place(VIDEO)?, place(CAMERA)?];
        settled(&heaps)?;
        Ok(Self { heaps, places })
    }

    /// Fails unless what is kept after a failure is fenced, and unless all is as it
    /// was once somebody has asked for it.
    fn inspect(&self, what: &str) -> anyhow::Result<()> {
        let (kept, now) = kept_back()?;
        let size: u64 = kept.iter().map(|line| line.range.size).sum();
        anyhow::ensure!(
            now.size - now.free == size && now.quarantined == size,
            "{what}: {kept:x?} are kept, but {now:?}"
        );
        for line in kept {
            match memory::read(line.range.last_page())? {
                outcome if memory::is_refusal(outcome) => {}
                // What was busy is tried again after a while, and is nobody's then.
                Outcome::Read { nonzero: 0 } if !debug::ranges(VIDEO)?.contains(&line) => {}
                other => anyhow::bail!("{what}: {line:x?} is kept, but {other:?}"),
            }
        }
        debug::retry(VIDEO)?;
        settled(&self.heaps).map_err(|error| error.context(what.to_owned()))?;
        anyhow::ensure!(debug::ranges(VIDEO)?.is_empty(), "{what}: a range is left");
        let info = SecureSession::open()?.info()?;
        anyhow::ensure!(
            (info.ranges, info.quarantined) == (0, 0),
            "{what}: {info:?}"
        );
        Ok(())
    }

    /// The end of a test: everything can be had, and is empty.
    fn leave(self) -> anyhow::Result<()> {
        expect_zero(self.places[0], "at the end")?;
        for heap in [VIDEO, CAMERA] {
            let device = allocation::open(heap)?;
            drop(allocation::allocate_size(&device, region::of(heap)?.size)?);
        }
        Ok(())
    }
}

/// The ranges that are kept back, and the heap's figures while they were.
fn kept_back() -> anyhow::Result<(Vec<RangeLine>, HeapInfo)> {
    loop {
        let before = debug::ranges(VIDEO)?;
        let now = heap_info(VIDEO)?;
        // A range that was busy may have been opened in between.
        if debug::ranges(VIDEO)? == before {
            return Ok((before, now));
        }
    }
}

/// A buffer's life, as far as it comes.
fn life(heap: &str, hostile: &Hostile, fixture: &Fixture, what: &str) -> anyhow::Result<()> {
    let buffer = match allocate(heap, SIZE)? {
        Ok(buffer) => buffer,
        refused => return tolerable(refused, what),
    };
    let info = Control::open()?.buffer(&buffer);
    if let (VIDEO, Ok(info)) = (heap, info) {
        let mut ta = Ta::open()?;
        // The content matters, not whether it can be had today.
        let _ = ta.load_licence(&fixture.licence);
        let handle = info.protected_handle()?.raw();
        let _ = ta.decrypt(handle, &fixture.request(0), &fixture.ciphertext[..1 << 16]);
    }
    tolerable(hostile.map(&buffer, TRUSTED_DISPLAY), what)?;
    Ok(hostile.release()?)
}

fn driver_steps() -> anyhow::Result<()> {
    const POINTS: [&str; 8] = [
        "range", "record", "scrub", "tee", "answer", "busy", "export", "map",
    ];
    let ground = Ground::survey()?;
    let (hostile, fixture) = (Hostile::load()?, Fixture::read()?);
    for heap in [VIDEO, CAMERA] {
        for point in POINTS {
            for nth in 1..ENDLESS {
                let what = format!("{heap}: {point} fails, pass {nth}");
                let armed = debug::arm(point, nth)?;
                life(heap, &hostile, &fixture, &what)?;
                let passed = debug::armed()?
                    .iter()
                    .any(|(name, left)| name == point && *left > 0);
                drop(armed);
                ground.inspect(&what)?;
                if passed {
                    break;
                }
            }
        }
    }
    drop(hostile);
    ground.leave()
}

fn firmware_protect() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    for nth in 1..ENDLESS {
        let what = format!("PROTECT fails at step {nth}");
        let armed = ta::arm(fail_point::ANY, nth)?;
        let outcome = allocate(VIDEO, SIZE)?;
        drop(armed);
        let done = outcome.is_ok();
        tolerable(outcome, &what)?;
        ground.inspect(&what)?;
        if done {
            // Three blocks are fenced, and scrubbed, at least.
            anyhow::ensure!(nth > 6, "only {nth} steps");
            return ground.leave();
        }
    }
    anyhow::bail!("PROTECT has no end")
}

fn firmware_release() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let fixture = Fixture::read()?;
    for nth in 1..ENDLESS {
        let what = format!("UNPROTECT fails at step {nth}");
        let (buffer, range) = region::allocate(VIDEO, SIZE)?;
        fixture.decrypt(&mut Ta::open()?, handle(&buffer)?)?;
        let armed = ta::arm(fail_point::ANY, nth)?;
        drop(buffer);
        drop(armed);
        let kept = heap_info(VIDEO)?.quarantined;
        ground.inspect(&what)?;
        expect_zero(range.page(0), &what)?;
        if kept == 0 {
            anyhow::ensure!(nth > 6, "only {nth} steps");
            return ground.leave();
        }
        anyhow::ensure!(kept == SIZE, "{what}: {kept} bytes are kept");
    }
    anyhow::bail!("UNPROTECT has no end")
}

fn firmware_decrypt() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(VIDEO, SIZE)?;
    let raw = handle(&buffer)?;
    let mut ta = Ta::open()?;
    ta::expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    for nth in 1..ENDLESS {
        let armed = ta::arm(fail_point::ANY, nth)?;
        let outcome = ta.decrypt(raw, &fixture.request(0), &fixture.ciphertext);
        drop(armed);
        match outcome {
            Ok(_) => {
                anyhow::ensure!(nth > 1, "DECRYPT has no steps");
                fixture.expect_content(&mut ta, raw)?;
                drop((buffer, ta));
                ground.inspect("after DECRYPT")?;
                return ground.leave();
            }
            Err(code) => anyhow::ensure!(
                code != result::TARGET_DEAD,
                "step {nth}: the application has died"
            ),
        }
    }
    anyhow::bail!("DECRYPT has no end")
}

/// Commands by number, with something that makes somebody call each.
const COMMANDS: [u32; 9] = [
    command::HELLO,
    command::PROTECT,
    command::UNPROTECT,
    command::LIST,
    command::INFO,
    command::LOAD_LICENCE,
    command::DECRYPT,
    command::DECRYPT_SAMPLE,
    command::DIGEST,
];

/// Lets a command go wrong under two buffers, of which one lives on with its
/// content.
fn derailed(way: Way) -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let fixture = Fixture::read()?;
    for command in COMMANDS {
        let what = format!("command {command:#x}: {way:?}");
        let kept = allocate(VIDEO, fixture.ciphertext.len() as u64)??;
        fixture.decrypt(&mut Ta::open()?, handle(&kept)?)?;
        let other = allocate(VIDEO, 4096)??;
        let raw = handle(&other)?;
        let mut ta = Ta::open()?;

        let armed = derail(command, way)?;
        match command {
            command::HELLO => drop(Control::open()?.buffer(&kept)),
            command::PROTECT => tolerable(allocate(VIDEO, 4096)?, &what)?,
            command::UNPROTECT => {}
            command::LIST => debug::retry(VIDEO)?,
            command::INFO => drop(SecureSession::open()?.info()),
            command::LOAD_LICENCE => drop(ta.load_licence(&fixture.licence)),
            command::DECRYPT => {
                let _ = ta.load_licence(&fixture.licence);
                let content = &fixture.ciphertext[..4096];
                let _ = ta.decrypt(raw, &fixture.request(0), content);
            }
            command::DECRYPT_SAMPLE => {
                let _ = ta.load_licence(&fixture.licence);
                let content = &fixture.ciphertext[..4096];
                let _ = ta.decrypt_sample(raw, &fixture.sample(4096), content);
            }
            _ => drop(fixture.expect_content(&mut ta, raw)),
        }
        drop(other);
        drop(armed);
        debug::retry(VIDEO)?;
        let mut ta = Ta::open()?;
        fixture
            .expect_content(&mut ta, handle(&kept)?)
            .map_err(|error| error.context(what.clone()))?;
        drop((kept, ta));
        ground.inspect(&what)?;
    }
    ground.leave()
}

fn panics() -> anyhow::Result<()> {
    derailed(Way::PanicBefore)?;
    derailed(Way::PanicAfter)
}

fn refusals() -> anyhow::Result<()> {
    derailed(Way::Refused(0x1234_5678))?;
    derailed(Way::Denied(result::GENERIC))
}

/// Fails the first allocation of memory in `work`, then the second, until there
/// is none left to fail.
fn starved<T>(
    what: &str,
    mut prepare: impl FnMut() -> anyhow::Result<T>,
    mut work: impl FnMut(&mut T) -> Result<(), Errno>,
    mut after: impl FnMut(T, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let failing = AnyAllocation::new()?;
    for nth in 1..ENDLESS {
        let what = format!("{what}, allocation {nth}");
        let mut subject = prepare()?;
        let (outcome, failed) = failing.with_nth(nth, || work(&mut subject))?;
        tolerable(outcome, &what)?;
        after(subject, &what)?;
        if !failed {
            anyhow::ensure!(nth > 1, "{what}: there was none to fail");
            outcome.map_err(|errno| anyhow::anyhow!("{what}: {errno}"))?;
            print!("{} made to fail; ", nth - 1);
            return Ok(());
        }
    }
    anyhow::bail!("{what}: no end")
}

fn memory_of_allocation() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    for heap in [VIDEO, CAMERA] {
        let device = allocation::open(heap)?;
        starved(
            &format!("allocation from {heap}"),
            || Ok(None),
            |buffer| {
                *buffer = Some(allocation::allocate_size(&device, SIZE)?);
                Ok(())
            },
            |buffer, what| {
                drop(buffer);
                ground.inspect(what)
            },
        )?;
    }
    ground.leave()
}

fn memory_of_release() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let fixture = Fixture::read()?;
    starved(
        "release",
        || {
            let buffer = allocate(VIDEO, SIZE)??;
            fixture.decrypt(&mut Ta::open()?, handle(&buffer)?)?;
            Ok(Some(buffer))
        },
        |buffer| {
            drop(buffer.take());
            Ok(())
        },
        |_, what| ground.inspect(what),
    )?;
    ground.leave()
}

fn memory_of_questions() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let buffer = allocate(VIDEO, SIZE)??;
    let raw = handle(&buffer)?;
    let path = format!("{}/{VIDEO}/ranges", debug::ROOT);
    starved(
        "the list of ranges",
        || Ok(String::with_capacity(1 << 12)),
        |text| {
            let read = File::open(&path).and_then(|mut file| file.read_to_string(text));
            match read {
                Ok(_) if text.contains("protected") => Ok(()),
                Ok(_) => Err(Errno::NOMEM),
                Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        },
        |_, what| {
            anyhow::ensure!(handle(&buffer)? == raw, "{what}: another handle");
            Ok(())
        },
    )?;
    drop(buffer);
    ground.inspect("after the questions")?;
    ground.leave()
}

fn memory_of_devices() -> anyhow::Result<()> {
    let ground = Ground::survey()?;
    let hostile = Hostile::load()?;
    for heap in [VIDEO, CAMERA] {
        let buffer = allocate(heap, SIZE)??;
        starved(
            &format!("a device with a buffer of {heap}"),
            || Ok(()),
            |()| hostile.take(&buffer, TRUSTED_DISPLAY),
            |(), _| Ok(hostile.release()?),
        )?;
        drop(buffer);
        ground.inspect("after the devices")?;
    }
    drop(hostile);
    ground.leave()
}
