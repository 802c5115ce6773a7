// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's control device, `/dev/ringfence`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{ioctl, Updater};

use crate::buffer::BufferInfo;
use crate::error::Error;
use crate::heap::HeapInfo;
use crate::uapi;

/// The open control device.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    /// Opens the control device; that is for root unless a udev rule says
    /// otherwise.
    pub fn open() -> Result<Self, Error> {
        let path = Path::new(uapi::CONTROL_PATH);
        File::open(path).map(Self).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })
    }

    /// What the driver says of its heap number `index`, from 0; `None` past
    /// the last one.
    pub fn heap(&self, index: u32) -> Result<Option<HeapInfo>, Error> {
        let mut info = uapi::HeapInfo::ask(index);
        // SAFETY: `HEAP_INFO` carries the size of `uapi::HeapInfo`, a `repr(C)`
        // structure for which any bytes are valid, so the driver reads and
        // writes within `info`, which is borrowed mutably for the call.
        let done = unsafe { ioctl(&self.0, Updater::<{ uapi::HEAP_INFO }, _>::new(&mut info)) };
        match done {
            Ok(()) => Ok(Some(HeapInfo::from(&info))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::Driver {
                what: "describe a heap",
                source: errno.into(),
            }),
        }
    }

    /// All heaps of the driver.
    pub fn heaps(&self) -> Result<Vec<HeapInfo>, Error> {
        let mut heaps = Vec::new();
        for index in 0.. {
            match self.heap(index)? {
                Some(info) => heaps.push(info),
                None => break,
            }
        }
        Ok(heaps)
    }

    /// What the driver says of a dma-buf.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is none of its own.
    pub fn buffer(&self, dma_buf: impl AsFd) -> Result<BufferInfo, Error> {
        let mut info = uapi::BufferInfo::ask(dma_buf.as_fd().as_raw_fd());
        // SAFETY: `BUFFER_INFO` carries the size of `uapi::BufferInfo`, a
        // `repr(C)` structure for which any bytes are valid, so the driver
        // reads and writes within `info`, which is borrowed mutably for the
        // call. The fd in it is borrowed for the call as well.
        let done = unsafe { ioctl(&self.0, Updater::<{ uapi::BUFFER_INFO }, _>::new(&mut info)) };
        match done {
            Ok(()) => Ok(BufferInfo::from(&info)),
            Err(Errno::INVAL) => Err(Error::Foreign),
            Err(errno) => Err(Error::Driver {
                what: "describe a buffer",
                source: io::Error::from(errno),
            }),
        }
    }
}
