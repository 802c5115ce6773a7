// SPDX-License-Identifier: MIT OR Apache-2.0

//! A boot without the module optee: open heaps work, protected ones wait and
//! say so, and come when OP-TEE comes. The tests build on each other in order.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use ringfence::error::Error;
use ringfence::heap::HEAPS_PATH;
use ringfence::secure::SecureSession;
use ringfence::status::{SecureWorld, Status};
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::{allocation, deadline, heap_info, module};

use super::region::{self, CAMERA, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("1_open_heaps_work_without_op_tee", open_heaps_work),
    ("2_protected_heaps_wait_and_say_so", protected_heaps_wait),
    ("3_the_secure_world_is_said_to_be_absent", absence_is_said),
    ("4_protected_heaps_come_with_op_tee", protected_heaps_come),
];

const PAGE: u64 = 4096;

fn open_heaps_work() -> anyhow::Result<()> {
    anyhow::ensure!(!module::is_loaded("optee")?, "optee is loaded: wrong boot");
    anyhow::ensure!(
        module::is_loaded(module::CARVEOUT)?,
        "the heaps' module is not loaded"
    );
    anyhow::ensure!(heap_info(CAMERA)?.online);
    drop(region::allocate(CAMERA, 1 << 20)?);
    Ok(())
}

fn protected_heaps_wait() -> anyhow::Result<()> {
    for heap in [VIDEO, UI] {
        anyhow::ensure!(heap_info(heap).is_err(), "{heap} is there without OP-TEE");
        anyhow::ensure!(
            !Path::new(HEAPS_PATH).join(heap).exists(),
            "{heap} has a node"
        );
    }
    let deferred = fs::read_to_string("/sys/kernel/debug/devices_deferred")?;
    for device in ["heap-protected-video", "heap-protected-ui"] {
        anyhow::ensure!(deferred.contains(device), "not deferred: {deferred:?}");
    }
    let log = Command::new("dmesg").output().context("dmesg")?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let said = log
        .lines()
        .filter(|line| line.contains("protected heaps wait for OP-TEE"))
        .count();
    anyhow::ensure!(said == 1, "said {said} times that they wait");
    Ok(())
}

fn absence_is_said() -> anyhow::Result<()> {
    match SecureSession::open() {
        Err(Error::NoSecureWorld) => {}
        Err(error) => anyhow::bail!("another error: {error}"),
        Ok(_) => anyhow::bail!("a session without OP-TEE"),
    }
    match Status::read()?.secure_world {
        SecureWorld::Absent { reason } => {
            anyhow::ensure!(reason.contains("optee"), "{reason}");
            Ok(())
        }
        present => anyhow::bail!("{present:?}"),
    }
}

fn protected_heaps_come() -> anyhow::Result<()> {
    module::load("optee")?;
    deadline::until(Duration::from_secs(60), "protected heaps online", || {
        Ok((heap_info(VIDEO)?.online && heap_info(UI)?.online).then_some(()))
    })?;
    for heap in [VIDEO, UI] {
        drop(allocation::open(heap)?);
        let (buffer, range) = region::allocate(heap, 3 * PAGE)?;
        expect_killed(range.page(2), "a buffer of a heap that came late")?;
        drop(buffer);
        expect_zero(range, "after release")?;
    }
    match Status::read()?.secure_world {
        SecureWorld::Present { ranges: 0, .. } => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}
