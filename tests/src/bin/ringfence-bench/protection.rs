// SPDX-License-Identifier: MIT OR Apache-2.0

//! What protecting a buffer costs, and where: in the firmware, for zeroing, and
//! in the bare zeroing loop, as the test build of the firewall measures it.

use anyhow::Context;
use ringfence_tests::bench::{Counter, ProtectionFigures, Work};
use ringfence_tests::guest::allocation;
use ringfence_tests::guest::ta::{expect_done, Costs, Ta};

use crate::counter;

const MIB: u64 = 1 << 20;

/// Sizes in bytes, and how many rounds each is measured.
const SIZES: [(u64, u32); 4] = [(4 << 10, 100), (MIB, 50), (16 * MIB, 10), (64 * MIB, 5)];

/// Measures one heap, which fences each of its buffers on its own.
pub fn measure(counter: &Counter, heap: &str) -> anyhow::Result<Vec<ProtectionFigures>> {
    let device = allocation::open(heap)?;
    let mut ta = Ta::open()?;
    let mut figures = Vec::new();
    for (size, rounds) in SIZES {
        let (mut allocs, mut closes) = (Vec::new(), Vec::new());
        // The first one fills caches of both kernels.
        for round in 0..=rounds {
            expect_done(ta.meter(), "METER")?;
            let start = counter::now();
            let allocated = allocation::allocate_size(&device, size);
            let served = counter::now();
            let buffer = allocated.with_context(|| format!("{heap}: {size} bytes"))?;
            let fencing = expect_done(ta.meter(), "METER")?;
            let before = counter::now();
            drop(buffer);
            let closed = counter::now();
            let opening = expect_done(ta.meter(), "METER")?;
            if round > 0 {
                allocs.push(work(counter, served - start, fencing));
                closes.push(work(counter, closed - before, opening));
            }
        }
        figures.push(ProtectionFigures {
            size,
            rounds,
            alloc: Work::median(&allocs).context("no rounds")?,
            close: Work::median(&closes).context("no rounds")?,
        });
    }
    Ok(figures)
}

fn work(counter: &Counter, steps: u64, costs: Costs) -> Work {
    // The firewall reads the physical counter, which counts the same steps.
    let instructions = |steps: u64| steps * counter.instructions_per_step;
    Work {
        instructions: instructions(steps),
        firmware_calls: costs.firmware_calls.into(),
        firmware: instructions(costs.firmware),
        scrubs: costs.scrubs.into(),
        scrubbing: instructions(costs.scrubbing),
        zeroing: instructions(costs.zeroing),
    }
}
