// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's own test of dma-buf heaps, unmodified, result by result.
//!
//! It tests every heap that there is, and fails on heaps that refuse mmap; so it
//! runs where only those of the system and of contiguous memory are to be seen.

use std::process::Command;

use anyhow::Context;
use libtest_mimic::{Failed, Trial};
use ringfence::heap::HEAPS_PATH;
use ringfence_tests::guest::module;

use super::cma::{DEFAULT, REGION};

const PROGRAM: &str = "kselftest-dmabuf-heap";

/// The heaps, each with 12 results.
const HEAPS: [&str; 3] = ["system", DEFAULT, REGION];
const RESULTS: usize = 36;

/// Runs it, and makes a test of each of its results.
pub fn trials() -> Vec<Trial> {
    let results = run().and_then(|output| {
        let results = parse(&output);
        anyhow::ensure!(
            results.len() == RESULTS,
            "{} results:\n{output}",
            results.len()
        );
        Ok(results)
    });
    match results {
        Ok(results) => results.into_iter().map(trial).collect(),
        Err(error) => vec![Trial::test("kselftest::it_runs", move || {
            Err(Failed::from(format!("{error:#}")))
        })],
    }
}

struct Outcome {
    name: String,
    line: String,
}

fn trial(outcome: Outcome) -> Trial {
    Trial::test(format!("kselftest::{}", outcome.name), move || {
        // A result that was skipped is none.
        if outcome.line.starts_with("ok ") && !outcome.line.contains("# SKIP") {
            Ok(())
        } else {
            Err(Failed::from(outcome.line))
        }
    })
}

fn run() -> anyhow::Result<String> {
    module::load("vgem")?;
    // The nodes themselves, in a folder of this mount namespace's own.
    let nodes = HEAPS.map(|heap| format!("{HEAPS_PATH}/{heap}")).join(" ");
    let script = format!(
        "set -e; mkdir -p /run/kselftest; mount -t tmpfs tmpfs /run/kselftest; \\
         cp -a {nodes} /run/kselftest/; mount --bind /run/kselftest {HEAPS_PATH}; exec {PROGRAM}"
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .context("unshare")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{}: {}\n{text}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// The results of the Test Anything Protocol, named by heap and by number.
fn parse(text: &str) -> Vec<Outcome> {
    let mut heap = "";
    let mut outcomes = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# Testing heap: ") {
            heap = name;
        } else if line.starts_with("ok ") || line.starts_with("not ok ") {
            let what: String = line
                .trim_start_matches("not ")
                .chars()
                .skip_while(|&c| !c.is_ascii_digit())
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            outcomes.push(Outcome {
                name: format!("{heap}::{what}"),
                line: line.to_owned(),
            });
        }
    }
    outcomes
}
