// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocations of the kernel that fail on request, on a kernel that is built for
//! it (`CONFIG_FAULT_INJECTION`).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

const NTH: &str = "/proc/thread-self/fail-nth";

/// How the kinds of failure are set up here, and what they were before.
const SETTINGS: [(&str, &str); 6] = [
    // No stack in the log for each of them.
    ("failslab/verbose", "0"),
    ("failslab/ignore-gfp-wait", "N"),
    ("fail_page_alloc/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/ignore-gfp-highmem", "N"),
    ("fail_page_alloc/min-order", "0"),
];

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{}: {text}", path.display()))
}

/// Whether this kernel can do it.
pub fn is_possible() -> bool {
    Path::new(NTH).exists()
}

/// Any allocation of this thread can fail until this is dropped.
#[derive(Debug)]
pub struct AnyAllocation {
    /// Open from the start, as opening it allocates.
    nth: File,
    old: Vec<(PathBuf, String)>,
}

impl Drop for AnyAllocation {
    fn drop(&mut self) {
        for (path, old) in &self.old {
            // It was writable a moment ago.
            let _ = fs::write(path, old);
        }
    }
}

impl AnyAllocation {
    /// Lets allocations fail that may wait, too, on a kernel that [can](is_possible).
    pub fn new() -> anyhow::Result<Self> {
        let nth = OpenOptions::new().read(true).write(true).open(NTH);
        let mut this = Self {
            nth: nth.context(NTH)?,
            old: Vec::new(),
        };
        for (name, value) in SETTINGS {
            let path = Path::new("/sys/kernel/debug").join(name);
            let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            write(&path, value)?;
            this.old.push((path, old));
        }
        Ok(this)
    }

    /// Does something while the `nth` next allocation of this thread in the kernel
    /// fails, and tells whether there were so many.
    pub fn with_nth<T>(&self, nth: u32, work: impl FnOnce() -> T) -> anyhow::Result<(T, bool)> {
        self.nth
            .write_all_at(nth.to_string().as_bytes(), 0)
            .context(NTH)?;
        let outcome = work();
        let mut left = [0; 16];
        let length = self.nth.read_at(&mut left, 0).context(NTH)?;
        self.nth.write_all_at(b"0", 0).context(NTH)?;
        let left = std::str::from_utf8(&left[..length])?.trim();
        Ok((outcome, left == "0"))
    }
}
