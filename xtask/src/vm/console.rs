// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watches what the guest's kernel and firmware print: keeps it, and tells a crash and a report of a
//! debugging facility from the rest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;

/// Lines that are shown when a run ends badly.
const TAIL_LINES: usize = 40;

/// The kernel is lost, or firmware is.
const CRASHES: [&str; 9] = [
    "Kernel panic - not syncing",
    "Internal error: ",
    "Unable to handle kernel",
    "kernel BUG at",
    "PANIC at PC",
    "Unhandled Exception in EL3",
    "BACKTRACE: START",
    "RETURN FROM PANIC",
    "rcu: INFO: rcu_sched detected stalls",
];

/// OP-TEE's core is lost. Of a trusted application the same words are an ordinary event.
const CORE_PANIC: [&str; 2] = ["E/TC:", " Panic "];

/// A facility of the debug kernel, a warning of any kernel, or a module's own test (KUnit) has found a
/// fault; or a facility has given up, and would find no more.
const REPORTS: [&str; 19] = [
    "BUG: ",
    "WARNING: ",
    "UBSAN: ",
    "DMA-API: device driver",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "invalid wait context",
    "new suspected memory leaks",
    "unreferenced object 0x",
    "blocked for more than",
    "scheduling while atomic",
    "list_add corruption",
    " not ok ",
    "dma-debug disabled",
    "ODEBUG disabled",
    "leak detector disabled",
    "turning off the locking correctness validator",
];

/// What a line says about the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The guest is lost.
    Crash,
    /// It goes on, with a fault found.
    Report,
}

/// Judges one line of console output.
pub fn judge(line: &str) -> Option<Finding> {
    let core_panic = CORE_PANIC.iter().all(|part| line.contains(part));
    if core_panic || CRASHES.iter().any(|mark| line.contains(mark)) {
        Some(Finding::Crash)
    } else if REPORTS.iter().any(|mark| line.contains(mark)) {
        Some(Finding::Report)
    } else {
        None
    }
}

/// A console's output so far.
#[derive(Debug)]
pub struct Console {
    log: File,
    partial: Vec<u8>,
    last: VecDeque<String>,
    reports: Vec<String>,
    crash: Option<String>,
}

impl Console {
    /// A console that is kept in the file `log`.
    pub fn new(log: &Path) -> Result<Self> {
        Ok(Self {
            log: File::create(log)?,
            partial: Vec::new(),
            last: VecDeque::new(),
            reports: Vec::new(),
            crash: None,
        })
    }

    /// Takes output; returns whether a crash was seen in it for the first time.
    pub fn take(&mut self, output: &[u8]) -> std::io::Result<bool> {
        self.log.write_all(output)?;
        let lost_before = self.crash.is_some();
        self.partial.extend_from_slice(output);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            match judge(&line) {
                Some(Finding::Crash) if self.crash.is_none() => self.crash = Some(line.clone()),
                Some(_) => self.reports.push(line.clone()),
                None => {}
            }
            self.last.push_back(line);
            if self.last.len() > TAIL_LINES {
                self.last.pop_front();
            }
        }
        Ok(!lost_before && self.crash.is_some())
    }

    /// The line by which the guest was found lost.
    pub fn crash(&self) -> Option<&str> {
        self.crash.as_deref()
    }

    /// Faults found by debugging facilities.
    pub fn reports(&self) -> &[String] {
        &self.reports
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        let partial = String::from_utf8_lossy(&self.partial);
        let unfinished = (!partial.is_empty()).then(|| partial.into_owned());
        self.last.iter().cloned().chain(unfinished).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_lost_when_its_kernel_or_core_panics() {
        for line in [
            "[    3.1] Kernel panic - not syncing: Fatal exception",
            "[    3.1] Internal error: Oops: 0000000096000028 [#1] SMP",
            "E/TC:0 0 Panic at core/kernel/panic.c:10 <x>",
            "PANIC at PC : 0x000000000e0a1234",
        ] {
            assert_eq!(judge(line), Some(Finding::Crash), "{line}");
        }
    }

    #[test]
    fn reports_of_the_debug_kernel_are_seen() {
        for line in [
            "[    9.0] BUG: KASAN: slab-out-of-bounds in lkdtm_SLAB",
            "[    9.0] WARNING: possible circular locking dependency detected",
            "[   30.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "[    9.0] UBSAN: array-index-out-of-bounds in x.c:1:1",
            "[    9.0] DMA-API: device driver frees DMA memory with different size",
            "[    2.0]     not ok 3 what_is_put_is_dirty_until_the_worker_comes",
            "[   90.2] DMA-API: cacheline tracking ENOMEM, dma-debug disabled",
            "[   90.2] kmemleak: Kernel memory leak detector disabled",
        ] {
            assert_eq!(judge(line), Some(Finding::Report), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_and_refused_accesses_are_neither() {
        for line in [
            "[    0.0] DMA-API: preallocated 65536 debug entries",
            "[    5.0] devmem[123]: unhandled exception: unknown 40, ESR 0x92000028",
            "E/TC:? 0 TA panicked with code 0xdeadbeef",
            "[    2.0]     ok 3 what_is_put_is_dirty_until_the_worker_comes",
            "[    0.0] kmemleak: Kernel memory leak detector initialized (mem pool available: 35000)",
        ] {
            assert_eq!(judge(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_in_two_pieces_is_one_line() {
        let log = std::env::temp_dir().join(format!("ringfence-console-{}", std::process::id()));
        let mut console = Console::new(&log).expect("the temporary directory is writable");
        assert!(!console.take(b"[ 1.0] Kernel pan").expect("written"));
        assert!(console.take(b"ic - not syncing: x\n").expect("written"));
        assert!(!console
            .take(b"[ 1.1] Kernel panic - not syncing: y\n")
            .expect("written"));
        assert_eq!(
            console.crash(),
            Some("[ 1.0] Kernel panic - not syncing: x")
        );
        std::fs::remove_file(log).expect("it was created");
    }
}
