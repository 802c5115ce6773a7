// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel memory that runs out on request, for one thread: see
//! `Documentation/fault-injection` of the kernel.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;

/// The knobs of the two allocators.
const KNOBS: [(&str, &str); 5] = [
    ("failslab/verbose", "0"),
    ("failslab/ignore-gfp-wait", "N"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
];

/// The current thread's wish for failure, taken back when this is dropped.
#[derive(Debug)]
pub struct Failure(File);

const PATH: &str = "/proc/thread-self/fail-nth";

/// Whether this kernel can do it.
pub fn is_possible() -> bool {
    Path::new(PATH).exists()
}

impl Failure {
    /// Prepares failures in calls of the current thread.
    pub fn new() -> anyhow::Result<Self> {
        for (name, value) in KNOBS {
            let path = Path::new("/sys/kernel/debug").join(name);
            fs::write(&path, value).with_context(|| path.display().to_string())?;
        }
        let file = OpenOptions::new().read(true).write(true).open(PATH);
        file.context(PATH).map(Self)
    }

    fn write(&self, nth: u32) -> anyhow::Result<()> {
        // In place: what this thread allocates meanwhile would count.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |shift: u32| DIGITS[(nth >> shift) as usize & 0xf];
        let text = [b'0', b'x', digit(8), digit(4), digit(0)];
        self.0.write_all_at(&text, 0).context("fail-nth")
    }

    /// Makes the `nth` next allocation fail, up to 4095.
    pub fn arm(&self, nth: u32) -> anyhow::Result<()> {
        self.write(nth)
    }

    /// Takes it back, and tells whether an allocation has failed.
    pub fn disarm(&self) -> anyhow::Result<bool> {
        let mut text = [0; 16];
        let length = self.0.read_at(&mut text, 0)?;
        self.write(0)?;
        let left: u32 = std::str::from_utf8(&text[..length])?.trim().parse()?;
        Ok(left == 0)
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        // A thread that can't take it back has other problems by then.
        let _ = self.write(0);
    }
}
