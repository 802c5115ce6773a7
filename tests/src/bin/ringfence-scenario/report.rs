// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report: one line for each thing that was promised, with what was seen.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Counts what was promised and what was not kept.
#[derive(Debug, Default)]
pub struct Report {
    kept: usize,
    broken: usize,
}

/// Prints a line; a reader who has gone away is no failure.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Bytes for people.
pub fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Report {
    /// Begins a report.
    pub fn new(title: impl Display) -> Self {
        print(&format!("{title}"));
        Self::default()
    }

    /// Begins a part of it.
    pub fn part(&self, title: impl Display) {
        print(&format!("\n{title}"));
    }

    /// Says something that is no promise.
    pub fn say(&self, what: &str, seen: impl Display) {
        print(&format!("       {what:34} {seen}"));
    }

    /// Says a line of a table.
    pub fn row(&self, what: &str, first: &str, second: &str) {
        print(&format!("       {what:34} {first:46} {second}"));
    }

    /// Says whether a promise is kept: what was seen, or why it is broken.
    pub fn promise(&mut self, what: &str, outcome: anyhow::Result<String>) {
        match outcome {
            Ok(seen) => {
                self.kept += 1;
                print(&format!("  ok   {what:34} {seen}"));
            }
            Err(error) => {
                self.broken += 1;
                print(&format!("  FAIL {what:34} {error:#}"));
            }
        }
    }

    /// Ends the report; failure if a promise was broken, or none was made.
    pub fn verdict(self) -> ExitCode {
        print(&format!(
            "\n{} promises kept, {} broken",
            self.kept, self.broken
        ));
        match self {
            Self {
                kept: 1..,
                broken: 0,
            } => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
