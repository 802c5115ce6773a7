// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heaps side by side in a machine that was just started, and in one that has been
//! in use: where CMA has to make room first, or can't.

use ringfence_tests::bench::{Counter, MemoryState, StateFigures};
use ringfence_tests::guest::pressure::{meminfo, Files, Pins};

use crate::rounds;

const MIB: u64 = 1 << 20;

/// What a camera asks for: sizes in bytes, and rounds.
const SIZES: [(u64, u32); 3] = [(MIB, 20), (32 * MIB, 5), (64 * MIB, 5)];

/// Memory that stays free when all else is filled.
const LEFT: u64 = 96 * MIB;

/// Memory that stays free while pages are pinned: the kernel keeps back memory of CMA's as long as it
/// has other, and there is to be a pinned page wherever a buffer could be.
const LEFT_UNPINNED: u64 = 12 * MIB;

/// Memory that is made free again, outside of CMA's: what is moved needs a place to go
/// to, and the other heaps are to have memory.
const ROOM: u64 = 256 * MIB;

/// One page of so many bytes is pinned.
const STRIDE: usize = 2 << 20;

/// Measures these heaps in each state.
pub fn measure(counter: &Counter, heaps: &[&str]) -> anyhow::Result<Vec<StateFigures>> {
    let all = |state| -> anyhow::Result<StateFigures> {
        let heaps = heaps
            .iter()
            .map(|heap| rounds::measure_sizes(counter, heap, SIZES))
            .collect::<anyhow::Result<_>>()?;
        Ok(StateFigures { state, heaps })
    };
    let mut states = vec![all(MemoryState::Fresh)?];
    {
        let mut files = Files::fill(LEFT)?;
        files.remove_first(ROOM)?;
        report("full", &files)?;
        states.push(all(MemoryState::Full)?);
    }
    let taken = meminfo("MemFree")?.saturating_sub(LEFT_UNPINNED);
    let pins = Pins::scatter(usize::try_from(taken)?, STRIDE)?;
    let mut files = Files::fill(LEFT)?;
    files.remove_first(ROOM)?;
    eprintln!("{} pages pinned", pins.count());
    report("pinned", &files)?;
    states.push(all(MemoryState::Pinned)?);
    Ok(states)
}

/// Says what the memory is like, for whoever reads the log.
fn report(state: &str, files: &Files) -> anyhow::Result<()> {
    eprintln!(
        "{state}: {} MiB of files, {} MiB free, {} MiB of CMA free",
        files.size() / MIB,
        meminfo("MemFree")? / MIB,
        meminfo("CmaFree")? / MIB,
    );
    Ok(())
}
