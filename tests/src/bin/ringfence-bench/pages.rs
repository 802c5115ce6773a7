// SPDX-License-Identifier: MIT OR Apache-2.0

//! Heaps of pages, ours beside the kernel's own: everything that their buffers
//! can, step by step.

use std::fs::File;
use std::time::Duration;

use anyhow::Context;
use ringfence_tests::bench::{Counter, PageFigures, Spread};
use ringfence_tests::guest::importer::Importer;
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::{allocation, deadline, module};

use crate::counter;
use crate::rounds::{rest, WARM_UP};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What is measured under which name.
struct Subject {
    name: &'static str,
    heap: &'static str,
    /// Our module, and its parameters; upstream's are loaded already.
    module: Option<(&'static str, &'static [&'static str])>,
}

const SUBJECTS: [Subject; 5] = [
    Subject {
        name: "upstream system heap",
        heap: "system",
        module: None,
    },
    Subject {
        name: "Ringfence system, no pool",
        heap: "ringfence-system",
        module: Some(("ringfence_system", &["prefix=1", "pool_percent=0"])),
    },
    Subject {
        name: "Ringfence system",
        heap: "ringfence-system",
        module: Some(("ringfence_system", &["prefix=1"])),
    },
    Subject {
        name: "upstream CMA heap",
        heap: "default_cma_region",
        module: None,
    },
    Subject {
        name: "Ringfence CMA",
        heap: "ringfence-default_cma_region",
        module: Some(("ringfence_cma", &["prefix=1"])),
    },
];

/// Sizes in bytes; how many rounds of allocation and release, and how many of all
/// that is in between.
const SIZES: [(u64, u32, u32); 4] = [
    (4 * KIB, 5000, 200),
    (MIB, 200, 50),
    (8 * MIB, 50, 20),
    (32 * MIB, 20, 10),
];

/// Measures all subjects.
pub fn measure(counter: &Counter) -> anyhow::Result<Vec<PageFigures>> {
    let importer = Importer::open()?;
    let mut figures = Vec::new();
    for subject in &SUBJECTS {
        if let Some((name, parameters)) = subject.module {
            deadline::until(Duration::from_secs(60), name, || {
                if module::is_loaded(name)? {
                    module::unload(name)?;
                }
                Ok(Some(()))
            })?;
            module::load_with(name, parameters)?;
        }
        let file = allocation::open(subject.heap)?;
        rest(subject.heap)?;
        for (size, calls, uses) in SIZES {
            let sized = Sized {
                subject,
                file: &file,
                size,
                counter,
            };
            figures.push(
                sized
                    .measure(&importer, calls, uses)
                    .with_context(|| format!("{}: {size} bytes", subject.name))?,
            );
        }
    }
    Ok(figures)
}

/// One subject and one size.
struct Sized<'a> {
    subject: &'a Subject,
    file: &'a File,
    size: u64,
    counter: &'a Counter,
}

impl Sized<'_> {
    fn measure(&self, importer: &Importer, calls: u32, uses: u32) -> anyhow::Result<PageFigures> {
        let (alloc, close) = self.allocations(calls)?;
        let (mut touches, mut imports, mut vmaps) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..WARM_UP + uses {
            let buffer = allocation::allocate_size(self.file, self.size)?;
            let start = counter::now();
            let mapping = Mapping::new(&buffer, usize::try_from(self.size)?)?;
            mapping.touch();
            let touched = counter::now();
            drop(mapping);
            let costs = importer.measure(&buffer)?;
            drop(buffer);
            rest(self.subject.heap)?;
            if round >= WARM_UP {
                touches.push(self.instructions(touched - start));
                imports
                    .push(self.instructions(costs.attach + costs.map + costs.unmap + costs.detach));
                vmaps.push(self.instructions(costs.vmap + costs.vunmap));
            }
        }
        Ok(PageFigures {
            subject: self.subject.name.to_owned(),
            size: self.size,
            alloc,
            touch: Spread::of(touches).context("no round")?,
            import: Spread::of(imports).context("no round")?,
            vmap: Spread::of(vmaps).context("no round")?,
            close,
        })
    }

    /// What allocation and release cost when nothing is done in between.
    fn allocations(&self, rounds: u32) -> anyhow::Result<(Spread, Spread)> {
        let (mut allocs, mut closes) = (Vec::new(), Vec::new());
        for round in 0..WARM_UP + rounds {
            let start = counter::now();
            let allocated = allocation::allocate_size(self.file, self.size);
            let served = counter::now();
            let buffer = allocated?;
            let before = counter::now();
            drop(buffer);
            let closed = counter::now();
            if round >= WARM_UP {
                allocs.push(self.instructions(served - start));
                closes.push(self.instructions(closed - before));
            }
            rest(self.subject.heap)?;
        }
        Ok((
            Spread::of(allocs).context("no round")?,
            Spread::of(closes).context("no round")?,
        ))
    }

    fn instructions(&self, steps: u64) -> u64 {
        steps * self.counter.instructions_per_step
    }
}
