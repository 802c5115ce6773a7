// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device on the PCI bus that copies within a dma-buf by DMA: the kernel module
//! `ringfence_copier`, and QEMU's device behind it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Updater};

use super::module;

/// Name of the kernel module.
pub const MODULE: &str = "ringfence_copier";
const PATH: &str = "/dev/ringfence-copier";

/// Bytes of a copy at most.
pub const MOST: usize = 4096;

#[repr(C)]
struct Copy {
    fd: i32,
    length: u32,
    from: u64,
    to: u64,
    entries: u32,
    pad: u32,
}

const COPY: Opcode = opcode::read_write::<Copy>(0xB7, 16);

/// The device.
pub struct Copier(File);

impl Copier {
    /// Loads the module and opens the device.
    pub fn open() -> anyhow::Result<Self> {
        module::load(MODULE)?;
        File::open(PATH).map(Self).context(PATH)
    }

    /// Imports a buffer, and copies `length` bytes of it from one offset to another;
    /// none of no bytes. Answers in how many pieces the device had it.
    pub fn copy(&self, buffer: impl AsFd, from: u64, to: u64, length: usize) -> Result<u32, Errno> {
        let mut copy = Copy {
            fd: buffer.as_fd().as_raw_fd(),
            length: u32::try_from(length).map_err(|_| Errno::INVAL)?,
            from,
            to,
            entries: 0,
            pad: 0,
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&self.0, Updater::<COPY, _>::new(&mut copy)) }?;
        Ok(copy.entries)
    }
}
