// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the figures must be: ratios of instruction counts, never times.

use anyhow::{ensure, Context, Result};
use ringfence_tests::bench::{
    Figures, MemoryState, MixedFigures, ProtectionFigures, SizeFigures, Spread,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A call whose median counts.
#[derive(Debug, Clone, Copy)]
enum Call {
    Alloc,
    Close,
}

/// One figure of a report.
#[derive(Debug, Clone, Copy)]
struct Cell {
    heap: &'static str,
    call: Call,
    size: u64,
}

/// How many times one figure may be another.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// What it says.
    pub name: &'static str,
    figure: Cell,
    over: Cell,
    at_most: f64,
}

const fn cell(heap: &'static str, call: Call, size: u64) -> Cell {
    Cell { heap, call, size }
}

/// The bounds.
pub const BOUNDS: [Bound; 7] = [
    Bound {
        name: "carveout: size does not show in ALLOC",
        figure: cell("bench", Call::Alloc, 256 * MIB),
        over: cell("bench", Call::Alloc, 4 * KIB),
        at_most: 1.05,
    },
    Bound {
        name: "carveout: size does not show in close",
        figure: cell("bench", Call::Close, 256 * MIB),
        over: cell("bench", Call::Close, 4 * KIB),
        at_most: 1.05,
    },
    Bound {
        name: "carveout: ALLOC of 256 MiB is near the floor",
        figure: cell("bench", Call::Alloc, 256 * MIB),
        over: cell("floor", Call::Alloc, 256 * MIB),
        at_most: 1.5,
    },
    Bound {
        name: "carveout: close of 256 MiB is near the floor",
        figure: cell("bench", Call::Close, 256 * MIB),
        over: cell("floor", Call::Close, 256 * MIB),
        // To give a range back is more than to find one: the allocator joins it with its neighbours,
        // and whoever zeroes it later must be told.
        at_most: 2.5,
    },
    Bound {
        name: "region mode: ALLOC of 8 MiB is as cheap as without protection",
        figure: cell("protected-record", Call::Alloc, 8 * MIB),
        over: cell("bench", Call::Alloc, 8 * MIB),
        at_most: 1.2,
    },
    Bound {
        name: "carveout: ALLOC of 64 MiB is a 300th of upstream's CMA heap",
        figure: cell("bench", Call::Alloc, 64 * MIB),
        over: cell("default_cma_region", Call::Alloc, 64 * MIB),
        at_most: 1.0 / 300.0,
    },
    Bound {
        name: "carveout: ALLOC of 64 MiB is a 300th of upstream's system heap",
        figure: cell("bench", Call::Alloc, 64 * MIB),
        over: cell("system", Call::Alloc, 64 * MIB),
        at_most: 1.0 / 300.0,
    },
];

impl Bound {
    /// Whether figures of these heaps, as `ringfence-bench` is told them, suffice to judge it.
    pub fn is_about(&self, heaps: &[&str]) -> bool {
        let is = |heap: &str, name: &str| heap.split(':').next() == Some(name);
        [&self.figure, &self.over]
            .iter()
            .all(|cell| heaps.iter().any(|heap| is(heap, cell.heap)))
    }

    /// Compares what was measured; says what that was.
    ///
    /// # Errors
    ///
    /// When it is out of bounds, or was not measured.
    pub fn judge(&self, figures: &Figures) -> Result<String> {
        let (figure, over) = (self.figure.median(figures)?, self.over.median(figures)?);
        // CAST: Instruction counts are far below 2^53.
        let ratio = figure as f64 / over as f64;
        let said = format!(
            "{figure} over {over} instructions is {ratio:.4}, at most {:.4}",
            self.at_most
        );
        ensure!(ratio <= self.at_most, "{said}");
        Ok(said)
    }
}

impl Cell {
    fn median(&self, figures: &Figures) -> Result<u64> {
        let pick = |figures: &SizeFigures| match self.call {
            Call::Alloc => figures.alloc,
            Call::Close => figures.close,
        };
        figures
            .heaps
            .iter()
            .filter(|heap| heap.heap == self.heap)
            .flat_map(|heap| &heap.sizes)
            .find(|figures| figures.size == self.size)
            .and_then(pick)
            .map(|spread| spread.median)
            .with_context(|| format!("{self:?} was not measured"))
    }
}

/// Calls of a heap that is nearly full, at least.
const MIXED_CALLS: u64 = 100_000;

/// How many times the median the worst of them may cost.
const WORST: u64 = 3;

/// Judges what several threads have seen of a heap that is nearly full.
pub fn mixed(figures: &Figures) -> [(&'static str, Result<String>); 2] {
    let judge = |call: fn(&MixedFigures) -> Spread| {
        let mixed = figures
            .mixed
            .iter()
            .find(|mixed| mixed.heap == "bench")
            .context("was not measured")?;
        let spread = call(mixed);
        let said = format!(
            "{} instructions at worst and {} in the median of {} calls, at most {WORST} times that",
            spread.max, spread.median, mixed.calls
        );
        ensure!(
            mixed.calls >= MIXED_CALLS && spread.max <= WORST * spread.median,
            "{said}"
        );
        Ok(said)
    };
    [
        (
            "carveout, 90 % full, 4 threads: the worst ALLOC",
            judge(|mixed| mixed.alloc),
        ),
        (
            "carveout, 90 % full, 4 threads: the worst close",
            judge(|mixed| mixed.close),
        ),
    ]
}

/// Judges what was measured in a machine that has been in use, if it was.
pub fn others(figures: &Figures) -> Vec<(&'static str, Result<String>)> {
    let mut judged = Vec::new();
    let failures = |heap: &str| -> u32 {
        let used = figures
            .states
            .iter()
            .filter(|state| state.state != MemoryState::Fresh);
        used.flat_map(|state| &state.heaps)
            .filter(|other| other.heap == heap)
            .flat_map(|heap| &heap.sizes)
            .map(|size| size.failures)
            .sum()
    };
    if !figures.states.is_empty() {
        let (ours, cma) = (failures("bench"), failures("default_cma_region"));
        let said = format!("{ours} failures, where upstream's CMA heap has {cma}");
        judged.push((
            "carveout: nothing fails in a machine that has been in use",
            verdict(ours == 0 && cma > 0, said),
        ));
    }
    judged
}

fn verdict(holds: bool, said: String) -> Result<String> {
    ensure!(holds, "{said}");
    Ok(said)
}

/// How many times the bare zeroing loop scrubbing may cost, windows included.
const SCRUBBING: f64 = 1.3;

/// Bytes that one call of the firmware covers.
const BLOCK: u64 = 2 * MIB;

/// Judges what protecting the largest buffer costs.
pub fn protection(figures: &Figures) -> [(&'static str, Result<String>); 2] {
    let largest = figures
        .protection
        .last()
        .context("protection was not measured");
    let calls = |figures: &ProtectionFigures| {
        let blocks = figures.size.div_ceil(BLOCK);
        let (fence, open) = (figures.alloc.firmware_calls, figures.close.firmware_calls);
        let said = format!("{fence} to fence and {open} to open {blocks} blocks");
        ensure!((fence, open) == (blocks, blocks), "{said}");
        Ok(said)
    };
    let scrubbing = |figures: &ProtectionFigures| {
        let scrubbing = figures.alloc.scrubbing + figures.close.scrubbing;
        let zeroing = figures.alloc.zeroing + figures.close.zeroing;
        // CAST: Instruction counts are far below 2^53.
        let ratio = scrubbing as f64 / zeroing as f64;
        let said = format!(
            "{scrubbing} over {zeroing} instructions is {ratio:.4}, at most {SCRUBBING:.4}"
        );
        ensure!(ratio <= SCRUBBING, "{said}");
        Ok(said)
    };
    let judge = |judge: &dyn Fn(&ProtectionFigures) -> Result<String>| match &largest {
        Ok(figures) => judge(figures),
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    [
        ("protection: one call of EL3 for each 2 MiB", judge(&calls)),
        (
            "protection: scrubbing is near the bare zeroing loop",
            judge(&scrubbing),
        ),
    ]
}

/// A judgement in words.
pub fn show(judged: &Result<String>) -> String {
    match judged {
        Ok(said) => format!("holds: {said}"),
        Err(error) => format!("DOES NOT HOLD: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_tests::bench::{Counter, HeapFigures, Spread, Work};

    fn figures(small: u64, large: u64) -> Figures {
        let entry = |size, median| SizeFigures {
            size,
            rounds: 1,
            failures: 0,
            alloc: None,
            close: Some(Spread {
                min: 1,
                median,
                max: u64::MAX,
            }),
        };
        Figures {
            kernel: "7.3".to_owned(),
            counter: Counter {
                hertz: 1_000_000_000,
                instructions_per_step: 1,
                overhead: 2,
            },
            heaps: vec![HeapFigures {
                heap: "bench".to_owned(),
                sizes: vec![entry(4 * KIB, small), entry(256 * MIB, large)],
            }],
            pages: Vec::new(),
            protection: Vec::new(),
            content: None,
            decoding: None,
            states: Vec::new(),
            mixed: Vec::new(),
            touches: Vec::new(),
        }
    }

    #[test]
    fn a_median_over_its_bound_is_found() {
        let bound = BOUNDS[1];
        assert!(bound.judge(&figures(1000, 1050)).is_ok());
        assert!(bound.judge(&figures(1000, 900)).is_ok());
        let error = bound.judge(&figures(1000, 1051)).expect_err("over 1.05");
        assert!(error.to_string().contains("1051 over 1000"));
    }

    #[test]
    fn protection_is_judged_by_its_largest_buffer() {
        let work = |firmware_calls, scrubbing| Work {
            instructions: 5000,
            firmware_calls,
            firmware: 3000,
            scrubs: 32,
            scrubbing,
            zeroing: 1000,
        };
        let measured = |calls, scrubbing| Figures {
            protection: vec![ProtectionFigures {
                size: 64 * MIB,
                rounds: 1,
                alloc: work(32, 1000),
                close: work(calls, scrubbing),
            }],
            ..figures(1, 1)
        };
        let holds = |figures: &Figures| protection(figures).map(|(_, judged)| judged.is_ok());
        assert_eq!(holds(&measured(32, 1600)), [true, true]);
        assert_eq!(holds(&measured(33, 1601)), [false, false]);
        assert_eq!(holds(&figures(1, 1)), [false, false]);
    }

    #[test]
    fn one_dear_call_of_a_nearly_full_heap_is_found() {
        let spread = |max| Spread {
            min: 1,
            median: 4000,
            max,
        };
        let measured = |calls, alloc, close| Figures {
            mixed: vec![MixedFigures {
                heap: "bench".to_owned(),
                region: 1 << 30,
                occupancy: 90,
                threads: 4,
                largest: 4 * MIB,
                calls,
                interrupted: 7,
                interrupted_max: 30_000,
                waited: 0,
                preempted: 0,
                put_off: 0,
                alloc: spread(alloc),
                close: spread(close),
            }],
            ..figures(1, 1)
        };
        let holds = |figures: &Figures| mixed(figures).map(|(_, judged)| judged.is_ok());
        assert_eq!(holds(&measured(100_000, 12_000, 12_000)), [true, true]);
        assert_eq!(holds(&measured(100_000, 12_000, 12_001)), [true, false]);
        assert_eq!(holds(&measured(100_000, 12_001, 12_000)), [false, true]);
        assert_eq!(holds(&measured(99_999, 4000, 4000)), [false, false]);
        assert_eq!(holds(&figures(1, 1)), [false, false]);
    }

    #[test]
    fn what_was_not_measured_holds_no_bound() {
        let error = BOUNDS[0].judge(&figures(1, 1)).expect_err("no alloc");
        assert!(error.to_string().contains("was not measured"));
        assert!(BOUNDS[3].judge(&figures(1, 1)).is_err());
    }
}
