// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures as Markdown.

use std::fmt::Write;

use ringfence_tests::bench::{HeapFigures, SizeFigures, Spread};

use super::report::Report;

/// What the heaps are called in tables.
const NAMES: [(&str, &str); 5] = [
    ("floor", "floor: the same path, no memory"),
    ("bench", "**Ringfence carveout**"),
    ("default_cma_region", "upstream CMA heap"),
    ("system", "upstream system heap"),
    ("protected-video", "**Ringfence protected carveout**"),
];

/// All tables, with the conditions they hold under.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for (title, call) in [
        (
            "`DMA_HEAP_IOCTL_ALLOC`",
            (|figures| figures.alloc) as fn(&SizeFigures) -> Option<Spread>,
        ),
        ("`close` of the last reference", |figures| figures.close),
    ] {
        heaps(&mut text, report, title, call);
        text.push('\n');
    }
    text
}

/// One row a heap, one column a size, medians.
fn heaps(
    text: &mut String,
    report: &Report,
    title: &str,
    call: fn(&SizeFigures) -> Option<Spread>,
) {
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

fn row(text: &mut String, head: &str, cells: Vec<String>) {
    writeln!(text, "| {head} | {} |", cells.join(" | ")).expect("writing to a String succeeds");
}

fn cell(heap: &HeapFigures, size: u64, call: fn(&SizeFigures) -> Option<Spread>) -> String {
    let Some(figures) = heap.sizes.iter().find(|figures| figures.size == size) else {
        return "".to_owned();
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

fn show_size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{} GiB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

/// A number with a comma every three digits.
fn grouped(number: u64) -> String {
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
