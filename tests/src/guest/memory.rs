// SPDX-License-Identifier: MIT OR Apache-2.0

//! Physical memory through /dev/mem, read by a child that may be killed for it.
//!
//! A protected page kills whoever touches it, so the reader is a process of
//! its own: this very program, started again with [`CHILD`] as its first
//! argument. A program that uses this module gives [`child`] its arguments
//! before it does anything else.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::ptr;
use std::time::Duration;

use anyhow::Context;
use rustix::mm::{mmap, MapFlags, ProtFlags};

use super::deadline;

/// First argument that makes the program a reader.
pub const CHILD: &str = "--read-physical-memory";

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A run of physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysicalRange {
    /// Address of the first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl PhysicalRange {
    /// The address behind the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// One page of it, counted from its start.
    pub fn page(&self, index: u64) -> Self {
        Self {
            start: self.start + index * PAGE,
            size: PAGE,
        }
    }

    /// Its last page.
    pub fn last_page(&self) -> Self {
        self.page(self.size / PAGE - 1)
    }
}

/// What became of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was killed by this signal.
    Killed(i32),
    /// It read everything, and this many bytes were not zero.
    Read {
        /// Bytes that were not zero.
        nonzero: u64,
    },
}

/// Has a child read a range, and perhaps write it first.
fn run(action: &str, range: PhysicalRange) -> anyhow::Result<Outcome> {
    let output = Command::new("/proc/self/exe")
        .args([
            CHILD,
            action,
            &range.start.to_string(),
            &range.size.to_string(),
        ])
        .output()
        .context("the reader can't be started")?;
    if let Some(signal) = output.status.signal() {
        return Ok(Outcome::Killed(signal));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    match (output.status.success(), said.trim().parse()) {
        (true, Ok(nonzero)) => Ok(Outcome::Read { nonzero }),
        _ => anyhow::bail!(
            "the reader of {range:x?} failed by itself ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

/// Reads a range, whole pages.
pub fn read(range: PhysicalRange) -> anyhow::Result<Outcome> {
    run("read", range)
}

/// Fills a range, whole pages, with bytes other than zero, and reads it back.
pub fn fill(range: PhysicalRange) -> anyhow::Result<Outcome> {
    run("fill", range)
}

/// A child that reads a range over and over, until it is killed for it or finds
/// a byte that is not zero.
#[derive(Debug)]
pub struct Spinner {
    child: Child,
    range: PhysicalRange,
}

impl Spinner {
    /// Starts it, and waits until it has read the range, whole pages, once.
    pub fn start(range: PhysicalRange) -> anyhow::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args([
                CHILD,
                "spin",
                &range.start.to_string(),
                &range.size.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .context("the reader can't be started")?;
        let mut this = Self { child, range };
        let mut line = String::new();
        BufReader::new(this.child.stdout.take().context("no standard output")?)
            .read_line(&mut line)?;
        anyhow::ensure!(line == "0\n", "the reader of {range:x?} says {line:?}");
        Ok(this)
    }

    /// Waits until it has ended, or ends it when it reads on for that long.
    pub fn end(mut self, limit: Duration) -> anyhow::Result<Outcome> {
        let ended = deadline::until(limit, "the reader ends", || Ok(self.child.try_wait()?));
        let status = match ended {
            Ok(status) => status,
            Err(_) => {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(Outcome::Read { nonzero: 0 });
            }
        };
        match (status.signal(), status.code()) {
            (Some(signal), _) => Ok(Outcome::Killed(signal)),
            (None, Some(FOUND)) => Ok(Outcome::Read { nonzero: 1 }),
            _ => anyhow::bail!("the reader of {:x?} failed: {status}", self.range),
        }
    }
}

/// Exit code of a [`Spinner`] that has found something.
const FOUND: i32 = 10;

/// Whether this is how the CPU's refusal ends a process.
pub fn is_refusal(outcome: Outcome) -> bool {
    /// `SIGBUS`: a kernel that knows granule protection faults.
    const SIGBUS: i32 = 7;
    /// `SIGKILL`: Linux 7.3, to which they are "unknown 40".
    const SIGKILL: i32 = 9;
    matches!(outcome, Outcome::Killed(signal) if [SIGBUS, SIGKILL].contains(&signal))
}

/// Fails unless a reader of the range is killed by the CPU's refusal.
pub fn expect_killed(range: PhysicalRange, what: &str) -> anyhow::Result<i32> {
    match read(range)? {
        outcome @ Outcome::Killed(signal) if is_refusal(outcome) => Ok(signal),
        other => anyhow::bail!("{what}: a reader of {range:x?} was not killed: {other:?}"),
    }
}

/// Fails unless the range can be read and is all zeros.
pub fn expect_zero(range: PhysicalRange, what: &str) -> anyhow::Result<()> {
    match read(range)? {
        Outcome::Read { nonzero: 0 } => Ok(()),
        other => anyhow::bail!("{what}: {range:x?} does not read as zeros: {other:?}"),
    }
}

/// The reader's part: does what the arguments say if the first is [`CHILD`].
pub fn child(arguments: &[String]) -> Option<ExitCode> {
    match arguments {
        [first, rest @ ..] if first == CHILD => Some(match play_child(rest) {
            Ok(nonzero) => {
                // The parent takes silence for failure.
                let _ = writeln!(io::stdout(), "{nonzero}");
                match rest {
                    [action, ..] if action == "spin" => ExitCode::from(FOUND as u8),
                    _ => ExitCode::SUCCESS,
                }
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        }),
        _ => None,
    }
}

fn play_child(arguments: &[String]) -> anyhow::Result<u64> {
    let [action, start, size] = arguments else {
        anyhow::bail!("usage: {CHILD} read|fill|spin START BYTES");
    };
    let (start, size): (u64, usize) = (start.parse()?, size.parse()?);
    let fills = action == "fill";
    let memory = OpenOptions::new()
        .read(true)
        .write(fills)
        .open("/dev/mem")
        .context("/dev/mem")?;
    let protection = match fills {
        true => ProtFlags::READ | ProtFlags::WRITE,
        false => ProtFlags::READ,
    };
    // SAFETY: A new mapping at an address of the kernel's choice; the memory
    // behind it belongs to no Rust object.
    let mapped = unsafe {
        mmap(
            ptr::null_mut(),
            size,
            protection,
            MapFlags::SHARED,
            &memory,
            start,
        )
    }
    .with_context(|| format!("mmap of {size} bytes at {start:#x}"))?
    .cast::<u64>();
    // The mapping is uncached: whole aligned words only.
    let words = size / 8;
    if fills {
        for index in 0..words {
            // SAFETY: `index` is inside the mapping, which is writable, aligned
            // to pages, and stays until the process ends.
            unsafe { ptr::write_volatile(mapped.add(index), 0x5a5a_5a5a_5a5a_5a5a) };
        }
    }
    let nonzero = || {
        (0..words)
            .map(|index| {
                // SAFETY: As above, and readable.
                let word = unsafe { ptr::read_volatile(mapped.add(index)) };
                word.to_ne_bytes().iter().filter(|byte| **byte != 0).count() as u64
            })
            .sum()
    };
    let mut found = nonzero();
    if action == "spin" {
        writeln!(io::stdout(), "{found}")?;
        while found == 0 {
            found = nonzero();
        }
    }
    Ok(found)
}
