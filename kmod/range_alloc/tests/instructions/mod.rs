// SPDX-License-Identifier: GPL-2.0

//! Counts the instructions of every single call, under `valgrind --tool=callgrind`.
//!
//! A program that uses this module runs itself again under callgrind: [`measure`] is the parent,
//! [`child`] what it starts. Callgrind counts while a function named `measured_…` runs, and writes
//! the count down, and starts at zero again, whenever `callgrind_boundary` is called; so each part
//! of its output is one call.

#[path = "../owned/mod.rs"]
mod owned;
#[path = "../random/mod.rs"]
mod random;
pub mod subject;
pub mod workload;

use std::{
    env, fs, io,
    path::PathBuf,
    process::{Command, Stdio},
};

use ringfence_range_alloc::Request;
use subject::Subject;
use workload::Workload;

/// Tells a program that it is the child, and what to run: `workload/region/subject`.
const JOB: &str = "RINGFENCE_COUNTED_JOB";

/// Where the child writes what its calls were.
const LOG: &str = "RINGFENCE_COUNTED_LOG";

/// What a call was, in the log.
const ALLOC: char = 'a';
const REFUSED: char = 'r';
const FREE: char = 'f';

/// The figures of one kind of call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Number of calls.
    pub calls: usize,
    /// Instructions of the longest.
    pub max: u64,
    /// Instructions of the one in the middle.
    pub median: u64,
}

impl Counts {
    fn of(mut counts: Vec<u64>) -> Self {
        counts.sort_unstable();
        Self {
            calls: counts.len(),
            max: counts.last().copied().unwrap_or(0),
            median: counts.get(counts.len() / 2).copied().unwrap_or(0),
        }
    }
}

/// The figures of one workload.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Allocations that succeeded.
    pub alloc: Counts,
    /// Allocations that no free run was found for.
    pub refused: Counts,
    pub free: Counts,
}

/// Whether callgrind is there.
pub fn available() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs this program again under callgrind, with `arguments` that lead it to [`child`].
pub fn measure(
    arguments: &[&str],
    workload: Workload,
    region: u64,
    subject: &str,
) -> io::Result<Measured> {
    let job = format!("{}/{region}/{subject}", workload.name());
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let base = format!("counted-{}-{}", std::process::id(), job.replace('/', "-"));
    let (counts, log) = (
        directory.join(format!("{base}.callgrind")),
        directory.join(format!("{base}.log")),
    );
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg("--dump-before=*callgrind_boundary*")
        .arg("--toggle-collect=*measured_*")
        .arg("--combine-dumps=yes")
        .arg("--dump-line=no")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe()?)
        .args(arguments)
        .env(JOB, &job)
        .env(LOG, &log)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "{job}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    let parts: Vec<u64> = fs::read_to_string(&counts)?
        .lines()
        .filter_map(|line| line.strip_prefix("totals: "))
        .map(|total| total.parse().map_err(io::Error::other))
        .collect::<Result<_, _>>()?;
    let calls = fs::read_to_string(&log)?;
    fs::remove_file(counts)?;
    fs::remove_file(log)?;
    // The last part is what came after the last call.
    if parts.len() != calls.len() + 1 {
        return Err(io::Error::other(format!(
            "{job}: {} parts of {} calls",
            parts.len(),
            calls.len()
        )));
    }
    let of_kind = |kind: char| {
        let pairs = parts.iter().zip(calls.chars());
        Counts::of(
            pairs
                .filter(|&(_, call)| call == kind)
                .map(|(&count, _)| count)
                .collect(),
        )
    };
    Ok(Measured {
        alloc: of_kind(ALLOC),
        refused: of_kind(REFUSED),
        free: of_kind(FREE),
    })
}

/// Runs what the parent asked for; returns `None` without a parent.
///
/// `other` runs the subjects that this module does not know.
pub fn child(other: impl FnOnce(&str, Workload, u64) -> String) -> Option<()> {
    let job = env::var(JOB).ok()?;
    let log = env::var(LOG).ok()?;
    let mut fields = job.split('/');
    let workload = Workload::named(fields.next()?)?;
    let region = fields.next()?.parse().ok()?;
    let calls = match fields.next()? {
        "ringfence" => run::<subject::Ringfence>(workload, region),
        "gen_pool" => run::<subject::GenPool>(workload, region),
        name => other(name, workload, region),
    };
    fs::write(log, calls).ok()
}

/// Runs a workload on a subject, and returns one letter for each measured call.
pub fn run<S: Subject>(workload: Workload, region: u64) -> String {
    let mut recorder = Recorder {
        subject: S::new(region, workload.max_live(region)),
        calls: String::new(),
    };
    workload.run(&mut recorder, region);
    recorder.calls
}

/// A subject, and what its measured calls were.
pub struct Recorder<S: Subject> {
    subject: S,
    calls: String,
}

impl<S: Subject> Recorder<S> {
    fn alloc(&mut self, request: Request) -> Option<S::Token> {
        let token = measured_alloc(&mut self.subject, request);
        callgrind_boundary();
        self.calls
            .push(if token.is_some() { ALLOC } else { REFUSED });
        token
    }

    fn free(&mut self, token: S::Token) {
        measured_free(&mut self.subject, token);
        callgrind_boundary();
        self.calls.push(FREE);
    }
}

#[inline(never)]
fn measured_alloc<S: Subject>(subject: &mut S, request: Request) -> Option<S::Token> {
    subject.alloc(request)
}

#[inline(never)]
fn measured_free<S: Subject>(subject: &mut S, token: S::Token) {
    subject.free(token);
}

#[inline(never)]
fn callgrind_boundary() {
    std::hint::black_box(());
}
