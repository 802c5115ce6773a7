// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stand-in for a trusted display: the kernel module
//! `ringfence_trusted_display`.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

use super::module;

/// The module's name.
pub const MODULE: &str = "ringfence_trusted_display";

/// The device's file.
pub const PATH: &str = "/dev/ringfence-display";

/// The driver, on the platform bus.
const DRIVER: &str = "/sys/bus/platform/drivers/ringfence_trusted_display";

/// The device's name there.
const DEVICE: &str = "9020010.trusted-display";

/// `DRM_FORMAT_XRGB8888`.
pub const XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

/// `struct ringfence_display_show`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Show {
    /// A dma-buf.
    pub fd: i32,
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub stride: u32,
    /// DRM's four letters.
    pub format: u32,
    /// Must be 0.
    pub flags: u32,
    /// Bytes from the buffer's start to the first line.
    pub offset: u64,
}

/// `RINGFENCE_DISPLAY_IOCTL_SHOW`.
const SHOW: Opcode = opcode::write::<Show>(0xB7, 0);

impl Show {
    /// A picture whose lines follow each other, at the start of a buffer.
    pub fn new(buffer: impl AsFd, width: u32, height: u32) -> Self {
        Self {
            fd: buffer.as_fd().as_raw_fd(),
            width,
            height,
            stride: 4 * width,
            format: XRGB8888,
            flags: 0,
            offset: 0,
        }
    }
}

/// The opened display; closing it makes its screen black.
#[derive(Debug)]
pub struct Display(pub File);

impl Display {
    /// Loads the module and opens the device.
    pub fn open() -> anyhow::Result<Self> {
        module::load(MODULE)?;
        let file = OpenOptions::new().write(true).open(PATH).context(PATH)?;
        Ok(Self(file))
    }

    /// Shows a picture instead of the one before.
    pub fn show(&self, show: Show) -> Result<(), Errno> {
        // SAFETY: The number carries the structure's size, and the kernel only reads it.
        unsafe { ioctl(&self.0, Setter::<SHOW, _>::new(show)) }
    }
}

/// Takes the device from its driver.
pub fn unbind() -> anyhow::Result<()> {
    tell("unbind")
}

/// Gives the device to its driver.
pub fn bind() -> anyhow::Result<()> {
    tell("bind")
}

fn tell(what: &str) -> anyhow::Result<()> {
    let path = Path::new(DRIVER).join(what);
    fs::write(&path, DEVICE).with_context(|| path.display().to_string())
}
