// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looking at a system from below, as an attacker or a clumsy program does.

pub mod allocation;
pub mod child;
pub mod cinema;
pub mod coherence;
pub mod control_group;
pub mod copier;
pub mod deadline;
pub mod debug;
pub mod decoder;
pub mod display;
pub mod dma_buf;
pub mod encryption;
pub mod fault;
pub mod host;
pub mod hostile;
pub mod importer;
pub mod kcore;
pub mod mapping;
pub mod memory;
pub mod module;
mod new_fd;
pub mod open_files;
pub mod pressure;
pub mod reserved_memory;
pub mod search;
pub mod socket;
pub mod supplicant;
pub mod ta;
pub mod tee_ioctl;
pub mod video;

use ringfence::control::Control;
use ringfence::heap::HeapInfo;
use rustix::io::Errno;

/// Fails unless a call failed with exactly this errno.
pub fn expect_errno<T>(
    outcome: Result<T, Errno>,
    expected: Errno,
    what: &str,
) -> anyhow::Result<()> {
    match outcome {
        Err(errno) if errno == expected => Ok(()),
        Err(errno) => anyhow::bail!("{what}: failed with {errno:?} ({errno}), not {expected:?}"),
        Ok(_) => anyhow::bail!("{what}: worked, instead of failing with {expected:?}"),
    }
}

/// What the driver says of the heap of this name.
pub fn heap_info(name: &str) -> anyhow::Result<HeapInfo> {
    Control::open()?
        .heaps()?
        .into_iter()
        .find(|info| info.name == name)
        .ok_or_else(|| anyhow::anyhow!("the driver has no heap {name}"))
}
