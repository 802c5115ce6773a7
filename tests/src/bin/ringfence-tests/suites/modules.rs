// SPDX-License-Identifier: MIT OR Apache-2.0

//! Modules come and go: not under a live buffer, and everything is back after.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ringfence::control::Control;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::module::{self, CARVEOUT, CORE};
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info};
use rustix::io::Errno;

use super::protect::handle;
use super::region::{self, CAMERA, DECLARED, VIDEO, WHOLE};
use super::Test;

pub const TESTS: &[Test] = &[
    (
        "a_live_buffer_keeps_its_module",
        a_live_buffer_keeps_its_module,
    ),
    (
        "heaps_without_a_module_answer_enodev_and_revive",
        heaps_revive,
    ),
    ("the_core_never_unloads", the_core_never_unloads),
    ("an_unbound_heap_keeps_its_buffers", unbound_heap),
    ("loading_and_unloading_loses_nothing", again_and_again),
];

const PAGE: u64 = 4096;

/// A reference to a module is given back a moment after its last user.
pub fn unload_carveout() -> anyhow::Result<()> {
    deadline::until(Duration::from_secs(60), "rmmod ringfence_carveout", || {
        module::unload(CARVEOUT).map(Some).map_err(Into::into)
    })
}

/// Waits until all heaps are there again.
pub fn all_online() -> anyhow::Result<()> {
    deadline::until(Duration::from_secs(60), "all heaps online", || {
        for declared in DECLARED.iter().chain([&WHOLE]) {
            if !heap_info(declared.name)?.online {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

fn a_live_buffer_keeps_its_module() -> anyhow::Result<()> {
    for heap in [VIDEO, CAMERA] {
        let (buffer, range) = region::allocate(heap, PAGE)?;
        expect_errno(
            module::unload(CARVEOUT),
            Errno::AGAIN,
            "rmmod with a live buffer",
        )?;
        anyhow::ensure!(heap_info(heap)?.online, "{heap} is offline");
        anyhow::ensure!(Control::open()?.buffer(&buffer)?.size == PAGE);
        if heap == VIDEO {
            expect_killed(range, "after the refusal")?;
        }
        // An open heap without a buffer does not keep it.
        drop(buffer);
    }
    Ok(())
}

fn heaps_revive() -> anyhow::Result<()> {
    let before = Control::open()?.heaps()?;
    let mut devices = Vec::new();
    for declared in &DECLARED {
        devices.push((declared, allocation::open(declared.name)?));
    }
    unload_carveout()?;
    anyhow::ensure!(!module::is_loaded(CARVEOUT)?);
    for (declared, device) in &devices {
        // Both who has it open and who opens it now.
        for device in [device, &allocation::open(declared.name)?] {
            let outcome = allocation::allocate_size(device, PAGE);
            expect_errno(outcome, Errno::NODEV, declared.name)?;
        }
        let info = heap_info(declared.name)?;
        anyhow::ensure!(!info.online && info.size == 0, "{info:?}");
    }
    module::load(CARVEOUT)?;
    all_online()?;
    for (declared, device) in &devices {
        drop(allocation::allocate_size(device, declared.size)?);
    }
    let after = Control::open()?.heaps()?;
    anyhow::ensure!(after == before, "{after:#?}\nbefore: {before:#?}");
    Ok(())
}

fn the_core_never_unloads() -> anyhow::Result<()> {
    expect_errno(module::unload(CORE), Errno::AGAIN, "rmmod of the core")?;
    unload_carveout()?;
    expect_errno(
        module::unload(CORE),
        Errno::AGAIN,
        "rmmod of the core alone",
    )?;
    module::load(CARVEOUT)?;
    all_online()
}

fn unbound_heap() -> anyhow::Result<()> {
    const DEVICE: &str = "heap-protected-video";
    let before = Control::open()?.heaps()?;
    let driver = fs::canonicalize(format!("/sys/bus/platform/devices/{DEVICE}/driver"))
        .context("the heap's device has no driver")?;
    let tell = |file: &str| {
        let path: PathBuf = driver.join(file);
        fs::write(&path, DEVICE).with_context(|| path.display().to_string())
    };
    let device = allocation::open(VIDEO)?;
    let (kept, kept_range) = region::allocate(VIDEO, 3 * PAGE)?;
    let (released, released_range) = region::allocate(VIDEO, 3 * PAGE)?;
    let old = handle(&kept)?;

    tell("unbind")?;
    let outcome = allocation::allocate_size(&device, PAGE);
    expect_errno(outcome, Errno::NODEV, "an unbound heap")?;
    expect_killed(kept_range.page(0), "a buffer of an unbound heap")?;
    anyhow::ensure!(handle(&kept)? == old, "another handle");
    drop(released);
    expect_zero(released_range, "released to an unbound heap")?;

    tell("bind")?;
    all_online()?;
    expect_killed(kept_range.last_page(), "after the heap was bound again")?;
    let (new, new_range) = region::allocate(VIDEO, 3 * PAGE)?;
    anyhow::ensure!(
        new_range != kept_range,
        "a live buffer was handed out again"
    );
    drop((new, kept));
    expect_zero(kept_range, "released after the heap was bound again")?;
    let after = Control::open()?.heaps()?;
    anyhow::ensure!(after == before, "{after:#?}\nbefore: {before:#?}");
    Ok(())
}

fn again_and_again() -> anyhow::Result<()> {
    for _ in 0..debug::tries(5) {
        unload_carveout()?;
        module::load(CARVEOUT)?;
        all_online()?;
        let (buffer, range) = region::allocate(VIDEO, 1 << 20)?;
        expect_killed(range.page(0), "after a reload")?;
        drop(buffer);
        expect_zero(range, "after a reload and release")?;
    }
    Ok(())
}
