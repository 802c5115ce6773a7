// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocations and releases, one at a time.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence_tests::bench::{Counter, HeapFigures, SizeFigures, Spread};
use ringfence_tests::guest::{allocation, debug, heap_info};
use rustix::io::Errno;

use crate::counter;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Sizes in bytes, and how many rounds each is measured.
const SIZES: [(u64, u32); 6] = [
    (4 * KIB, 500),
    (64 * KIB, 500),
    (MIB, 200),
    (8 * MIB, 50),
    (64 * MIB, 20),
    (256 * MIB, 10),
];

/// Rounds before those that count: the first ones fill caches of the kernel.
pub const WARM_UP: u32 = 2;

/// The time between two rounds, or two looks at the heap.
const REST: Duration = Duration::from_millis(5);

/// Looks at a heap until it is given up: a minute.
const RESTS: u32 = 12_000;

/// Measures one heap up to the size `largest`.
pub fn measure(counter: &Counter, heap: &str, largest: u64) -> anyhow::Result<HeapFigures> {
    let sizes = SIZES.into_iter().filter(|(size, _)| *size <= largest);
    measure_sizes(counter, heap, sizes)
}

/// Measures one heap at these sizes in bytes, each for so many rounds.
pub fn measure_sizes(
    counter: &Counter,
    heap: &str,
    sizes: impl IntoIterator<Item = (u64, u32)>,
) -> anyhow::Result<HeapFigures> {
    let file = allocation::open(heap)?;
    let _keeper = keep_fenced(heap, &file)?;
    rest(heap)?;
    let sizes = sizes
        .into_iter()
        .map(|(size, rounds)| {
            measure_size(counter, heap, &file, size, rounds)
                .with_context(|| format!("{heap}: {size} bytes"))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(HeapFigures {
        heap: heap.to_owned(),
        sizes,
    })
}

/// In a heap whose region is fenced as a whole, a buffer that keeps it so: what is
/// measured is allocation from a fenced region.
fn keep_fenced(heap: &str, file: &File) -> anyhow::Result<Option<Buffer>> {
    let info = Control::open()?
        .heaps()?
        .into_iter()
        .find(|info| info.name == heap);
    match info {
        Some(info) if info.whole_region => Ok(Some(allocation::allocate_size(file, 4 * KIB)?)),
        _ => Ok(None),
    }
}

fn measure_size(
    counter: &Counter,
    heap: &str,
    file: &File,
    size: u64,
    rounds: u32,
) -> anyhow::Result<SizeFigures> {
    let mut allocs = Vec::with_capacity(rounds as usize);
    let mut closes = Vec::with_capacity(rounds as usize);
    let mut failures = 0;
    for round in 0..WARM_UP + rounds {
        let is_counted = round >= WARM_UP;
        let start = counter::now();
        let allocated = allocation::allocate_size(file, size);
        let served = counter::now();
        let buffer = match allocated {
            Ok(buffer) => buffer,
            Err(Errno::NOMEM) => {
                failures += u32::from(is_counted);
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        let before = counter::now();
        drop(buffer);
        let closed = counter::now();
        if is_counted {
            allocs.push((served - start) * counter.instructions_per_step);
            closes.push((closed - before) * counter.instructions_per_step);
        }
        rest(heap)?;
    }
    Ok(SizeFigures {
        size,
        rounds,
        failures,
        alloc: Spread::of(allocs),
        close: Spread::of(closes),
    })
}

/// Waits until a heap has nothing more to do in the background.
///
/// A guest whose time counts instructions skips what it sleeps.
///
/// # Errors
///
/// When it still has dirty memory after a long time.
pub fn rest(heap: &str) -> anyhow::Result<()> {
    for _ in 0..RESTS {
        thread::sleep(REST);
        if !is_dirty(heap)? {
            return Ok(());
        }
    }
    anyhow::bail!("{heap} still has dirty memory")
}

/// Dirty bytes from which on the system heap's worker is at work.
const MANY_DIRTY: u64 = MIB;

/// Whether one of our heaps has memory that it is about to zero.
fn is_dirty(heap: &str) -> anyhow::Result<bool> {
    if !Path::new(debug::ROOT).join(heap).exists() {
        // An upstream heap, which does nothing unasked.
        return Ok(false);
    }
    // What is contiguous, and has no dirty ranges, is zeroed when it is allocated.
    Ok(!debug::dirty_ranges(heap)?.is_empty()
        || (!heap_info(heap)?.contiguous && debug::figure(heap, "dirty")? >= MANY_DIRTY))
}
