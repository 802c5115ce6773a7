// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suites that run in the guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use super::counts::Counts;
use super::transcript::Page;
use crate::artefact::kernel::Flavour;
use crate::bench;
use crate::cache::Cache;
use crate::content;
use crate::ladder::Ladder;
use crate::screening::Screening;
use crate::stack::Stack;
use crate::suites::{GuestBoot, Proof, LATENCY_SUITE};
use crate::vm::{self, Boot, Outcome, Task, Verdict};

/// The suite that has a film played before witnesses, and the pictures at which it is stopped.
const SCREENING_SUITE: &str = "video";
const PAUSES: [u32; 3] = [3, 12, 22];

/// Boots and runs `suites` of `ringfence-tests`.
pub fn run(
    cache: &Cache,
    stack: &Stack,
    boot: &GuestBoot,
    suites: &[&str],
    page: &Page,
) -> Result<Counts> {
    let directory = vm::run_directory(cache)?;
    let ladder = Ladder::new(cache)?;
    let content = content::prepare(&ladder, stack, &directory.join("share"))?;
    if boot.images {
        copy_images(stack, &content.directory)?;
    }
    let mut needles = vec![content.needles.clone()];
    let mut originals = None;
    if boot.screening && suites.contains(&SCREENING_SUITE) {
        let title = &stack.clip.title;
        let film = Screening::prepare(&ladder, title, &stack.film, &directory, &PAUSES)?;
        needles.push(film.needles);
        originals = Some(film.originals);
    }
    let script = format!(
        "{}failed=0; for suite in {}; do ringfence-tests $suite || failed=1; done; exit $failed",
        settings(),
        suites.join(" ")
    );
    let (sink, output) = page.recorder();
    let outcome = vm::boot(
        stack,
        &Boot {
            board: boot.board,
            conditions: boot.conditions,
            bootargs: boot.bootargs,
            share: Some(&content.directory),
            needles,
            originals,
            timeout: Some(time_limit(stack)),
            sink,
            ..Boot::of(shell(&script), directory)
        },
    )?;
    check_interrupted(&outcome)?;
    let printed = output.lock().expect("no holder panics").clone();
    let counts = Counts::of_output(&String::from_utf8_lossy(&printed));
    if matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(counts);
    }
    // A suite that failed to start has no summary, and a crash is nobody's summary.
    page.line(outcome.explain());
    Ok(counts.and_failed())
}

/// Variables of the environment that say how long tests go on that could for ever, and with which
/// random numbers.
const SETTINGS: [&str; 4] = [
    "RINGFENCE_CYCLES",
    "RINGFENCE_SOAK_OPERATIONS",
    "RINGFENCE_FUZZ_SECONDS",
    "RINGFENCE_SEED",
];

/// The settings of this process, as assignments for a shell in the guest.
fn settings() -> String {
    SETTINGS
        .iter()
        .filter_map(|name| {
            let value = std::env::var(name).ok()?;
            Some(format!("export {name}={}; ", shell_words::quote(&value)))
        })
        .collect()
}

/// Gives the guest what it has itself booted from.
fn copy_images(stack: &Stack, share: &Path) -> Result<()> {
    for (from, name) in [
        (stack.kernel.image(), "Image"),
        (stack.initramfs.archive(), "initramfs"),
    ] {
        std::fs::copy(&from, share.join(name)).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// Measures, and judges the figures that have a bound.
pub fn run_latency(cache: &Cache, stack: &Stack, page: &Page) -> Result<Counts> {
    let judgements = match bench::gate(cache, stack)? {
        Ok(judgements) => judgements,
        Err(outcome) => {
            check_interrupted(&outcome)?;
            page.line(outcome.explain());
            return Ok(Counts::FAILED);
        }
    };
    let mut counts = Counts::default();
    for (name, judged) in judgements {
        page.line(match &judged {
            Ok(said) => format!("test {LATENCY_SUITE}::{name} ... ok: {said}"),
            Err(error) => format!("test {LATENCY_SUITE}::{name} ... FAILED: {error:#}"),
        });
        counts += judged.is_ok().into();
    }
    Ok(counts)
}

/// Makes faults on purpose; each test of `proof` passes when the run ends because of its own.
pub fn prove(cache: &Cache, stack: &Stack, proof: &Proof, page: &Page) -> Result<Counts> {
    let directory = vm::run_directory(cache)?;
    let content = content::prepare(&Ladder::new(cache)?, stack, &directory.join("share"))?;
    let (sink, _) = page.recorder();
    let outcome = vm::boot(
        stack,
        &Boot {
            conditions: proof.conditions,
            share: Some(&content.directory),
            timeout: Some(time_limit(stack)),
            sink,
            ..Boot::of(shell(proof.command), directory)
        },
    )?;
    check_interrupted(&outcome)?;
    let found: &[String] = match &outcome.verdict {
        Verdict::Reported(0, reports) if !proof.fatal => reports,
        Verdict::Crashed(line) if proof.fatal => std::slice::from_ref(line),
        _ => &[],
    };
    let mut counts = Counts::default();
    for (name, mark) in proof.marks {
        let proven = found.iter().any(|line| line.contains(mark));
        page.line(if proven {
            format!("test {}::{name} ... ok", proof.suite)
        } else {
            format!(
                "test {}::{name} ... FAILED: no run that ended for {mark:?}\n{}",
                proof.suite,
                outcome.explain()
            )
        });
        counts += proven.into();
    }
    Ok(counts)
}

/// The tests are over when somebody asks for their end.
fn check_interrupted(outcome: &Outcome) -> Result<()> {
    match outcome.verdict {
        Verdict::Interrupted(signal) => bail!("interrupted by signal {signal}"),
        _ => Ok(()),
    }
}

fn shell(script: &str) -> Task {
    Task::Command(["sh", "-c", script].map(str::to_owned).to_vec())
}

fn time_limit(stack: &Stack) -> Duration {
    match stack.kernel.flavour {
        Flavour::Plain => Duration::from_secs(600),
        Flavour::Debug => Duration::from_secs(1800),
    }
}
