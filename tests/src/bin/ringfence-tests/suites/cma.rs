// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heaps on areas of the contiguous memory allocator.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::buffer::{Access, Buffer, Phase};
use ringfence::control::Control;
use ringfence::request::Request;
use ringfence_tests::guest::fault::{self, AnyAllocation};
use ringfence_tests::guest::importer::{Direction, Importer};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::module::{self, CMA};
use ringfence_tests::guest::{
    allocation, coherence, deadline, debug, dma_buf, expect_errno, heap_info, open_files,
};
use rustix::io::Errno;

use super::region::{CAMERA, FIRMWARE, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("every_area_has_a_heap", every_area_has_a_heap),
    ("buffers_are_zeroed_each_time", zeroed_each_time),
    (
        "buffers_are_contiguous_and_aligned_by_size",
        contiguous_and_aligned,
    ),
    ("alignment_can_be_asked_for", alignment_can_be_asked_for),
    ("sizes_that_can_not_be_are_refused", sizes_that_can_not_be),
    ("a_full_heap_is_whole_again_after_close", full_heap),
    ("failures_leave_no_trace", failures_leave_no_trace),
    ("a_killed_allocation_leaves_no_trace", killed_allocation),
    ("older_names_can_be_asked_for", older_names),
    ("a_part_can_be_synced", partial_sync),
    ("syncs_that_can_not_be_are_refused", bad_syncs),
    (
        "the_sync_of_a_part_costs_the_same_in_any_buffer",
        partial_sync_costs_the_same,
    ),
];

/// The tests that only a kernel can run that fails allocations on request. What the others have
/// instead is in [`failures_leave_no_trace`].
pub fn on_this_kernel() -> &'static [Test] {
    match fault::is_possible() {
        true => &[(
            "memory_that_runs_out_at_any_place_leaves_no_trace",
            memory_runs_out,
        )],
        false => &[],
    }
}

/// The heap on the area of all devices that have none of their own.
pub const DEFAULT: &str = "default_cma_region";
/// The same area by the name of its node in the devicetree.
pub const DEFAULT_NODE: &str = "default-pool@98000000";
/// Another area.
pub const REGION: &str = "isp@94000000";

const HEAPS: [&str; 3] = [DEFAULT, DEFAULT_NODE, REGION];
const AREA: u64 = 64 << 20;
const PAGE: u64 = 4096;

fn allocate(heap: &str, size: u64) -> Result<Buffer, Errno> {
    let device = allocation::open(heap).map_err(|_| Errno::NOENT)?;
    allocation::allocate_size(&device, size)
}

fn every_area_has_a_heap() -> anyhow::Result<()> {
    for heap in HEAPS {
        let info = heap_info(heap)?;
        anyhow::ensure!(
            info.online && info.contiguous && info.cpu_access,
            "{info:?}"
        );
        anyhow::ensure!(
            !info.protected && !info.top_down && !info.no_wait,
            "{info:?}"
        );
        anyhow::ensure!(info.size == AREA, "{info:?}");
        // Linux's drivers take from the default area, but not much.
        anyhow::ensure!(info.free > AREA / 2 && info.free <= AREA, "{info:?}");
        anyhow::ensure!(
            info.largest_free <= info.free && info.largest_free > 0,
            "{info:?}"
        );
        let buffer = allocate(heap, 8 << 20)?;
        let during = heap_info(heap)?;
        anyhow::ensure!(
            during.free <= info.free - (8 << 20),
            "{during:?}, was {info:?}"
        );
        let said = Control::open()?.buffer(&buffer)?;
        anyhow::ensure!(
            said.heap == heap && said.contiguous && said.cpu_access,
            "{said:?}"
        );
    }
    Ok(())
}

fn zeroed_each_time() -> anyhow::Result<()> {
    for heap in HEAPS {
        for size in [PAGE, 5 * PAGE, 3 << 20] {
            for _ in 0..2 {
                let buffer = allocate(heap, size)?;
                let mut mapping = Mapping::new(&buffer, size as usize)?;
                let others = mapping.others_than(0);
                anyhow::ensure!(others == 0, "{others} bytes of {size} in {heap} are not 0");
                mapping.fill(0xa5);
                // The memory is the buffer's, not the mapping's.
                drop(mapping);
                let mapping = Mapping::new(&buffer, size as usize)?;
                anyhow::ensure!(mapping.others_than(0xa5) == 0, "{heap} forgets");
            }
        }
    }
    Ok(())
}

/// Where the youngest buffer of a heap begins.
fn start(heap: &str) -> anyhow::Result<u64> {
    let lines = debug::buffers(heap)?;
    let line = lines.last().context("no buffers")?;
    line.start.with_context(|| format!("{line:?}"))
}

fn contiguous_and_aligned() -> anyhow::Result<()> {
    for heap in HEAPS {
        let _first = allocate(heap, PAGE)?;
        for pages in [1, 2, 3, 16, 100, 256, 300, 1024] {
            let size = pages * PAGE;
            let buffer = allocate(heap, size)?;
            // A device sees it in one piece.
            let importer = Importer::open()?;
            let pieces = importer.map(&buffer, Direction::Both)?;
            anyhow::ensure!(pieces == 1, "{heap}: {pages} pages in {pieces} pieces");
            let start = start(heap)?;
            // Up to 2^8 pages, for which the kernel is configured.
            let alignment = pages.next_power_of_two().min(256) * PAGE;
            anyhow::ensure!(
                start % alignment == 0,
                "{heap}: {pages} pages at {start:#x} are not aligned to {alignment:#x}"
            );
        }
    }
    Ok(())
}

fn alignment_can_be_asked_for() -> anyhow::Result<()> {
    let control = Control::open()?;
    let _first = allocate(REGION, PAGE)?;
    for shift in 0..=25 {
        let alignment = 1 << shift;
        let request = Request::new(PAGE)
            .from(REGION)
            .aligned_to(alignment)
            .contiguous();
        let _buffer = control.allocate(&request)?;
        let start = start(REGION)?;
        anyhow::ensure!(
            start % alignment.max(PAGE) == 0,
            "{start:#x} is not aligned to {alignment:#x}"
        );
    }
    for request in [
        Request::new(PAGE).from(REGION).top_down(),
        Request::new(PAGE).from(REGION).no_wait(),
        Request::new(PAGE).from(REGION).protected(),
        Request::new(PAGE).from(REGION).aligned_to(1 << 31),
    ] {
        let said = control.allocate(&request).map(drop);
        let said = said.err().context("it worked")?.to_string();
        anyhow::ensure!(said.contains("can't do what is asked for"), "{said}");
    }
    Ok(())
}

fn sizes_that_can_not_be() -> anyhow::Result<()> {
    for heap in HEAPS {
        for (size, errno) in [
            (0, Errno::INVAL),
            (u64::MAX, Errno::INVAL),
            (u64::MAX - PAGE + 1, Errno::NOMEM),
            (1 << 63, Errno::NOMEM),
            (AREA + 1, Errno::NOMEM),
        ] {
            expect_errno(allocate(heap, size), errno, &format!("{size:#x} of {heap}"))?;
        }
    }
    Ok(())
}

fn full_heap() -> anyhow::Result<()> {
    // The other area is used by Linux's drivers, too.
    let mut buffers = Vec::new();
    for _ in 0..16 {
        buffers.push(allocate(REGION, AREA / 16)?);
    }
    let info = heap_info(REGION)?;
    anyhow::ensure!(info.free == 0 && info.largest_free == 0, "{info:?}");
    anyhow::ensure!(info.used == AREA && info.buffers == 16, "{info:?}");
    expect_errno(allocate(REGION, 1), Errno::NOMEM, "a full heap")?;
    buffers.remove(5);
    let info = heap_info(REGION)?;
    anyhow::ensure!(
        info.free == AREA / 16 && info.largest_free == AREA / 16,
        "{info:?}"
    );
    drop(buffers);
    drop(allocate(REGION, AREA)?);
    Ok(())
}

/// Fails unless a heap has all its memory, and this process no file more.
fn expect_whole(heap: &str, what: &str) -> anyhow::Result<()> {
    let info = heap_info(heap)?;
    anyhow::ensure!(
        info.free == AREA && info.used == 0 && info.buffers == 0,
        "{what}: {info:?}"
    );
    Ok(())
}

fn failures_leave_no_trace() -> anyhow::Result<()> {
    let device = allocation::open(REGION)?;
    for point in ["range", "export"] {
        let _armed = debug::arm(point, 1)?;
        expect_errno(
            allocation::allocate_size(&device, 5 << 20),
            Errno::NOMEM,
            point,
        )?;
        expect_whole(REGION, point)?;
    }
    let buffer = allocate(REGION, 1 << 20)?;
    {
        let _armed = debug::arm("map", 1)?;
        anyhow::ensure!(coherence::map(&buffer).is_err(), "the map did not fail");
    }
    drop(coherence::map(&buffer)?);
    drop(buffer);
    let limit = open_files::Limit::set(0)?;
    let outcome = allocation::allocate_size(&device, 5 << 20);
    drop(limit);
    expect_errno(outcome, Errno::MFILE, "no free fd")?;
    expect_whole(REGION, "no free fd")
}

fn memory_runs_out() -> anyhow::Result<()> {
    let failing = AnyAllocation::new()?;
    let control = Control::open()?;
    let device = allocation::open(REGION)?;
    let request = Request::new(5 * PAGE).from(REGION);
    let mut reached = 0;
    for nth in 1.. {
        let mut outcomes = Vec::with_capacity(8);
        let ((), failed) = failing.with_nth(nth, || {
            // Both ways, with what a client does with the buffer.
            for way in 0..2 {
                let buffer = match way {
                    0 => allocation::allocate_size(&device, 5 * PAGE).ok(),
                    _ => control
                        .allocate(&request)
                        .ok()
                        .map(|allocated| allocated.buffer),
                };
                if let Some(buffer) = &buffer {
                    outcomes.push(Mapping::new(buffer, 4096).is_ok());
                    outcomes.push(dma_buf::sync(buffer, dma_buf::SYNC_READ).is_ok());
                }
                outcomes.push(buffer.is_some());
            }
        })?;
        expect_whole(REGION, &format!("failure {nth}: {outcomes:?}"))?;
        if !failed {
            break;
        }
        reached = nth;
    }
    anyhow::ensure!(reached >= 4, "only {reached} allocations of memory");
    Ok(())
}

/// What a killed process was doing: allocating, with what this test passes on.
pub fn allocate_for_ever(heap: &str, size: &str) -> anyhow::Result<()> {
    let (device, size) = (allocation::open(heap)?, size.parse()?);
    loop {
        drop(allocation::allocate_size(&device, size)?);
    }
}

fn killed_allocation() -> anyhow::Result<()> {
    for round in 0..8 {
        let mut child = Command::new("/proc/self/exe")
            .args([super::ALLOCATE_FOR_EVER, REGION, &(AREA / 2).to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        let begun = heap_info(REGION)?;
        deadline::until(Duration::from_secs(10), "the child allocates", || {
            Ok((heap_info(REGION)?.free < begun.size).then_some(()))
        })?;
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill()?;
        let status = child.wait()?;
        anyhow::ensure!(status.signal() == Some(9), "{status}");
        expect_whole(REGION, "after the kill")?;
    }
    Ok(())
}

fn older_names() -> anyhow::Result<()> {
    const OLDER: [&str; 2] = ["linux,cma", "reserved"];
    reload(&["linux_cma=1", "reserved=1"])?;
    for heap in OLDER {
        let info = heap_info(heap)?;
        anyhow::ensure!(info.online && info.size == AREA, "{info:?}");
        let buffer = allocate(heap, 1 << 20)?;
        anyhow::ensure!(Control::open()?.buffer(&buffer)?.heap == heap);
    }
    reload(&[])?;
    for heap in OLDER {
        expect_errno(allocate(heap, PAGE), Errno::NODEV, heap)?;
    }
    drop(allocate(DEFAULT, PAGE)?);
    Ok(())
}

fn reload(parameters: &[&str]) -> anyhow::Result<()> {
    deadline::until(Duration::from_secs(10), "rmmod", || {
        module::unload(CMA).map(Some).map_err(Into::into)
    })?;
    module::load_with(CMA, parameters)
}

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::ReadWrite];

fn partial_sync() -> anyhow::Result<()> {
    let control = Control::open()?;
    const SIZE: u64 = 3 << 20;
    for heap in [REGION, "system"] {
        let buffer = allocate(heap, SIZE)?;
        for device in [None, Some(coherence::map(&buffer)?)] {
            for access in ACCESSES {
                for range in [0..1, 0..SIZE, 1..2, 4095..4097, SIZE - 1..SIZE, PAGE..SIZE] {
                    control.sync(&buffer, access, Phase::Start, range.clone())?;
                    control.sync(&buffer, access, Phase::End, range)?;
                }
            }
            drop(device);
        }
    }
    Ok(())
}

fn bad_syncs() -> anyhow::Result<()> {
    let control = fs::File::open(ringfence::uapi::CONTROL_PATH)?;
    let ask = |fd: i32, flags: u32, offset: u64, length: u64| {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&fd.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..16].copy_from_slice(&offset.to_ne_bytes());
        bytes[16..].copy_from_slice(&length.to_ne_bytes());
        allocation::ioctl_sized(&control, ringfence::uapi::MAGIC, 3, &mut bytes)
    };
    use std::os::fd::{AsFd, AsRawFd};
    const SIZE: u64 = 1 << 20;
    for heap in [REGION, CAMERA] {
        let buffer = allocate(heap, SIZE)?;
        let fd = buffer.as_fd().as_raw_fd();
        ask(fd, 1, 0, SIZE)?;
        for (offset, length) in [
            (0, 0),
            (SIZE - 1, 0),
            (0, SIZE + 1),
            (SIZE, 1),
            (1, SIZE),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (1, u64::MAX),
            (PAGE, u64::MAX - PAGE + 1),
            (1 << 63, 1 << 63),
        ] {
            let what = format!("{length:#x} bytes at {offset:#x}");
            expect_errno(ask(fd, 1, offset, length), Errno::INVAL, &what)?;
        }
        for flags in [0, 4, 8, 9, 1 << 31, u32::MAX] {
            expect_errno(
                ask(fd, flags, 0, PAGE),
                Errno::INVAL,
                &format!("flags {flags:#x}"),
            )?;
        }
    }
    expect_errno(ask(-1, 1, 0, PAGE), Errno::BADF, "no file")?;
    expect_errno(
        ask(control.as_raw_fd(), 1, 0, PAGE),
        Errno::INVAL,
        "no dma-buf",
    )?;
    let foreign = dma_buf::foreign(SIZE)?;
    expect_errno(
        ask(foreign.as_raw_fd(), 1, 0, PAGE),
        Errno::INVAL,
        "a foreign one",
    )?;
    for (heap, errno) in [(VIDEO, Errno::ACCESS), (FIRMWARE, Errno::PERM)] {
        let buffer = allocate(heap, SIZE)?;
        expect_errno(ask(buffer.as_fd().as_raw_fd(), 1, 0, PAGE), errno, heap)?;
    }
    Ok(())
}

/// How long the CPU's access to `length` bytes takes to begin and end: the least of
/// many times, for a machine that does other things as well.
fn time_of_sync(
    control: &Control,
    buffer: &Buffer,
    length: u64,
    rounds: u32,
) -> anyhow::Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..rounds {
        let begun = Instant::now();
        control.sync(buffer, Access::ReadWrite, Phase::Start, PAGE..PAGE + length)?;
        control.sync(buffer, Access::ReadWrite, Phase::End, PAGE..PAGE + length)?;
        least = least.min(begun.elapsed());
    }
    Ok(least)
}

fn partial_sync_costs_the_same() -> anyhow::Result<()> {
    let control = Control::open()?;
    for heap in [REGION, "system"] {
        let mut times = Vec::new();
        for size in [1 << 20, AREA] {
            let buffer = allocate(heap, size)?;
            let _device = coherence::map(&buffer)?;
            times.push((
                time_of_sync(&control, &buffer, PAGE, 200)?,
                time_of_sync(&control, &buffer, size - PAGE, 3)?,
            ));
        }
        let [(small, all_of_small), (large, all_of_large)] = times[..] else {
            anyhow::bail!("not two sizes");
        };
        println!(
            "{heap}: 4 KiB of 1 MiB {small:?} (all: {all_of_small:?}), \
             4 KiB of 64 MiB {large:?} (all: {all_of_large:?})"
        );
        anyhow::ensure!(
            large < small * 2,
            "{heap}: a page takes {small:?} in 1 MiB and {large:?} in 64 MiB"
        );
        // 16,383 times as many lines of the cache.
        anyhow::ensure!(
            all_of_large > large * 20,
            "{heap}: all takes {all_of_large:?}, a page {large:?}: nothing is synced"
        );
    }
    Ok(())
}
