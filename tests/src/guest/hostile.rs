// SPDX-License-Identifier: MIT OR Apache-2.0

//! The hostile kernel module, which attacks from inside the kernel: its orders
//! are described in `tests/kmod/hostile`.

use std::fs;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use rustix::io::Errno;

use super::module;

const ORDER: &str = "/sys/kernel/debug/ringfence_hostile/order";

/// The module's name.
pub const MODULE: &str = "ringfence_hostile";

/// The device that may have the buffers of protected heaps.
pub const TRUSTED_DISPLAY: &str = "/trusted-display@9020010";

/// The loaded module; unloaded when this is dropped.
#[derive(Debug)]
pub struct Hostile(());

/// What a device sees of a buffer that is mapped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The address for its DMA.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Entries of the scatter list.
    pub entries: u64,
    /// Entries that have a page for the CPU.
    pub pages: u64,
}

impl Hostile {
    /// Loads the module.
    pub fn load() -> anyhow::Result<Self> {
        module::load(MODULE)?;
        Ok(Self(()))
    }

    /// The module, if it is loaded, for a process that does not unload it.
    pub fn loaded() -> Option<ManuallyDrop<Self>> {
        fs::exists(ORDER)
            .unwrap_or(false)
            .then_some(ManuallyDrop::new(Self(())))
    }

    /// Gives an order; the errno is what the attack met.
    pub fn order(&self, order: &str) -> Result<(), Errno> {
        fs::write(ORDER, order).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// The numbers that the last order has brought home.
    fn loot(&self) -> anyhow::Result<Vec<u64>> {
        let text = fs::read_to_string(ORDER).context(ORDER)?;
        text.split_whitespace()
            .map(|word| {
                let digits = word.strip_prefix("0x").unwrap_or(word);
                u64::from_str_radix(digits, 16).with_context(|| text.clone())
            })
            .collect()
    }

    fn number(&self, order: &str) -> anyhow::Result<u64> {
        self.order(order).with_context(|| order.to_owned())?;
        self.loot()?.pop().context("the order brings nothing home")
    }

    /// Calls the firmware from the kernel.
    pub fn smc(&self, function: u64, x1: u64, x2: u64) -> anyhow::Result<u64> {
        self.number(&format!("smc {function:#x} {x1:#x} {x2:#x}"))
    }

    /// Attaches a buffer to a device, and detaches it.
    pub fn attach(&self, buffer: impl AsFd, device: &str) -> Result<(), Errno> {
        self.order(&format!("attach {} {device}", raw(buffer)))
    }

    /// Attaches a buffer to a device and maps it for the device's DMA, until
    /// [`Self::release`].
    pub fn map(&self, buffer: impl AsFd, device: &str) -> Result<View, Errno> {
        self.take(buffer, device)?;
        match self.loot().as_deref() {
            Ok(&[address, size, entries, pages]) => Ok(View {
                address,
                size,
                entries,
                pages,
            }),
            _ => Err(Errno::PROTO),
        }
    }

    /// As [`Self::map`], for those who don't care what the device sees.
    pub fn take(&self, buffer: impl AsFd, device: &str) -> Result<(), Errno> {
        self.order(&format!("map {} {device}", raw(buffer)))
    }

    /// Gives back all buffers that are mapped.
    pub fn release(&self) -> Result<(), Errno> {
        self.order("release")
    }

    /// Wants a buffer mapped into the kernel.
    pub fn vmap(&self, buffer: impl AsFd) -> Result<(), Errno> {
        self.order(&format!("vmap {}", raw(buffer)))
    }

    /// Wants to access a buffer by the CPU, as an importer.
    pub fn cpu_access(&self, buffer: impl AsFd) -> Result<(), Errno> {
        self.order(&format!("cpu {}", raw(buffer)))
    }

    /// Maps a page into the kernel and touches it, or not.
    pub fn touch(&self, physical: u64, mapping: &str, touch: &str) -> anyhow::Result<u64> {
        self.number(&format!("touch {physical:#x} {mapping} {touch}"))
    }

    /// The trusted application's answer to PROTECT, asked by the kernel.
    pub fn protect(&self, start: u64, size: u64) -> anyhow::Result<u64> {
        self.number(&format!("protect {start:#x} {size:#x}"))
    }

    /// The trusted application's answer to UNPROTECT, asked by the kernel.
    pub fn unprotect(&self, handle: u64) -> anyhow::Result<u64> {
        self.number(&format!("unprotect {handle:#x}"))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // The next test that wants the module finds it loaded then.
        let _ = module::unload(MODULE);
    }
}

fn raw(buffer: impl AsFd) -> i32 {
    buffer.as_fd().as_raw_fd()
}
