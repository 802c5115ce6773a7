// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: the figures of the README.
//!
//! - [`guest`] measures every heap side by side in one boot in which time counts instructions, so
//!   that the figures do not depend on how busy this machine is.
//! - [`allocator`] counts the instructions of the range allocator and its peers.
//! - [`pages`] compares heaps of pages with the kernel's own.
//! - [`content`] compares decryption into protected memory with the bare cipher.
//! - [`decoding`] compares decoding in the secure world with the same in a program of Linux.
//! - [`report`] is the file with all figures, [`table`] shows it to people, [`bounds`] says what the
//!   figures must be.
//! - [`readme`] keeps the tables of the README in step with the figures of the checkout.

mod allocator;
mod bounds;
mod content;
mod decoding;
mod guest;
mod pages;
mod readme;
mod report;
mod table;

use std::path::Path;

use anyhow::Result;
use ringfence_tests::bench::Figures;

use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::stack::{Build, Stack};
use crate::vm::Outcome;
use bounds::BOUNDS;
use report::Report;
pub use table::{show_size, tried};

/// Where figures come from and go to.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// A file with figures, instead of measuring.
    pub from: Option<&'a Path>,
    /// A file that they are written to.
    pub json: Option<&'a Path>,
    /// Whether the checkout's figures, and the README's tables, become these.
    pub readme: bool,
}

/// How a measurement ended.
#[derive(Debug)]
pub enum End {
    /// With figures; whether all of them are within their bounds.
    Figures { within_bounds: bool },
    /// The guest did not get to the end.
    Boot(Outcome),
}

/// Measures, or reads, and shows the figures.
pub fn run(cache: &Cache, options: Options<'_>) -> Result<End> {
    let report = match options.from {
        Some(path) => Report::load(path)?,
        None => {
            let stack = Stack::declare(cache, Flavour::Plain, Build::Test)?;
            let allocators = allocator::measure()?;
            match guest::measure(cache, &stack, guest::ALL)? {
                Ok(heaps) => Report::of(heaps, allocators)?,
                Err(outcome) => return Ok(End::Boot(outcome)),
            }
        }
    };
    print!("{}", table::render(&report));
    let mut within_bounds = true;
    let judgements = BOUNDS
        .iter()
        .map(|bound| (bound.name, bound.judge(&report.heaps)))
        .chain(bounds::protection(&report.heaps))
        .chain(bounds::mixed(&report.heaps))
        .chain(pages::judge(&report.heaps))
        .chain(content::judge(&report.heaps))
        .chain([decoding::judge(&report.heaps)]);
    for (name, judged) in judgements {
        within_bounds &= judged.is_ok();
        println!("{name}: {}", bounds::show(&judged));
    }
    for (name, judged) in bounds::others(&report.heaps) {
        within_bounds &= judged.is_ok();
        println!("{name}: {}", bounds::show(&judged));
    }
    if let Some(path) = options.json {
        report.save(path)?;
    }
    if options.readme {
        report.save(&report::committed())?;
        readme::update(&report)?;
    }
    Ok(End::Figures { within_bounds })
}

/// A bound: its name, and what was measured or is wrong.
pub type Judgement = (&'static str, Result<String>);

/// Measures what has bounds in every machine, fresh as it is, and judges it.
pub fn gate(cache: &Cache, stack: &Stack) -> Result<Result<Vec<Judgement>, Outcome>> {
    let heaps = match guest::measure(cache, stack, guest::GATED)? {
        Ok(heaps) => heaps,
        Err(outcome) => return Ok(Err(outcome)),
    };
    Ok(Ok(BOUNDS
        .iter()
        .filter(|bound| bound.is_about(guest::GATED))
        .map(|bound| (bound.name, bound.judge(&heaps)))
        .chain(bounds::protection(&heaps))
        .chain(bounds::mixed(&heaps))
        .chain(pages::judge(&heaps))
        .chain(content::judge(&heaps))
        .chain([decoding::judge(&heaps)])
        .collect()))
}

/// Measures what a camera waits for, on our heap and on upstream's, in a fresh machine and in one
/// that has been in use.
pub fn camera(cache: &Cache, stack: &Stack) -> Result<Result<Figures, Outcome>> {
    guest::measure(cache, stack, &[guest::STATES])
}
