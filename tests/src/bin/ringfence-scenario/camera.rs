// SPDX-License-Identifier: MIT OR Apache-2.0

//! The camera's scenario: a machine starts, and a camera wants more memory at once
//! than its carveout has.
//!
//! It runs before anything else is loaded. Times are those of the guest's clock; on
//! an emulated machine they say how the parts compare, and no more.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::fallback::{Allocator, Policy, Property};
use ringfence::heap::{Heap, HeapInfo};
use ringfence_tests::guest::dma_buf::{self, SYNC_END, SYNC_READ, SYNC_WRITE};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::memory::{self, PhysicalRange};
use ringfence_tests::guest::video::{Bars, Capture, Geometry, View};
use ringfence_tests::guest::{deadline, debug, heap_info, module};

use crate::report::{mib, Report};

/// The heap that is wanted.
const WANTED: &str = "camera";
/// The heap to go on with.
const FALLBACK: &str = "system";
/// Buffers that the camera wants, and bytes of each.
const BUFFERS: usize = 8;
const SIZE: u64 = 32 << 20;
/// Pixels of a frame: RGB of 24 bits in a buffer of its own.
pub const FRAME: (u32, u32) = (3840, 2160);
/// Frames that each buffer takes.
const ROUNDS: u32 = 2;
/// What is in a buffer before a frame is.
const UNTOUCHED: u8 = 0xee;
/// How long things that come by and by may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A buffer of the camera.
struct Place {
    buffer: Buffer,
    heap: String,
    refused: Vec<String>,
    took: Duration,
}

/// Plays the scenario with frames of so many pixels. An error means that it could not be played to its end; what
/// was seen otherwise is in the report.
pub fn play(frame: (u32, u32)) -> anyhow::Result<Report> {
    let mut report = Report::new("A camera starts with the machine");

    report.part("From the modules' load to the last buffer");
    let start = Instant::now();
    // QEMU's memory is zeros when it is switched on, as firmware would leave it.
    for (name, parameters) in [
        ("ringfence_core", &[][..]),
        ("ringfence_carveout", &["trust_cleared=1"]),
        ("ringfence_system", &[]),
    ] {
        module::load_with(name, parameters)?;
    }
    let loaded = start.elapsed();
    deadline::until(PATIENCE, "the heaps come up", || {
        Heap::open(FALLBACK)?;
        Ok(heap_info(WANTED)?.online.then_some(()))
    })?;
    let before = heap_info(WANTED)?;
    let places = allocate(&mut report)?;
    let done = start.elapsed();
    let uptime = uptime()?;
    report.say("loading the modules", show(loaded));
    report.say("load to the last buffer", show(done));
    report.say(
        "the kernel's start to that",
        format!("{uptime:.2} s, all by the guest's clock under emulation"),
    );
    report.promise("what they are", judge(&places, &before));
    report.promise("what they hold", empty(&places));

    report.part(format!(
        "Frames of {} x {}, drawn by V4L2's vivid into these buffers",
        frame.0, frame.1
    ));
    for (heap, view, how) in [
        (WANTED, View::Dma, "through DMA"),
        (FALLBACK, View::Kernel, "through the kernel's mapping"),
    ] {
        report.promise(
            &format!("{heap}, {how}"),
            stream(&places, heap, view, frame),
        );
    }

    report.part("After close()");
    drop(places);
    report.promise("heap", all_back(&before));
    report.promise("memory", all_zero());
    Ok(report)
}

fn show(took: Duration) -> String {
    match took.as_micros() {
        micros @ ..10_000 => format!("{micros} us"),
        micros => format!("{} ms", micros / 1000),
    }
}

fn uptime() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split(' ').next().context("no uptime")?;
    Ok(seconds.parse()?)
}

fn allocate(report: &mut Report) -> anyhow::Result<Vec<Place>> {
    let policy = Policy::new([WANTED, FALLBACK], [Property::CpuAccess])?;
    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let allocator = Allocator::new(&policy)?.on_fallback(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut places = Vec::new();
    for _ in 0..BUFFERS {
        let start = Instant::now();
        let allocation = allocator.allocate(SIZE)?;
        places.push(Place {
            took: start.elapsed(),
            buffer: allocation.buffer,
            heap: allocation.heap,
            refused: allocation.refused.iter().map(ToString::to_string).collect(),
        });
    }
    // After the last one, so that no writing is in the figures.
    for (number, place) in (1..).zip(&places) {
        report.say(
            &format!("buffer {number}"),
            format!(
                "{} of {:8} {:>8}{}",
                mib(SIZE),
                place.heap,
                show(place.took),
                place
                    .refused
                    .iter()
                    .map(|refused| format!("   ({refused})"))
                    .collect::<String>(),
            ),
        );
    }
    let metrics = allocator.metrics();
    let outcome = if metrics.fallbacks == told.load(Ordering::Relaxed)
        && metrics.failures == 0
        && metrics.fallbacks
            == places
                .iter()
                .filter(|place| !place.refused.is_empty())
                .count() as u64
    {
        Ok(format!(
            "{} buffers fell back, each with its reason, to the callback and in the metrics",
            metrics.fallbacks
        ))
    } else {
        Err(anyhow::anyhow!("{metrics:?}"))
    };
    report.promise("the fallback is told", outcome);
    Ok(places)
}

/// As many from the carveout as fit, the rest from the other heap.
fn judge(places: &[Place], before: &HeapInfo) -> anyhow::Result<String> {
    let control = Control::open()?;
    let fit = usize::try_from(before.free / SIZE)?;
    for (index, place) in places.iter().enumerate() {
        let expected = if index < fit { WANTED } else { FALLBACK };
        let info = control.buffer(&place.buffer)?;
        anyhow::ensure!(
            place.heap == expected && info.heap == expected,
            "buffer {}: {info:?}, not of {expected}",
            index + 1
        );
        anyhow::ensure!(info.size == SIZE && info.cpu_access, "{info:?}");
        anyhow::ensure!(info.contiguous || expected == FALLBACK, "{info:?}");
    }
    Ok(format!(
        "{fit} contiguous ones of {WANTED}, which has {}; {} of {FALLBACK}; the CPU may map all",
        mib(before.size),
        places.len() - fit
    ))
}

fn map(place: &Place) -> anyhow::Result<Mapping> {
    let mapping = Mapping::new(&place.buffer, usize::try_from(SIZE)?);
    mapping.with_context(|| format!("mmap of a buffer of {}", place.heap))
}

fn empty(places: &[Place]) -> anyhow::Result<String> {
    for (number, place) in (1..).zip(places) {
        let others = map(place)?.others_than(0);
        anyhow::ensure!(others == 0, "buffer {number}: {others} bytes are not zero");
    }
    Ok(format!(
        "zeros, all {} of them",
        mib(SIZE * places.len() as u64)
    ))
}

/// Has frames drawn into the buffers of one heap, and compares each to the last byte.
fn stream(
    places: &[Place],
    heap: &str,
    view: View,
    (width, height): (u32, u32),
) -> anyhow::Result<String> {
    let places: Vec<_> = places.iter().filter(|place| place.heap == heap).collect();
    let count = u32::try_from(places.len())?;
    anyhow::ensure!(count > 0, "no buffer of {heap}");
    let (camera, geometry) = Capture::stream(view, width, height, count)?;
    anyhow::ensure!(geometry.size() <= SIZE, "{geometry:?} is too large");
    let mut mappings = places
        .iter()
        .map(|place| map(place))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for ((number, place), mapping) in (0..).zip(&places).zip(&mut mappings) {
        mapping.fill(UNTOUCHED);
        camera
            .queue_at(number, &place.buffer)
            .context("the camera takes the buffer")?;
    }
    camera.start().context("STREAMON")?;
    let mut bars = Bars::new(geometry);
    let start = Instant::now();
    for number in 0..count * ROUNDS {
        let frame = camera.dequeue()?;
        let index = frame.place as usize;
        let (place, mapping) = (places[index], &mut mappings[index]);
        check(&mut bars, place, mapping, geometry)
            .with_context(|| format!("frame {number}, {frame:?}"))?;
        camera.queue_at(frame.place, &place.buffer)?;
    }
    let took = start.elapsed();
    camera.stop()?;
    Ok(format!(
        "{} frames of {}, each the bars to the last byte, in {}",
        count * ROUNDS,
        mib(geometry.size()),
        show(took)
    ))
}

/// Looks at a frame, and leaves nothing of it for the next one.
fn check(
    bars: &mut Bars,
    place: &Place,
    mapping: &mut Mapping,
    geometry: Geometry,
) -> anyhow::Result<()> {
    dma_buf::sync(&place.buffer, SYNC_READ | SYNC_WRITE)?;
    bars.check(mapping)?;
    // Behind the frame nobody wrote.
    let behind = usize::try_from(geometry.size().next_multiple_of(8))?;
    anyhow::ensure!(
        mapping.get(behind) == u64::from_ne_bytes([UNTOUCHED; 8]),
        "something is written behind the frame"
    );
    mapping.fill(UNTOUCHED);
    dma_buf::sync(&place.buffer, SYNC_READ | SYNC_WRITE | SYNC_END)?;
    Ok(())
}

fn all_back(before: &HeapInfo) -> anyhow::Result<String> {
    deadline::until(PATIENCE, "the scrubber is done", || {
        Ok((debug::figure(WANTED, "dirty")? == 0).then_some(()))
    })?;
    let after = heap_info(WANTED)?;
    anyhow::ensure!(after == *before, "{after:?}, not {before:?}");
    let clean = debug::figure(WANTED, "clean")?;
    anyhow::ensure!(clean == after.size, "{clean} bytes clean");
    anyhow::ensure!(debug::ranges(WANTED)?.is_empty(), "a range is left");
    Ok(format!(
        "{} of {} free, all of it clean, 0 buffers",
        mib(after.free),
        mib(after.size)
    ))
}

/// Looks at the region from below.
fn all_zero() -> anyhow::Result<String> {
    let buffer = Heap::open(WANTED)?;
    let size = heap_info(WANTED)?.size;
    let (all, range) = debug::locate(WANTED, || Ok(buffer.allocate(size)?))?;
    drop(all);
    deadline::until(PATIENCE, "the scrubber is done", || {
        Ok((debug::figure(WANTED, "dirty")? == 0).then_some(()))
    })?;
    let PhysicalRange { start, size } = range;
    memory::expect_zero(range, "after close()")?;
    Ok(format!("zeros, all {} from {start:#x} on", mib(size)))
}
