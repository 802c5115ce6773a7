// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write;

use ringfence_tests::bench::{
    HeapFigures, MemoryState, ProtectionFigures, SizeFigures, Spread, Work,
};

use super::allocator::{Allocators, Calls, Workload};
use super::report::Report;
use super::{content, decoding, pages};

/// What the heaps are called in tables.
const NAMES: [(&str, &str); 7] = [
    ("floor", "floor: the same path, no memory"),
    ("bench", "**Ringfence carveout**"),
    ("camera", "**Ringfence carveout for the CPU**"),
    ("default_cma_region", "upstream CMA heap"),
    ("system", "upstream system heap"),
    (
        "protected-record",
        "**Ringfence protected carveout**, fenced as a whole",
    ),
    ("protected-video", "**Ringfence protected carveout**"),
];

/// Allocators as the counts name them, and what they are called in tables.
const ALLOCATORS: [(&str, &str); 3] = [
    ("ringfence", "**Ringfence**"),
    ("gen_pool", "`gen_pool`"),
    ("offset-allocator", "offset-allocator"),
];

/// A kind of call of a heap.
type HeapCall = fn(&SizeFigures) -> Option<Spread>;

/// A kind of call of an allocator.
type AllocatorCall = fn(&Workload) -> Calls;

/// All tables, with the conditions they hold under.
pub fn render(report: &Report) -> String {
    let conditions = &report.conditions;
    let mut text = format!(
        "Instructions of one call in the guest, the median of many: Linux {}, one boot of QEMU {} \
         with `-icount {}`, kernel command line `{}`.\n\n",
        report.heaps.kernel, conditions.qemu, conditions.icount, conditions.bootargs
    );
    for (title, call) in [
        (
            "`DMA_HEAP_IOCTL_ALLOC`",
            (|figures| figures.alloc) as HeapCall,
        ),
        ("`close` of the last reference", |figures| figures.close),
    ] {
        heaps(&mut text, report, title, call);
        text.push('\n');
    }
    if !report.heaps.pages.is_empty() {
        text.push_str(
            "Buffers of pages, all that can be done with them, beside the kernel's own heaps; the \
             device is not cache-coherent.\n\n",
        );
        pages::tables(&mut text, &report.heaps.pages);
    }
    protection(&mut text, &report.heaps.protection);
    if let Some(figures) = &report.heaps.content {
        content::table(&mut text, figures);
    }
    if let Some(figures) = &report.heaps.decoding {
        decoding::table(&mut text, figures);
    }
    states(&mut text, report);
    touches(&mut text, report);
    mixed(&mut text, report);
    writeln!(
        text,
        "Instructions of the dearest call of the allocator alone, over all workloads: callgrind on \
         {}, rustc {}, units of {}.\n",
        conditions.host,
        conditions.rustc,
        show_size(report.allocators.granule)
    )
    .expect("writing to a String succeeds");
    allocators(&mut text, &report.allocators);
    text.push('\n');
    text
}

/// One row a heap in a state of the machine, one column a size, medians.
fn states(text: &mut String, report: &Report) {
    let Some(first) = report.heaps.states.first() else {
        return;
    };
    let sizes: Vec<u64> = first
        .heaps
        .first()
        .map(|heap| heap.sizes.iter().map(|figures| figures.size).collect())
        .unwrap_or_default();
    row(
        text,
        "`DMA_HEAP_IOCTL_ALLOC`, failures of all rounds",
        sizes.iter().map(|&size| show_size(size)).collect(),
    );
    row(
        text,
        "---",
        sizes.iter().map(|_| "---:".to_owned()).collect(),
    );
    for heap in &first.heaps {
        for state in &report.heaps.states {
            let Some(figures) = state.heaps.iter().find(|other| other.heap == heap.heap) else {
                continue;
            };
            let cells = figures.sizes.iter().map(tried).collect();
            let what = match state.state {
                MemoryState::Fresh => "fresh",
                MemoryState::Full => "memory full of files",
                MemoryState::Pinned => "full, and pages pinned",
            };
            row(text, &format!("{}, {what}", name(&heap.heap)), cells);
        }
    }
    text.push('\n');
}

/// What an allocation of one size has come to.
pub fn tried(figures: &SizeFigures) -> String {
    match (figures.alloc, figures.failures) {
        (Some(alloc), 0) => grouped(alloc.median),
        (Some(alloc), failures) => format!(
            "{} ({failures} of {} failed)",
            grouped(alloc.median),
            figures.rounds
        ),
        (None, _) => format!("all {} failed", figures.rounds),
    }
}

/// One row a heap, one column a way to map its buffers.
fn touches(text: &mut String, report: &Report) {
    let touches = &report.heaps.touches;
    let Some(first) = touches.first() else {
        return;
    };
    row(
        text,
        &format!(
            "`mmap` of {} and a write to each page",
            show_size(first.size)
        ),
        vec!["aligned to 2 MiB".to_owned(), "not aligned".to_owned()],
    );
    row(text, "---", vec!["---:".to_owned(); 2]);
    for aligned in touches.iter().filter(|touch| touch.aligned) {
        let shifted = touches
            .iter()
            .find(|touch| touch.heap == aligned.heap && !touch.aligned);
        let cells = [Some(aligned), shifted]
            .map(|touch| touch.map_or_else(String::new, |touch| grouped(touch.touch.median)));
        row(text, name(&aligned.heap), cells.to_vec());
    }
    text.push('\n');
}

/// One row for each heap that is nearly full.
fn mixed(text: &mut String, report: &Report) {
    let Some(first) = report.heaps.mixed.first() else {
        return;
    };
    let head = format!(
        "{} threads, {} that are {} % full, sizes up to {}",
        first.threads,
        show_size(first.region),
        first.occupancy,
        show_size(first.largest)
    );
    let columns = [
        "`RINGFENCE_IOCTL_ALLOC`, median",
        "at worst",
        "`close`, median",
        "at worst",
        "interrupted",
        "at worst",
        "put off",
    ];
    row(text, &head, columns.map(str::to_owned).to_vec());
    row(text, "---", vec!["---:".to_owned(); columns.len()]);
    for mixed in &report.heaps.mixed {
        let cells = [mixed.alloc, mixed.close].map(|spread| {
            let times = spread.max as f64 / spread.median as f64;
            let worst = format!("{} ({times:.2} times)", grouped(spread.max));
            [grouped(spread.median), worst]
        });
        let others = [mixed.interrupted, mixed.interrupted_max, mixed.put_off].map(grouped);
        row(
            text,
            name(&mixed.heap),
            [cells.concat(), others.to_vec()].concat(),
        );
    }
    writeln!(
        text,
        "\nInstructions of the calling thread, over {} calls. Those in which an interrupt came are apart \
         from the others: in their figures is all that the kernel did then for others. Allocations are \
         put off for a millisecond when no cleared run is left, rather than wait for one.\n",
        grouped(first.calls)
    )
    .expect("writing to a String succeeds");
}

/// What one row of the table of protection shows.
type Share = fn(&Work) -> u64;

/// One row a share of the work, one column a size, medians of both calls together.
fn protection(text: &mut String, sizes: &[ProtectionFigures]) {
    if sizes.is_empty() {
        return;
    }
    let heads = sizes
        .iter()
        .map(|figures| show_size(figures.size))
        .collect();
    row(text, "ALLOC and `close`, each buffer fenced", heads);
    row(
        text,
        "---",
        sizes.iter().map(|_| "---:".to_owned()).collect(),
    );
    let shares: [(&str, Share); 5] = [
        ("instructions", |work| work.instructions),
        ("of these in EL3", |work| work.firmware),
        ("of these for scrubbing", |work| work.scrubbing),
        ("of these in the bare zeroing loop", |work| work.zeroing),
        ("calls of EL3", |work| work.firmware_calls),
    ];
    for (name, share) in shares {
        let cells = sizes
            .iter()
            .map(|figures| grouped(share(&figures.alloc) + share(&figures.close)))
            .collect();
        row(text, name, cells);
    }
    let per_mib = |share: Share| -> Vec<String> {
        sizes
            .iter()
            .map(|figures| {
                let both = share(&figures.alloc) + share(&figures.close);
                grouped(both * (1 << 20) / figures.size)
            })
            .collect()
    };
    row(
        text,
        "instructions for each MiB",
        per_mib(|work| work.instructions),
    );
    row(
        text,
        "scrubbing for each MiB",
        per_mib(|work| work.scrubbing),
    );
    text.push('\n');
}

/// One row a region, two columns an allocator, maxima.
fn allocators(text: &mut String, allocators: &Allocators) {
    let calls: [(&str, AllocatorCall); 2] = [
        ("alloc", |workload| workload.alloc),
        ("free", |workload| workload.free),
    ];
    let columns: Vec<_> = calls
        .into_iter()
        .flat_map(|call| ALLOCATORS.map(|allocator| (call, allocator)))
        .collect();
    let heads = columns
        .iter()
        .map(|((call, _), (_, name))| format!("{call}: {name}"))
        .collect();
    row(text, "region", heads);
    row(
        text,
        "---",
        columns.iter().map(|_| "---:".to_owned()).collect(),
    );
    let regions: BTreeSet<u64> = allocators.results.iter().map(|row| row.region).collect();
    for region in regions {
        let cells = columns
            .iter()
            .map(|((_, call), (subject, _))| {
                allocators
                    .results
                    .iter()
                    .filter(|row| row.region == region && row.subject == *subject)
                    .map(|row| call(row).max)
                    .max()
                    .map_or_else(String::new, grouped)
            })
            .collect();
        row(text, &show_size(region), cells);
    }
}

/// One row a heap, one column a size, medians.
fn heaps(text: &mut String, report: &Report, title: &str, call: HeapCall) {
    let heaps = &report.heaps.heaps;
    let sizes: Vec<u64> = heaps
        .iter()
        .max_by_key(|heap| heap.sizes.len())
        .map(|heap| heap.sizes.iter().map(|figures| figures.size).collect())
        .unwrap_or_default();
    row(
        text,
        title,
        sizes.iter().map(|&size| show_size(size)).collect(),
    );
    row(
        text,
        "---",
        sizes.iter().map(|_| "---:".to_owned()).collect(),
    );
    for heap in heaps {
        let cells = sizes.iter().map(|&size| cell(heap, size, call)).collect();
        row(text, name(&heap.heap), cells);
    }
}

pub(super) fn row(text: &mut String, head: &str, cells: Vec<String>) {
    writeln!(text, "| {head} | {} |", cells.join(" | ")).expect("writing to a String succeeds");
}

fn cell(heap: &HeapFigures, size: u64, call: HeapCall) -> String {
    let Some(figures) = heap.sizes.iter().find(|figures| figures.size == size) else {
        return String::new();
    };
    match call(figures) {
        Some(spread) => grouped(spread.median),
        None => "failed".to_owned(),
    }
}

fn name(heap: &str) -> &str {
    NAMES
        .iter()
        .find(|(known, _)| *known == heap)
        .map_or(heap, |(_, name)| name)
}

/// Bytes for people.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

/// A number with a comma every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn failures_are_told() {
        let mut figures = SizeFigures {
            size: 1 << 20,
            rounds: 5,
            failures: 0,
            alloc: Spread::of(vec![12_345]),
            close: None,
        };
        assert_eq!(tried(&figures), "12,345");
        figures.failures = 2;
        assert_eq!(tried(&figures), "12,345 (2 of 5 failed)");
        figures.alloc = None;
        assert_eq!(tried(&figures), "all 5 failed");
    }

    #[test]
    fn what_was_not_measured_is_left_out_and_what_failed_is_said() {
        let figures = SizeFigures {
            size: 4096,
            rounds: 1,
            failures: 1,
            alloc: None,
            close: None,
        };
        let heap = HeapFigures {
            heap: "bench".to_owned(),
            sizes: vec![figures],
        };
        assert_eq!(cell(&heap, 4096, |figures| figures.alloc), "failed");
        assert_eq!(cell(&heap, 8192, |figures| figures.alloc), "");
    }

    #[test]
    fn an_allocator_shows_its_dearest_call_of_all_workloads() {
        let workload = |subject: &str, max| Workload {
            region: 1 << 30,
            workload: "some".to_owned(),
            subject: subject.to_owned(),
            alloc: Calls {
                calls: 2,
                max,
                median: 1,
            },
            refused: Calls {
                calls: 0,
                max: 0,
                median: 0,
            },
            free: Calls {
                calls: 2,
                max: 7,
                median: 1,
            },
        };
        let counts = Allocators {
            unit: "instructions".to_owned(),
            granule: 4096,
            results: vec![
                workload("ringfence", 300),
                workload("ringfence", 500),
                workload("gen_pool", 9000),
            ],
        };
        let mut text = String::new();
        allocators(&mut text, &counts);
        assert!(text.contains("| 1 GiB | 500 | 9,000 |  | 7 | 7 |  |\n"));
    }
}
