// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's control device, `/dev/ringfence`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, Updater};

use crate::buffer::{Access, Buffer, BufferInfo, Phase};
use crate::error::Error;
use crate::fallback::Allocation;
use crate::heap::{HeapInfo, History};
use crate::request::Request;
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
        Ok(self.raw_heap(index)?.map(|raw| HeapInfo::from(&raw)))
    }

    fn raw_heap(&self, index: u32) -> Result<Option<uapi::HeapInfo>, Error> {
        let mut info = uapi::HeapInfo::ask(index);
        // SAFETY: `HEAP_INFO` carries the size of `uapi::HeapInfo`, a `repr(C)`
        // structure for which any bytes are valid, so the driver reads and
        // writes within `info`, which is borrowed mutably for the call.
        let done = unsafe { ioctl(&self.0, Updater::<{ uapi::HEAP_INFO }, _>::new(&mut info)) };
        match done {
            Ok(()) => Ok(Some(info)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::Driver {
                what: "describe a heap",
                source: errno.into(),
            }),
        }
    }

    /// All heaps of the driver.
    pub fn heaps(&self) -> Result<Vec<HeapInfo>, Error> {
        let heaps = self.heaps_with_history()?;
        Ok(heaps.into_iter().map(|(info, _)| info).collect())
    }

    /// All heaps of the driver, with what became of their allocations.
    pub fn heaps_with_history(&self) -> Result<Vec<(HeapInfo, History)>, Error> {
        let mut heaps = Vec::new();
        for index in 0.. {
            match self.raw_heap(index)? {
                Some(raw) => heaps.push((HeapInfo::from(&raw), History::from(&raw))),
                None => break,
            }
        }
        Ok(heaps)
    }

    /// Allocates from the first heap of the request that can do all it asks for.
    ///
    /// # Errors
    ///
    /// [`Error::NoneServed`] if none can, [`Error::Malformed`] for a request that
    /// can't be put to the driver.
    pub fn allocate(&self, request: &Request) -> Result<Allocation, Error> {
        let names = request.encode_names()?;
        let mut outcomes = [uapi::NOT_TRIED; uapi::ALLOC_MAX_HEAPS];
        let mut argument = uapi::Alloc {
            size: request.size(),
            alignment: request.alignment.unwrap_or(0),
            heaps: names.as_ptr() as u64,
            outcomes: outcomes.as_mut_ptr() as u64,
            // At most `ALLOC_MAX_HEAPS`, as `encode_names` has checked.
            heap_count: names.len() as u32,
            flags: request.flags(),
            fd_flags: (OFlags::RDWR | OFlags::CLOEXEC).bits(),
            ..Default::default()
        };
        // SAFETY: `ALLOC` carries the size of `uapi::Alloc`, a `repr(C)`
        // structure for which any bytes are valid, and which is borrowed
        // mutably for the call. It has the addresses of `names`, which is only
        // read, and of `outcomes`, which has room for as many numbers; both
        // live on.
        let done = unsafe { ioctl(&self.0, Updater::<{ uapi::ALLOC }, _>::new(&mut argument)) };
        let outcomes = &outcomes[..names.len()];
        match done {
            Ok(()) => {
                // SAFETY: The call has succeeded, so this is a new fd that
                // nobody else owns.
                let fd = unsafe { OwnedFd::from_raw_fd(argument.fd) };
                Ok(Allocation {
                    buffer: Buffer::from(fd),
                    heap: request.heap(argument.index as usize).to_owned(),
                    refused: request.refusals(outcomes),
                })
            }
            Err(errno) => Err(request.failure(errno, outcomes)),
        }
    }

    /// Says that the CPU begins or ends an access to a part of a buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Sync`] says why there is no such access.
    pub fn sync(
        &self,
        dma_buf: impl AsFd,
        access: Access,
        phase: Phase,
        range: Range<u64>,
    ) -> Result<(), Error> {
        let mut argument = uapi::Sync {
            fd: dma_buf.as_fd().as_raw_fd(),
            flags: access.flags() | phase.flags(),
            offset: range.start,
            length: range.end.saturating_sub(range.start),
        };
        // SAFETY: `SYNC` carries the size of `uapi::Sync`, a `repr(C)` structure
        // for which any bytes are valid, and which is borrowed mutably for the
        // call. The fd in it is borrowed for the call as well.
        let done = unsafe { ioctl(&self.0, Updater::<{ uapi::SYNC }, _>::new(&mut argument)) };
        done.map_err(|errno| Error::Sync {
            range,
            source: errno.into(),
        })
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
