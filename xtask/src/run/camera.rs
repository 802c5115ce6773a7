// SPDX-License-Identifier: MIT OR Apache-2.0
//! The camera's scenario: a boot in which nothing is loaded before it, and one in which time counts
//! instructions, for its latencies beside those of other heaps.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ringfence_tests::bench::{Figures, MemoryState, SizeFigures};

use super::{chart, TIMEOUT};
use crate::bench::{self, show_size, tried};
use crate::cache::Cache;
use crate::stack::Stack;
use crate::vm::{self, Boot, Conditions, Outcome, Task, Verdict};

/// Plays the scenario, measures, and draws.
pub fn run(cache: &Cache, stack: &Stack, output: Option<&Path>) -> Result<Outcome> {
    stack.build_for_boot()?;
    let directory = vm::run_directory(cache)?;
    let command = ["ringfence-scenario", "camera"];
    let mut boot = Boot::of(
        Task::Command(command.map(str::to_owned).to_vec()),
        directory.clone(),
    );
    boot.conditions = Conditions {
        optee: false,
        heaps: false,
        upstream: false,
    };
    boot.timeout = Some(TIMEOUT);
    let outcome = vm::boot(stack, &boot)?;
    if !matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(outcome);
    }
    let figures = match bench::camera(cache, stack)? {
        Ok(figures) => figures,
        Err(measured) => return Ok(measured),
    };
    println!(
        "\nInstructions of one allocation, the median of several, in one boot of QEMU's -icount"
    );
    println!("{}", table(&figures));
    let folder = output.unwrap_or(&directory);
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let chart = folder.join("camera.svg");
    chart::draw(&rows(&figures), &chart)?;
    println!("chart: {}", chart.display());
    Ok(outcome)
}

/// A heap in a state of the machine, in words.
pub fn name(heap: &str, state: MemoryState) -> String {
    let heap = match heap {
        "bench" => "Ringfence carveout",
        "default_cma_region" => "upstream CMA",
        "system" => "upstream system",
        other => other,
    };
    let state = match state {
        MemoryState::Fresh => "fresh",
        MemoryState::Full => "memory full of files",
        MemoryState::Pinned => "full, pages pinned",
    };
    format!("{heap}, {state}")
}

/// One line of the table, one group of the chart.
pub struct Row {
    pub name: String,
    pub sizes: Vec<SizeFigures>,
}

/// Heap by heap, each in every state.
fn rows(figures: &Figures) -> Vec<Row> {
    let heaps = figures.states.first().map(|first| first.heaps.as_slice());
    heaps
        .unwrap_or_default()
        .iter()
        .flat_map(|heap| {
            figures.states.iter().filter_map(|state| {
                let figures = state.heaps.iter().find(|other| other.heap == heap.heap)?;
                Some(Row {
                    name: name(&heap.heap, state.state),
                    sizes: figures.sizes.clone(),
                })
            })
        })
        .collect()
}

fn table(figures: &Figures) -> String {
    let rows = rows(figures);
    let mut text = format!("{:44}", "");
    let sizes = rows.first().map_or(&[][..], |row| row.sizes.as_slice());
    for size in sizes {
        text.push_str(&format!("{:>28}", show_size(size.size)));
    }
    for row in &rows {
        text.push_str(&format!("\n{:44}", row.name));
        for size in &row.sizes {
            text.push_str(&format!("{:>28}", tried(size)));
        }
    }
    text
}
