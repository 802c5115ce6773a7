// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: host tests and guest suites, counted together.
//!
//! What is missing is built first. Then everything that runs is a job: a suite of the building
//! machine, or a boot. As many jobs run side by side as there are processors, those that take longest
//! first, and in that order their outputs follow each other in the [`transcript`].

mod counts;
mod failures;
mod guest;
mod host;
mod transcript;

use std::cmp::Reverse;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};

use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::stack::{Build, Stack};
use crate::suites::{GUEST, HOST, LATENCY_SECONDS, LATENCY_SUITE, NOT_ABOUT_THE_KERNEL, PROOFS};
pub use counts::Counts;
use transcript::{Page, Transcript};

/// Jobs that run side by side at most: each boot takes memory for a machine of its own.
const MAX_SIDE_BY_SIDE: usize = 4;

/// Runs something that prints on the page.
type Work<'s> = Box<dyn Fn(&Page) -> Result<Counts> + Send + Sync + 's>;

/// What runs by itself: a heading, how many seconds it may take, and the work.
struct Job<'s> {
    title: String,
    seconds: u32,
    work: Work<'s>,
}

impl<'s> Job<'s> {
    fn new(
        title: impl Into<String>,
        seconds: u32,
        work: impl Fn(&Page) -> Result<Counts> + Send + Sync + 's,
    ) -> Self {
        Self {
            title: title.into(),
            seconds,
            work: Box::new(work),
        }
    }
}

/// Runs the suites named, or all, on the kernels given; the host's with the plain one only.
pub fn run(cache: &Cache, flavours: &[Flavour], names: &[String]) -> Result<Counts> {
    check_names(names)?;
    let stacks = flavours
        .iter()
        .map(|&flavour| Stack::declare(cache, flavour, Build::Test))
        .collect::<Result<Vec<_>>>()?;
    let mut jobs = Vec::new();
    for stack in &stacks {
        if stack.kernel.flavour == Flavour::Plain {
            jobs.extend(host_jobs(stack, names));
        }
        let in_guest = guest_jobs(cache, stack, names);
        if !in_guest.is_empty() {
            stack.build_for_content()?;
        }
        jobs.extend(in_guest);
    }
    jobs.sort_by_key(|job| Reverse(job.seconds));
    execute(jobs)
}

fn is_wanted(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|other| other == name)
}

/// Whether a suite of the guest is wanted on a kernel: the debug kernel looks for faults of the kernel.
fn is_wanted_on(flavour: Flavour, names: &[String], name: &str) -> bool {
    let is_left_out =
        flavour == Flavour::Debug && names.is_empty() && NOT_ABOUT_THE_KERNEL.contains(&name);
    is_wanted(names, name) && !is_left_out
}

fn host_jobs<'s>(stack: &'s Stack, names: &[String]) -> Vec<Job<'s>> {
    HOST.into_iter()
        .filter(|(name, ..)| is_wanted(names, name))
        .map(|(name, suite, seconds)| {
            Job::new(name, seconds, move |page| host::run(stack, suite, page))
        })
        .collect()
}

fn guest_jobs<'s>(cache: &'s Cache, stack: &'s Stack, names: &[String]) -> Vec<Job<'s>> {
    let flavour = stack.kernel.flavour;
    let mut jobs = Vec::new();
    for boot in GUEST.iter().filter(|boot| boot.kernels.include(flavour)) {
        let suites: Vec<&str> = boot
            .suites
            .iter()
            .copied()
            .filter(|name| is_wanted_on(flavour, names, name))
            .collect();
        if !suites.is_empty() {
            let title = format!("guest, {flavour} kernel: {}", suites.join(" "));
            jobs.push(Job::new(title, boot.takes(flavour), move |page| {
                guest::run(cache, stack, boot, &suites, page)
            }));
        }
    }
    if flavour == Flavour::Plain && is_wanted(names, LATENCY_SUITE) {
        let title = "guest: latency, in instructions";
        jobs.push(Job::new(title, LATENCY_SECONDS, |page| {
            guest::run_latency(cache, stack, page)
        }));
    }
    for proof in PROOFS
        .iter()
        .filter(|proof| proof.kernels.include(flavour) && is_wanted(names, proof.suite))
    {
        let names: Vec<&str> = proof.marks.iter().map(|(name, _)| *name).collect();
        let title = format!(
            "guest, {flavour} kernel: {}: {}",
            proof.suite,
            names.join(" ")
        );
        jobs.push(Job::new(title, proof.seconds, move |page| {
            guest::prove(cache, stack, proof, page)
        }));
    }
    jobs
}

fn check_names(names: &[String]) -> Result<()> {
    let host = HOST.iter().map(|(name, ..)| *name);
    let guest = GUEST.iter().flat_map(|boot| boot.suites.iter().copied());
    let mut known: Vec<&str> = host
        .chain(guest)
        .chain([LATENCY_SUITE])
        .chain(PROOFS.iter().map(|proof| proof.suite))
        .collect();
    let mut seen = std::collections::HashSet::new();
    known.retain(|name| seen.insert(*name));
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => bail!("no suite {unknown}; there are: {}", known.join(" ")),
        None => Ok(()),
    }
}

/// What the workers share.
#[derive(Default)]
struct Progress {
    next: usize,
    counts: Counts,
    failure: Option<anyhow::Error>,
    /// How long each job took, by its number.
    times: Vec<(Duration, usize)>,
    /// Numbers of the jobs in which something failed.
    failed: Vec<usize>,
}

/// Runs all jobs, says how long each took, and repeats what failed. After an error no further one is
/// begun.
fn execute(jobs: Vec<Job<'_>>) -> Result<Counts> {
    let begun = Instant::now();
    let transcript = Transcript::new(jobs.len());
    let progress = Mutex::new(Progress::default());
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_SIDE_BY_SIDE);
    let work = || loop {
        let index = {
            let mut progress = progress.lock().expect("workers do not panic");
            if progress.failure.is_some() || progress.next == jobs.len() {
                return;
            }
            progress.next += 1;
            progress.next - 1
        };
        let page = transcript.page(index);
        page.line(format!("==== {}", jobs[index].title));
        let begun = Instant::now();
        let outcome = (jobs[index].work)(&page);
        let took = begun.elapsed();
        drop(page);
        let mut progress = progress.lock().expect("workers do not panic");
        progress.times.push((took, index));
        match outcome {
            Ok(counts) => {
                progress.counts += counts;
                if counts.has_failures() {
                    progress.failed.push(index);
                }
            }
            Err(error) => {
                progress.failure.get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers.min(jobs.len()) {
            scope.spawn(work);
        }
    });
    let mut progress = progress.into_inner().expect("workers do not panic");
    progress.times.sort_by_key(|&(took, _)| Reverse(took));
    println!(
        "==== {:.0} s in all; each job:",
        begun.elapsed().as_secs_f64()
    );
    for (took, index) in progress.times {
        println!("{:>5.0} s  {}", took.as_secs_f64(), jobs[index].title);
    }
    for index in progress.failed {
        println!("==== what failed: {}", jobs[index].title);
        for line in failures::excerpt(&transcript.text(index)) {
            println!("{line}");
        }
    }
    match progress.failure {
        Some(error) => Err(error),
        None => Ok(progress.counts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let error = check_names(&["nonsense".to_owned()]).expect_err("there is none");
        assert!(error.to_string().contains("protect"));
        assert!(check_names(&["heaps".to_owned(), "host".to_owned()]).is_ok());
    }

    #[test]
    fn the_debug_kernel_runs_what_is_named_and_what_is_about_the_kernel() {
        let named = ["decoder".to_owned()];
        assert!(is_wanted_on(Flavour::Plain, &[], "decoder"));
        assert!(!is_wanted_on(Flavour::Debug, &[], "decoder"));
        assert!(is_wanted_on(Flavour::Debug, &[], "heaps"));
        assert!(is_wanted_on(Flavour::Debug, &named, "decoder"));
        assert!(!is_wanted_on(Flavour::Debug, &named, "heaps"));
    }

    #[test]
    fn every_suite_that_is_left_out_exists() {
        for name in NOT_ABOUT_THE_KERNEL {
            assert!(check_names(&[name.to_owned()]).is_ok(), "{name}");
        }
    }

    #[test]
    fn counts_of_all_jobs_are_added_up() {
        let jobs = (0..9)
            .map(|number| Job::new("job", number, move |_: &Page| Ok((number % 3 != 0).into())))
            .collect();
        let counts = execute(jobs).expect("no job ends with an error");
        assert_eq!(counts.to_string(), "6 passed, 3 failed, 0 skipped");
    }

    #[test]
    fn no_job_begins_after_an_error() {
        let begun = Mutex::new(0);
        let jobs = (0..100)
            .map(|_| {
                Job::new("job", 1, |_: &Page| {
                    *begun.lock().expect("no holder panics") += 1;
                    bail!("on purpose")
                })
            })
            .collect();
        assert!(execute(jobs).is_err());
        assert!(*begun.lock().expect("no holder panics") <= MAX_SIDE_BY_SIDE);
    }
}
