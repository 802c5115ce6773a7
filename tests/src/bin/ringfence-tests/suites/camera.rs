// SPDX-License-Identifier: MIT OR Apache-2.0

//! Carveouts that the CPU may use: as memory, beside devices, in pieces, under a
//! camera's frames, and never with anything stale in them.

use std::collections::VecDeque;
use std::fs;

use anyhow::Context;
use ringfence::buffer::{Access, Buffer, Phase};
use ringfence::control::Control;
use ringfence::request::Request;
use ringfence_tests::guest::dma_buf::{self, SYNC_END, SYNC_READ, SYNC_WRITE};
use ringfence_tests::guest::importer::{Direction, Importer};
use ringfence_tests::guest::mapping::{Mapping, BLOCK};
use ringfence_tests::guest::memory::{self, Outcome, PhysicalRange};
use ringfence_tests::guest::module;
use ringfence_tests::guest::video::{Bars, Capture, View};
use ringfence_tests::guest::{allocation, debug, expect_errno, heap_info};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::getpid;

use super::region::{self, CAMERA, FIRMWARE, SCATTERED, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("heaps_and_buffers_say_who_may_map", who_may_map),
    ("a_mapping_shows_the_buffer", a_mapping_shows_the_buffer),
    ("mappings_are_shared_ones_inside_the_buffer", bad_mappings),
    ("aligned_mappings_are_made_of_blocks", blocks),
    ("a_block_can_be_taken_apart", a_block_taken_apart),
    ("a_mapping_outlives_the_descriptor", mapping_outlives_fd),
    ("a_forked_process_sees_the_same", forked_mappings),
    ("devices_that_see_no_caches_take_turns", turns_with_devices),
    ("parts_can_be_synced", partial_syncs),
    ("drm_devices_import_buffers", drm_imports),
    ("frames_arrive_in_carveout_buffers", frames_by_dma),
    (
        "frames_arrive_in_any_buffer_that_can_be_mapped",
        frames_by_cpu,
    ),
    ("what_a_process_left_is_never_seen", nothing_stale),
    ("fragmentation_does_not_refuse_chunks", chunks_in_fragments),
    ("chunks_are_taken_all_or_none", all_or_none),
    ("a_device_without_iommu_gets_no_scattered_buffer", no_iommu),
    ("errors_of_chunks_leave_nothing_behind", failing_chunks),
];

/// What needs no device's DMA goes on where all of that is forced through bounce
/// buffers.
pub fn bounced() -> &'static [Test] {
    &[
        ("mappings_need_no_dma", a_mapping_shows_the_buffer),
        ("frames_by_the_kernels_mapping_need_none", frames_by_cpu),
    ]
}

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

fn map(buffer: &Buffer, size: u64) -> anyhow::Result<Mapping> {
    let size = usize::try_from(size)?;
    Mapping::new(buffer, size).with_context(|| format!("mmap of {size} bytes"))
}

/// Allocates, and fails unless the buffer is zeros for the CPU.
fn zeroed(heap: &str, size: u64) -> anyhow::Result<(Buffer, Mapping)> {
    let buffer = allocation::allocate_size(&allocation::open(heap)?, size)
        .with_context(|| format!("{size} bytes of {heap}"))?;
    let mapping = map(&buffer, size)?;
    let others = mapping.others_than(0);
    anyhow::ensure!(
        others == 0,
        "{heap}: {others} bytes of a new buffer are not zero"
    );
    Ok((buffer, mapping))
}

fn who_may_map() -> anyhow::Result<()> {
    for (heap, cpu_access, contiguous) in [
        (CAMERA, true, true),
        (SCATTERED, true, false),
        (FIRMWARE, false, true),
        (VIDEO, false, true),
    ] {
        let info = heap_info(heap)?;
        anyhow::ensure!(
            (info.cpu_access, info.contiguous) == (cpu_access, contiguous),
            "{info:?}"
        );
        let buffer = allocation::allocate_size(&allocation::open(heap)?, 3 * MIB)?;
        let info = Control::open()?.buffer(&buffer)?;
        anyhow::ensure!(
            (info.cpu_access, info.contiguous) == (cpu_access, contiguous),
            "{info:?}"
        );
        if !cpu_access {
            let outcome = Mapping::new(&buffer, PAGE as usize).map(drop);
            expect_errno(outcome, Errno::PERM, heap)?;
        }
    }
    // A buffer of one chunk is contiguous whatever its heap promises.
    let one = allocation::allocate_size(&allocation::open(SCATTERED)?, MIB)?;
    anyhow::ensure!(Control::open()?.buffer(&one)?.contiguous);
    anyhow::ensure!(heap_info(SCATTERED)?.alignment == MIB as u32);
    Ok(())
}

/// Fails unless just one page of a range holds something.
fn only_page(range: PhysicalRange, page: u64) -> anyhow::Result<()> {
    for other in 0..range.size / PAGE {
        let expected = if other == page { PAGE } else { 0 };
        match memory::read(range.page(other))? {
            Outcome::Read { nonzero } if nonzero == expected => {}
            seen => anyhow::bail!("page {other}: {seen:?}, not {expected} bytes"),
        }
    }
    Ok(())
}

fn a_mapping_shows_the_buffer() -> anyhow::Result<()> {
    const SIZE: u64 = 16 * PAGE;
    for page in [0, 5, 15] {
        let (buffer, range) = region::allocate(CAMERA, SIZE)?;
        // Device memory, so that what is looked at is what is in memory.
        let mut part = Mapping::part(&buffer, page * PAGE, PAGE as usize, MapFlags::SHARED)?;
        part.fill(0x5a);
        only_page(range, page)?;
        let all = map(&buffer, SIZE)?;
        anyhow::ensure!(all.get((page * PAGE) as usize) == 0x5a5a_5a5a_5a5a_5a5a);
        anyhow::ensure!(all.others_than(0) == PAGE as usize, "other bytes as well");
    }
    Ok(())
}

fn bad_mappings() -> anyhow::Result<()> {
    for heap in [CAMERA, SCATTERED] {
        let buffer = allocation::allocate_size(&allocation::open(heap)?, 4 * PAGE)?;
        let private = Mapping::part(&buffer, 0, PAGE as usize, MapFlags::PRIVATE).map(drop);
        expect_errno(private, Errno::INVAL, "a private mapping")?;
        for (offset, size) in [(4 * PAGE, PAGE), (3 * PAGE, 2 * PAGE), (0, 5 * PAGE)] {
            let outcome = Mapping::part(&buffer, offset, size as usize, MapFlags::SHARED).map(drop);
            expect_errno(outcome, Errno::INVAL, "a mapping beyond the end")?;
        }
        dma_buf::map(&buffer, 4096, 0, ProtFlags::READ, MapFlags::SHARED)?;
    }
    // A buffer that is shorter than its range ends where it was asked to.
    let buffer = allocation::allocate_size(&allocation::open(SCATTERED)?, 3 * PAGE)?;
    let outcome = Mapping::new(&buffer, 4 * PAGE as usize).map(drop);
    expect_errno(outcome, Errno::INVAL, "more than was asked for")
}

/// KiB of page tables that this process has.
fn page_tables() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("VmPTE:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .context("no VmPTE")
}

/// Faults that this process has had without waiting for a disk.
fn minor_faults() -> anyhow::Result<i64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, behind_name) = text.rsplit_once(") ").context("no name")?;
    let field = behind_name.split(' ').nth(7).context("no minflt")?;
    Ok(field.parse()?)
}

/// Touches all of a mapping; answers how many faults that took, and KiB of tables.
fn touched(mapping: &Mapping) -> anyhow::Result<(i64, u64)> {
    let tables = page_tables()?;
    let faults = minor_faults()?;
    mapping.touch();
    let faults = minor_faults()? - faults;
    Ok((faults, page_tables()?.saturating_sub(tables)))
}

fn blocks() -> anyhow::Result<()> {
    const SIZE: u64 = 32 * MIB;
    const BLOCKS: i64 = SIZE as i64 / BLOCK as i64;
    let control = Control::open()?;
    let request = Request::new(SIZE).from(CAMERA).aligned_to(BLOCK as u64);
    let buffer = control.allocate(&request)?.buffer;
    let aligned = Mapping::beside_block(&buffer, SIZE as usize, 0)?;
    let (faults, tables) = touched(&aligned)?;
    anyhow::ensure!(
        (BLOCKS..BLOCKS + 4).contains(&faults) && tables <= 8,
        "aligned: {faults} faults, {tables} KiB of page tables"
    );
    let shifted = Mapping::beside_block(&buffer, SIZE as usize, PAGE as usize)?;
    let (faults, tables) = touched(&shifted)?;
    anyhow::ensure!(
        (BLOCKS..BLOCKS + 8).contains(&faults) && tables >= 4 * BLOCKS as u64,
        "shifted: {faults} faults, {tables} KiB of page tables"
    );
    for offset in (0..SIZE as usize).step_by(BLOCK / 2) {
        aligned.set(offset + 8, offset as u64 | 1);
    }
    for offset in (0..SIZE as usize).step_by(BLOCK / 2) {
        anyhow::ensure!(shifted.get(offset + 8) == offset as u64 | 1, "{offset:#x}");
    }
    Ok(())
}

fn a_block_taken_apart() -> anyhow::Result<()> {
    const SIZE: usize = 2 * BLOCK;
    let request = Request::new(SIZE as u64)
        .from(CAMERA)
        .aligned_to(BLOCK as u64);
    let buffer = Control::open()?.allocate(&request)?.buffer;
    let mut mapping = Mapping::beside_block(&buffer, SIZE, 0)?;
    for offset in (0..SIZE).step_by(4096) {
        mapping.set(offset, offset as u64 + 1);
    }
    let hole = mapping.punch(BLOCK / 2)?;
    let seen = (0..SIZE)
        .step_by(4096)
        .filter_map(|offset| Some((offset, hole.get(offset)?)))
        .inspect(|(offset, word)| assert_eq!(*word, *offset as u64 + 1))
        .count();
    anyhow::ensure!(seen == SIZE / 4096 - 1, "{seen} pages");
    Ok(())
}

fn mapping_outlives_fd() -> anyhow::Result<()> {
    let before = heap_info(CAMERA)?;
    let (buffer, range) = region::allocate(CAMERA, 4 * MIB)?;
    let mut mapping = map(&buffer, range.size)?;
    drop(buffer);
    anyhow::ensure!(heap_info(CAMERA)?.buffers == before.buffers + 1);
    mapping.fill(0x77);
    anyhow::ensure!(mapping.others_than(0x77) == 0);
    drop(mapping);
    anyhow::ensure!(heap_info(CAMERA)? == before);
    Ok(())
}

fn forked_mappings() -> anyhow::Result<()> {
    // A process that is started is a fork of this one until it has another program; what happens
    // to a mapping of blocks in that is that it is copied and torn down.
    let request = Request::new(4 * MIB).from(CAMERA).aligned_to(BLOCK as u64);
    let buffer = Control::open()?.allocate(&request)?.buffer;
    let mut mapping = Mapping::beside_block(&buffer, 4 << 20, 0)?;
    mapping.fill(0x33);
    for _ in 0..3 {
        let status = std::process::Command::new("true").status()?;
        anyhow::ensure!(status.success());
        anyhow::ensure!(mapping.others_than(0x33) == 0);
        mapping.fill(0x33);
    }
    Ok(())
}

fn turns_with_devices() -> anyhow::Result<()> {
    let importer = Importer::open()?;
    let (buffer, mut mapping) = zeroed(CAMERA, 8 * MIB)?;
    importer.measure(&buffer)?;
    for direction in [Direction::Both, Direction::ToDevice, Direction::FromDevice] {
        let entries = importer.map(&buffer, direction)?;
        anyhow::ensure!(entries == 1, "{entries} entries");
        for access in [SYNC_READ, SYNC_WRITE, SYNC_READ | SYNC_WRITE] {
            dma_buf::sync(&buffer, access)?;
            mapping.fill(0x11);
            anyhow::ensure!(mapping.others_than(0x11) == 0);
            dma_buf::sync(&buffer, access | SYNC_END)?;
        }
        importer.release()?;
    }
    // Attached and not mapped, and mapped by the kernel meanwhile.
    importer.attach(&buffer)?;
    Importer::open()?.measure(&buffer)?;
    dma_buf::sync(&buffer, SYNC_READ)?;
    dma_buf::sync(&buffer, SYNC_READ | SYNC_END)?;
    importer.release()?;
    anyhow::ensure!(mapping.others_than(0x11) == 0, "somebody wrote");
    Ok(())
}

fn partial_syncs() -> anyhow::Result<()> {
    let importer = Importer::open()?;
    let control = Control::open()?;
    let (buffer, _mapping) = zeroed(CAMERA, 2 * MIB)?;
    importer.map(&buffer, Direction::Both)?;
    for part in [0..2 * MIB, PAGE..2 * PAGE, 100..128, 2 * MIB - 1..2 * MIB] {
        for phase in [Phase::Start, Phase::End] {
            control.sync(&buffer, Access::ReadWrite, phase, part.clone())?;
        }
    }
    for part in [
        0..0,
        0..2 * MIB + 1,
        2 * MIB..2 * MIB + 1,
        u64::MAX - 1..u64::MAX,
    ] {
        let outcome = control.sync(&buffer, Access::Read, Phase::Start, part.clone());
        anyhow::ensure!(outcome.is_err(), "{part:?}");
    }
    importer.release()?;
    Ok(())
}

fn drm_imports() -> anyhow::Result<()> {
    for driver in ["vgem", "vkms"] {
        module::load(driver)?;
        let importer = dma_buf::Importer::of(driver)?;
        let before = heap_info(CAMERA)?;
        let (buffer, mut mapping) = zeroed(CAMERA, 8 * MIB)?;
        mapping.fill(0x44);
        let imported = importer
            .import(&buffer)
            .with_context(|| format!("{driver} imports"))?;
        drop(buffer);
        anyhow::ensure!(heap_info(CAMERA)?.buffers == before.buffers + 1);
        anyhow::ensure!(
            mapping.others_than(0x44) == 0,
            "{driver} changes the buffer"
        );
        drop(mapping);
        importer.close(imported)?;
        anyhow::ensure!(heap_info(CAMERA)? == before, "{driver} keeps the buffer");
    }
    Ok(())
}

/// Has a camera draw `count` frames into buffers of a heap, and looks at each.
fn frames(heap: &str, view: View, count: u32) -> anyhow::Result<()> {
    const PLACES: u32 = 4;
    let (camera, geometry) = Capture::stream(view, 640, 480, PLACES)?;
    let size = geometry.size().next_multiple_of(PAGE);
    let mut buffers = Vec::new();
    for place in 0..PLACES {
        let (buffer, mut mapping) = zeroed(heap, size)?;
        mapping.fill(0xee);
        camera
            .queue_at(place, &buffer)
            .with_context(|| format!("{heap}: queue"))?;
        buffers.push((buffer, mapping));
    }
    camera.start()?;
    let mut bars = Bars::new(geometry);
    let mut last = None;
    for number in 0..count {
        let frame = camera.dequeue()?;
        // vivid numbers frames by the clock, and two by the same number when it was kept waiting.
        anyhow::ensure!(last <= Some(frame.sequence), "{frame:?} after {last:?}");
        last = Some(frame.sequence);
        anyhow::ensure!(u64::from(frame.size) == geometry.size(), "{frame:?}");
        let (buffer, mapping) = buffers
            .get_mut(frame.place as usize)
            .with_context(|| format!("{frame:?}"))?;
        dma_buf::sync(&*buffer, SYNC_READ | SYNC_WRITE)?;
        bars.check(mapping)
            .with_context(|| format!("{heap}, frame {number}"))?;
        // The next frame must not find this one here.
        mapping.fill(0xee);
        dma_buf::sync(&*buffer, SYNC_READ | SYNC_WRITE | SYNC_END)?;
        camera.queue_at(frame.place, buffer)?;
    }
    camera.stop()?;
    Ok(())
}

fn frames_by_dma() -> anyhow::Result<()> {
    frames(CAMERA, View::Dma, 8)
}

fn frames_by_cpu() -> anyhow::Result<()> {
    for heap in [CAMERA, SCATTERED, "system"] {
        frames(heap, View::Kernel, 5)?;
    }
    Ok(())
}

fn nothing_stale() -> anyhow::Result<()> {
    let size = heap_info(CAMERA)?.size;
    let importer = Importer::open()?;
    let mut live = VecDeque::new();
    let mut number = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    // Twenty fill the heap nearly twice.
    for round in 0..debug::tries(40).max(20) {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let wanted = PAGE * (1 + (number >> 33) % (size / 6 / PAGE));
        while heap_info(CAMERA)?.largest_free < wanted {
            drop(live.pop_front());
        }
        // Ready before the scrubber is: what was just given back is handed out again.
        let (buffer, mut mapping) = zeroed(CAMERA, wanted)?;
        mapping.fill(0xa5);
        if round % 3 == 0 {
            importer.measure(&buffer)?;
        }
        anyhow::ensure!(mapping.others_than(0xa5) == 0);
        live.push_back((buffer, mapping));
    }
    Ok(())
}

/// Fills the heap with buffers of one chunk and frees every other one.
fn fragmented() -> anyhow::Result<Vec<Buffer>> {
    let heap = allocation::open(SCATTERED)?;
    let count = heap_info(SCATTERED)?.free / MIB;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(allocation::allocate_size(&heap, MIB)?);
    }
    expect_errno(
        allocation::allocate_size(&heap, PAGE),
        Errno::NOMEM,
        "a page of a full heap",
    )?;
    let mut index = 0;
    all.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    Ok(all)
}

fn chunks_in_fragments() -> anyhow::Result<()> {
    let before = heap_info(SCATTERED)?;
    let kept = fragmented()?;
    let info = heap_info(SCATTERED)?;
    anyhow::ensure!(
        info.largest_free == MIB && info.free == before.free / 2,
        "{info:?}"
    );
    let (buffer, mapping) = zeroed(SCATTERED, info.free)?;
    anyhow::ensure!(heap_info(SCATTERED)?.buffers as usize == kept.len() + 1);
    for offset in (0..mapping.size()).step_by(4096) {
        mapping.set(offset, offset as u64 + 1);
    }
    let other = map(&buffer, info.free)?;
    for offset in (0..mapping.size()).step_by(4096) {
        anyhow::ensure!(other.get(offset) == offset as u64 + 1, "{offset:#x}");
    }
    // No two chunks are the same memory.
    let ranges = debug::ranges(SCATTERED)?;
    anyhow::ensure!(ranges
        .windows(2)
        .all(|pair| pair[0].range.end() <= pair[1].range.start));
    anyhow::ensure!(
        ranges.len() as u64 == before.size / MIB,
        "{} ranges",
        ranges.len()
    );
    drop((mapping, other, buffer));
    drop(zeroed(SCATTERED, info.free)?);
    drop(kept);
    anyhow::ensure!(heap_info(SCATTERED)? == before);
    Ok(())
}

fn all_or_none() -> anyhow::Result<()> {
    let heap = allocation::open(SCATTERED)?;
    let kept = fragmented()?;
    let before = heap_info(SCATTERED)?;
    for size in [before.free + PAGE, before.size, before.size + PAGE, 1 << 40] {
        let outcome = allocation::allocate_size(&heap, size);
        expect_errno(outcome, Errno::NOMEM, "more than there is")?;
        let after = heap_info(SCATTERED)?;
        anyhow::ensure!(
            (after.free, after.buffers) == (before.free, before.buffers),
            "{after:?}, not {before:?}"
        );
    }
    drop(kept);
    // What no chunk can be aligned to is refused, not rounded down.
    let request = Request::new(MIB).from(SCATTERED).aligned_to(2 * MIB);
    anyhow::ensure!(Control::open()?.allocate(&request).is_err());
    Ok(())
}

fn no_iommu() -> anyhow::Result<()> {
    let heap = allocation::open(SCATTERED)?;
    let importer = Importer::open()?;
    let one = allocation::allocate_size(&heap, MIB)?;
    anyhow::ensure!(importer.map(&one, Direction::Both)? == 1);
    importer.release()?;
    let several = allocation::allocate_size(&heap, MIB + PAGE)?;
    let outcome = importer.map(&several, Direction::Both).map(drop);
    expect_errno(outcome, Errno::OPNOTSUPP, "a scattered buffer")?;
    module::load("vgem")?;
    let vgem = dma_buf::Importer::open()?;
    expect_errno(vgem.import(&several), Errno::OPNOTSUPP, "vgem")
}

fn failing_chunks() -> anyhow::Result<()> {
    let heap = allocation::open(SCATTERED)?;
    let before = heap_info(SCATTERED)?;
    for (point, errno) in [
        ("range", Errno::NOMEM),
        ("record", Errno::NOMEM),
        ("export", Errno::NOMEM),
    ] {
        // In the middle of the chunks, where there is one.
        let nth = if point == "export" { 1 } else { 5 };
        let armed = debug::arm(point, nth)?;
        let outcome = allocation::allocate_size(&heap, 8 * MIB);
        expect_errno(outcome, errno, point)?;
        drop(armed);
        let after = heap_info(SCATTERED)?;
        anyhow::ensure!(
            (after.free, after.buffers) == (before.free, before.buffers),
            "{point}: {after:?}, not {before:?}"
        );
        anyhow::ensure!(
            debug::ranges(SCATTERED)?.is_empty(),
            "{point}: a range is left"
        );
    }
    Ok(())
}
