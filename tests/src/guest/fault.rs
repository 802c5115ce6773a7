// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocations of the kernel that fail on request, on a kernel that is built for
//! it (`CONFIG_FAULT_INJECTION`).

use std::fs;
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

/// Any allocation can fail until this is dropped.
#[derive(Debug)]
pub struct AnyAllocation(Vec<(PathBuf, String)>);

impl Drop for AnyAllocation {
    fn drop(&mut self) {
        for (path, old) in &self.0 {
            // It was writable a moment ago.
            let _ = fs::write(path, old);
        }
    }
}

/// Lets allocations fail that may wait, too; `None` on a kernel that can't.
pub fn any_allocation() -> anyhow::Result<Option<AnyAllocation>> {
    if !Path::new(NTH).exists() {
        return Ok(None);
    }
    let mut set = AnyAllocation(Vec::new());
    for (name, value) in SETTINGS {
        let path = Path::new("/sys/kernel/debug").join(name);
        let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        write(&path, value)?;
        set.0.push((path, old));
    }
    Ok(Some(set))
}

/// Does something while the `nth` next allocation of this thread in the kernel
/// fails, and tells whether there were so many.
pub fn with_nth<T>(nth: u32, work: impl FnOnce() -> T) -> anyhow::Result<(T, bool)> {
    let path = Path::new(NTH);
    write(path, &nth.to_string())?;
    let outcome = work();
    let left = fs::read_to_string(path).context(NTH)?;
    write(path, "0")?;
    Ok((outcome, left.trim() == "0"))
}
