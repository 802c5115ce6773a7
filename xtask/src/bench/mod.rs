// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: the figures of the README.
//!
//! - [`guest`] measures every heap side by side in one boot in which time counts instructions, so
//!   that the figures do not depend on how busy this machine is.
//! - [`report`] is the file with all figures, [`table`] shows it to people.
//! - [`readme`] keeps the tables of the README in step with the figures of the checkout.

mod guest;
mod readme;
mod report;
mod table;

use std::path::Path;

use anyhow::Result;

use crate::cache::Cache;
use crate::vm::Outcome;
use report::Report;

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

/// Measures, or reads, and shows the figures; returns how the boot ended when it did not end well.
pub fn run(cache: &Cache, options: Options<'_>) -> Result<Option<Outcome>> {
    let report = match options.from {
        Some(path) => Report::load(path)?,
        None => match guest::measure(cache)? {
            Ok(report) => report,
            Err(outcome) => return Ok(Some(outcome)),
        },
    };
    print!("{}", table::render(&report));
    if let Some(path) = options.json {
        report.save(path)?;
    }
    if options.readme {
        report.save(&report::committed())?;
        readme::update(&report)?;
    }
    Ok(None)
}
