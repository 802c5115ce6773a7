// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks that end the kernel: the CPU refuses, and the kernel has no answer to
//! that but to stop.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ringfence_tests::guest::hostile::Hostile;
use ringfence_tests::guest::memory::PAGE;

use super::memory::Mapped;
use super::prey::{attacked, Prey};
use crate::suites::region::{self, VIDEO};

/// What the kernel can do to an open page it can do to no other.
fn touch(prey: &Prey, mapping: &str, touch: &str) -> anyhow::Result<()> {
    let hostile = Hostile::load()?;
    let open = region::free_neighbour(VIDEO, prey.range)?;
    for mapping in ["wb", "wc", "io", "vmap"] {
        for touch in ["nothing", "read", "nofault"] {
            let word = hostile.touch(open.start, mapping, touch)?;
            let expected = if touch == "nothing" { u64::MAX } else { 0 };
            anyhow::ensure!(word == expected, "{mapping}, {touch}: {word:#x}");
        }
        // A mapping that nobody uses harms nobody.
        hostile.touch(prey.range.start, mapping, "nothing")?;
    }
    let outcome = hostile.touch(prey.range.start, mapping, touch);
    anyhow::bail!("the kernel lives after {touch} through {mapping}: {outcome:x?}")
}

/// A module maps the buffer into the kernel, and reads it.
pub fn kernel_reads() -> anyhow::Result<()> {
    attacked(|prey| touch(prey, "wb", "nofault"))
}

/// A module maps the buffer into the kernel, and writes to it.
pub fn kernel_writes() -> anyhow::Result<()> {
    attacked(|prey| touch(prey, "vmap", "write"))
}

/// Root has the kernel read its own mapping of the pages for it.
pub fn kernel_reads_for_root() -> anyhow::Result<()> {
    attacked(|prey| {
        let mapped = Mapped::new(prey.range.start)?;
        let memory = File::open("/proc/self/mem")?;
        let mut room = [0; PAGE as usize];
        let outcome = memory.read_at(&mut room, mapped.address());
        anyhow::bail!("the kernel lives after a read of /proc/self/mem: {outcome:?}")
    })
}
