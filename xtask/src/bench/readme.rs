// SPDX-License-Identifier: MIT OR Apache-2.0
//! The README's tables, which are made from the checkout's figures.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::report::Report;
use super::table;
use crate::stack::workspace;

/// What stands before the tables.
const BEGIN: &str = "<!-- bench:begin -->\n";

/// What stands behind them.
const END: &str = "<!-- bench:end -->\n";

fn path() -> PathBuf {
    workspace().join("README.md")
}

/// Replaces the README's tables.
pub fn update(report: &Report) -> Result<()> {
    let path = path();
    let text = fs::read_to_string(&path)?;
    fs::write(&path, with_tables(&text, report)?)?;
    Ok(())
}

/// `text` with the tables of `report` between the marks.
fn with_tables(text: &str, report: &Report) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .with_context(|| format!("README.md has no line {}", BEGIN.trim()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("README.md has no line {} behind the other", END.trim()))?;
    Ok(format!(
        "{before}{BEGIN}\n{}{END}{after}",
        table::render(report)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report;

    #[test]
    fn the_tables_are_those_of_the_figures() {
        let report = Report::load(&report::committed()).expect("figures are committed");
        let text = fs::read_to_string(path()).expect("there is a README");
        assert_eq!(
            with_tables(&text, &report).expect("the README has the marks"),
            text,
            "make them again with: cargo xtask bench --from xtask/bench.json --readme"
        );
    }
}
