// SPDX-License-Identifier: MIT OR Apache-2.0

//! A screen that is a device: `/dev/ringfence-display` takes a dma-buf, which this
//! process can't read, and has it scanned out.

use std::fs::File;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

use super::player::{Frame, Screen};
use crate::error::Error;

/// `struct ringfence_display_show` of the driver's header.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Show {
    /// A dma-buf.
    fd: i32,
    /// Pixels in a line.
    width: u32,
    /// Lines.
    height: u32,
    /// Bytes from one line to the next.
    stride: u32,
    /// DRM's code of the format.
    format: u32,
    /// 0.
    flags: u32,
    /// Bytes from the buffer's start to the first line.
    offset: u64,
}

/// `RINGFENCE_DISPLAY_IOCTL_SHOW`.
const SHOW: Opcode = opcode::write::<Show>(0xb7, 0);

/// `DRM_FORMAT_XRGB8888`.
const XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

const _: () = assert!(size_of::<Show>() == 32);

/// The open device. It keeps what it shows until it shows something else, or is
/// closed.
#[derive(Debug)]
pub struct Display(File);

impl Display {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(Self)
            .map_err(|source| Error::Open {
                path: path.to_owned(),
                source,
            })
    }
}

impl Screen for Display {
    fn show(&mut self, frame: &Frame<'_>) -> Result<(), Error> {
        let show = Show {
            fd: frame.buffer.as_fd().as_raw_fd(),
            width: frame.width,
            height: frame.height,
            stride: frame.stride,
            format: XRGB8888,
            flags: 0,
            offset: 0,
        };
        // SAFETY: the ioctl reads a `ringfence_display_show`, which `Show` mirrors, and
        // its number carries its size; it writes nothing.
        unsafe { ioctl(&self.0, Setter::<SHOW, Show>::new(show)) }.map_err(|errno| Error::Driver {
            what: "show a frame",
            source: errno.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ioctl_has_the_drivers_number() {
        // _IOW(0xB7, 0, 32 bytes): write is 1 in the uppermost two bits.
        assert_eq!(SHOW, 0x4020_b700);
        assert_eq!(XRGB8888, 0x3432_5258);
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = Display::open(Path::new("/dev/none-such")).unwrap_err();
        assert!(error.to_string().contains("/dev/none-such"), "{error}");
    }
}
