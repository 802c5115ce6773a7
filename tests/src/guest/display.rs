// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stand-in for a trusted display: the kernel module
//! `ringfence_trusted_display`, and what is on its screen, as the host sees it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

use super::module;
use crate::host_port::{ask, Reply, Request, PORT_PATH};

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

/// What a picture of the screen looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// [`crate::host_port::digest`] of its pixels, each as red, green and blue.
    pub digest: u64,
}

/// The host, who sees the screen and all of the machine's memory.
#[derive(Debug)]
pub struct Host(File);

impl Host {
    /// Opens the port to it.
    pub fn open() -> anyhow::Result<Self> {
        let port = OpenOptions::new().read(true).write(true).open(PORT_PATH);
        Ok(Self(port.context(PORT_PATH)?))
    }

    /// Asks it something; a refusal is an error.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        match ask(&mut self.0, request)? {
            Reply::Refused { error } => anyhow::bail!("the host refused: {error}"),
            reply => Ok(reply),
        }
    }

    /// Has it take a picture of the screen, and keep it.
    pub fn picture(&mut self, name: &str) -> anyhow::Result<Look> {
        match self.ask(&Request::Picture(name.to_owned()))? {
            Reply::Picture {
                width,
                height,
                digest,
            } => Ok(Look {
                width,
                height,
                digest,
            }),
            other => anyhow::bail!("the host answers {other:?}"),
        }
    }

    /// How much a picture that was taken is like one that the host has: the peak
    /// signal-to-noise ratio, in dB.
    pub fn compare(&mut self, picture: &str, with: &str) -> anyhow::Result<f64> {
        let (picture, with) = (picture.to_owned(), with.to_owned());
        match self.ask(&Request::Compare { picture, with })? {
            Reply::Likeness { psnr } => Ok(psnr),
            other => anyhow::bail!("the host answers {other:?}"),
        }
    }
}
