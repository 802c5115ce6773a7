// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device of the tests' own that imports dma-bufs: the kernel module
//! `ringfence_importer`.
//!
//! It is not cache-coherent, so that a sync of a buffer which is mapped for it
//! costs what the caches' maintenance costs.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Getter, NoArg, Opcode, Updater};

use super::module;

const MODULE: &str = "ringfence_importer";
const PATH: &str = "/dev/ringfence-importer";

/// What the calls of one import cost, in steps of the CPU's counter.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Costs {
    fd: i32,
    pad: u32,
    /// Attaching.
    pub attach: u64,
    /// Mapping for the device, both ways.
    pub map: u64,
    /// The beginning of the CPU's access while it is mapped.
    pub begin: u64,
    /// The end of it.
    pub end: u64,
    /// Unmapping.
    pub unmap: u64,
    /// Detaching.
    pub detach: u64,
    /// Mapping for the kernel.
    pub vmap: u64,
    /// Unmapping from there.
    pub vunmap: u64,
}

/// Which way the device moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// Both ways.
    Both = 0,
    /// It reads.
    ToDevice = 1,
    /// It writes.
    FromDevice = 2,
}

#[repr(C)]
struct Hold {
    fd: i32,
    mapped: u32,
    direction: u32,
    entries: u32,
}

const MEASURE: Opcode = opcode::read_write::<Costs>(0xB7, 0);
const HOLD: Opcode = opcode::read_write::<Hold>(0xB7, 1);
const RELEASE: Opcode = opcode::none(0xB7, 2);
const INTERRUPTS: Opcode = opcode::read::<u64>(0xB7, 3);

/// The device, with room for one buffer; closing it gives the buffer back.
pub struct Importer(File);

impl Importer {
    /// Loads the module and opens the device.
    pub fn open() -> anyhow::Result<Self> {
        module::load(MODULE)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(PATH)
            .map(Self)
            .context(PATH)
    }

    /// Imports a buffer in every way, and gives it back.
    pub fn measure(&self, buffer: impl AsFd) -> Result<Costs, Errno> {
        let mut costs = Costs {
            fd: buffer.as_fd().as_raw_fd(),
            ..Costs::default()
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&self.0, Updater::<MEASURE, _>::new(&mut costs)) }?;
        Ok(costs)
    }

    /// Attaches a buffer, without mapping it.
    pub fn attach(&self, buffer: impl AsFd) -> Result<(), Errno> {
        self.hold(buffer, None).map(|_| ())
    }

    /// Attaches a buffer and maps it for the device; answers how many pieces it has
    /// for it.
    pub fn map(&self, buffer: impl AsFd, direction: Direction) -> Result<u32, Errno> {
        self.hold(buffer, Some(direction))
    }

    fn hold(&self, buffer: impl AsFd, direction: Option<Direction>) -> Result<u32, Errno> {
        let mut hold = Hold {
            fd: buffer.as_fd().as_raw_fd(),
            mapped: direction.is_some().into(),
            direction: direction.unwrap_or(Direction::Both) as u32,
            entries: 0,
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<HOLD, _>::new(&mut hold)) }?;
        Ok(hold.entries)
    }

    /// Interrupts that this processor has had until now.
    pub fn interrupts(&self) -> Result<u64, Errno> {
        // SAFETY: The number carries the size of what is written.
        unsafe { ioctl(&self.0, Getter::<INTERRUPTS, u64>::new()) }
    }

    /// Gives the buffer back, if there is one.
    pub fn release(&self) -> Result<(), Errno> {
        // SAFETY: The call has no argument.
        unsafe { ioctl(&self.0, NoArg::<RELEASE>::new()) }
    }
}
