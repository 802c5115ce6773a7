// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who has how much of which heap, and who may have how much.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::heap::{HeapInfo, History};
use ringfence::request::Request;
use ringfence_tests::guest::control_group::{self, ControlGroup};
use ringfence_tests::guest::{allocation, debug, expect_errno};
use rustix::io::Errno;

use super::cma::{DEFAULT, DEFAULT_NODE, REGION};
use super::region::{CAMERA, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("totals_and_marks_are_kept", totals_and_marks),
    (
        "every_buffer_has_a_line_with_its_origin",
        lines_with_origins,
    ),
    ("contiguous_memory_can_be_limited", capacities_are_shown),
    ("a_limit_refuses_and_is_given_back", limits_refuse),
    ("heaps_on_the_same_memory_share_a_limit", shared_limit),
    (
        "a_buffer_stays_charged_to_who_allocated_it",
        charges_stay_with_the_allocator,
    ),
    ("a_limit_makes_the_next_heap_serve", limit_and_fallback),
];

const PAGE: u64 = 4096;

fn figures(heap: &str) -> anyhow::Result<(HeapInfo, History)> {
    Control::open()?
        .heaps_with_history()?
        .into_iter()
        .find(|(info, _)| info.name == heap)
        .with_context(|| format!("no heap {heap}"))
}

fn all() -> anyhow::Result<Vec<String>> {
    let heaps = Control::open()?.heaps()?;
    Ok(heaps
        .into_iter()
        .filter(|heap| heap.online)
        .map(|heap| heap.name)
        .collect())
}

fn allocate(heap: &str, size: u64) -> Result<Buffer, Errno> {
    let device = allocation::open(heap).map_err(|_| Errno::NOENT)?;
    allocation::allocate_size(&device, size)
}

fn totals_and_marks() -> anyhow::Result<()> {
    for heap in all()? {
        let (info, history) = figures(&heap)?;
        anyhow::ensure!(info.used == 0 && info.buffers == 0, "{heap}: {info:?}");
        // Higher than it ever was, unless there is no more memory.
        let mark = (history.high_water + PAGE).clamp(2 * PAGE, 8 << 20);
        let buffers = [allocate(&heap, mark - PAGE)?, allocate(&heap, 1)?];
        let (during, then) = figures(&heap)?;
        anyhow::ensure!(during.used == mark, "{heap}: {during:?}, not {mark}");
        anyhow::ensure!(during.buffers == 2, "{heap}: {during:?}");
        anyhow::ensure!(
            then.high_water == history.high_water.max(mark),
            "{heap}: {then:?}"
        );
        anyhow::ensure!(
            then.allocations == history.allocations + 2,
            "{heap}: {then:?}"
        );
        anyhow::ensure!(debug::figure(&heap, "used")? == mark);
        drop(buffers);
        expect_errno(allocate(&heap, 1 << 50), Errno::NOMEM, &heap)?;
        let (after, then_too) = figures(&heap)?;
        anyhow::ensure!(after.used == 0 && after.buffers == 0, "{heap}: {after:?}");
        anyhow::ensure!(
            then_too.high_water == then.high_water,
            "{heap}: {then_too:?}"
        );
        anyhow::ensure!(
            then_too.failures == history.failures + 1,
            "{heap}: {then_too:?}"
        );
    }
    Ok(())
}

fn lines_with_origins() -> anyhow::Result<()> {
    let pid = std::process::id();
    let name = fs::read_to_string("/proc/self/comm")?;
    for heap in all()? {
        anyhow::ensure!(debug::buffers(&heap)?.is_empty(), "{heap} has buffers");
        let buffers = [allocate(&heap, 3 * PAGE)?, allocate(&heap, PAGE)?];
        let mut expected = Vec::new();
        for (buffer, size) in buffers.iter().zip([3 * PAGE, PAGE]) {
            let fd = buffer.as_fd().as_raw_fd();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
            let inode = text
                .lines()
                .find_map(|line| line.strip_prefix("ino:"))
                .context("no inode")?
                .trim();
            expected.push((inode.parse()?, size, pid, name.trim().to_owned()));
        }
        let lines = debug::buffers(&heap)?;
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.inode, line.size, line.pid, line.comm.clone()))
            .collect();
        anyhow::ensure!(seen == expected, "{heap}: {seen:?}, not {expected:?}");
        // From the middle of the list, and from its end.
        let [first, second] = buffers;
        drop(first);
        anyhow::ensure!(debug::buffers(&heap)? == lines[1..]);
        drop(second);
        anyhow::ensure!(debug::buffers(&heap)?.is_empty());
    }
    Ok(())
}

fn capacities_are_shown() -> anyhow::Result<()> {
    let capacities = control_group::capacities()?;
    for heap in [CAMERA, VIDEO, UI, DEFAULT, REGION] {
        let (info, _) = figures(heap)?;
        let of_heap: Vec<_> = capacities.iter().filter(|(name, _)| name == heap).collect();
        anyhow::ensure!(
            of_heap.len() == 1 && of_heap[0].1 == info.size,
            "{heap}: {capacities:?}"
        );
    }
    // Pages belong to the memory controller.
    anyhow::ensure!(capacities.iter().all(|(name, _)| name != "system"));
    Ok(())
}

const LIMIT: u64 = 4 << 20;

fn limits_refuse() -> anyhow::Result<()> {
    for heap in [CAMERA, VIDEO, REGION] {
        let group = ControlGroup::enter("ringfence-limits")?;
        group.limit(heap, Some(LIMIT))?;
        let half = allocate(heap, LIMIT / 2)?;
        anyhow::ensure!(group.current(heap)? == LIMIT / 2);
        let (before, history) = figures(heap)?;
        expect_errno(allocate(heap, LIMIT / 2 + PAGE), Errno::DQUOT, heap)?;
        let (after, then) = figures(heap)?;
        anyhow::ensure!(after.used == before.used && after.buffers == before.buffers);
        anyhow::ensure!(then.failures == history.failures + 1);
        anyhow::ensure!(group.current(heap)? == LIMIT / 2, "a refusal is charged");
        // No room is no matter of rights.
        expect_errno(allocate(heap, before.size + PAGE), Errno::NOMEM, heap)?;
        let other = allocate(heap, LIMIT / 2)?;
        anyhow::ensure!(group.current(heap)? == LIMIT);
        expect_errno(allocate(heap, 1), Errno::DQUOT, heap)?;
        drop((half, other));
        anyhow::ensure!(group.current(heap)? == 0, "something stays charged");
        for point in ["range", "export"] {
            let _armed = debug::arm(point, 1)?;
            expect_errno(allocate(heap, PAGE), Errno::NOMEM, point)?;
            anyhow::ensure!(group.current(heap)? == 0, "a failure is charged");
        }
        group.limit(heap, Some(0))?;
        expect_errno(allocate(heap, 1), Errno::DQUOT, heap)?;
        group.limit(heap, None)?;
        drop(allocate(heap, LIMIT + PAGE)?);
    }
    Ok(())
}

fn shared_limit() -> anyhow::Result<()> {
    let group = ControlGroup::enter("ringfence-shared")?;
    group.limit(DEFAULT, Some(LIMIT))?;
    let _all = allocate(DEFAULT_NODE, LIMIT)?;
    anyhow::ensure!(group.current(DEFAULT)? == LIMIT);
    expect_errno(allocate(DEFAULT, 1), Errno::DQUOT, "the same memory")?;
    drop(allocate(REGION, 1)?);
    Ok(())
}

fn charges_stay_with_the_allocator() -> anyhow::Result<()> {
    let buffer = {
        let group = ControlGroup::enter("ringfence-allocator")?;
        let buffer = allocate(CAMERA, LIMIT)?;
        group.leave()?;
        anyhow::ensure!(group.current(CAMERA)? == LIMIT);
        drop(allocate(CAMERA, LIMIT)?);
        anyhow::ensure!(group.current(CAMERA)? == LIMIT, "another group's buffer");
        let copy = Buffer::from(buffer.as_fd().try_clone_to_owned()?);
        drop(buffer);
        anyhow::ensure!(group.current(CAMERA)? == LIMIT, "a reference is left");
        copy
    };
    // The group's folder is gone, and the charge has somewhere to go all the same.
    anyhow::ensure!(!Path::new("/sys/fs/cgroup/ringfence-allocator").exists());
    drop(buffer);
    Ok(())
}

fn limit_and_fallback() -> anyhow::Result<()> {
    let group = ControlGroup::enter("ringfence-fallback")?;
    group.limit(CAMERA, Some(LIMIT))?;
    let request = Request::new(LIMIT + PAGE).from(CAMERA).or_from(REGION);
    let allocated = Control::open()?.allocate(&request)?;
    anyhow::ensure!(allocated.heap == REGION);
    let why = allocated.refused[0].reason.to_string();
    anyhow::ensure!(why.contains("control group"), "{why}");
    anyhow::ensure!(group.current(CAMERA)? == 0);
    anyhow::ensure!(group.current(REGION)? == LIMIT + PAGE);
    Ok(())
}
