// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers, and what the driver says of them.

use std::fmt;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dma_buf::DmaBuf;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use serde::Serialize;

use crate::error::Error;
use crate::heap::UseCase;
use crate::uapi;

/// An owned dma-buf. Dropping the last reference to it gives the memory back,
/// and has it scrubbed and opened by the secure world if it was protected.
#[derive(Debug)]
pub struct Buffer(DmaBuf);

impl Buffer {
    /// Takes a reference to the buffer that process `pid` has open as `fd`.
    ///
    /// Needs the right to trace that process; one's own process is allowed.
    pub fn of_process(pid: u32, fd: i32) -> Result<Self, Error> {
        let failed = |errno: rustix::io::Errno| Error::NoFd {
            pid,
            fd,
            source: errno.into(),
        };
        let process = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(failed(rustix::io::Errno::SRCH))?;
        let process = pidfd_open(process, PidfdFlags::empty()).map_err(failed)?;
        pidfd_getfd(process, fd, PidfdGetfdFlags::empty())
            .map(Self::from)
            .map_err(failed)
    }
}

impl From<OwnedFd> for Buffer {
    fn from(fd: OwnedFd) -> Self {
        Self(DmaBuf::from(fd))
    }
}

impl AsFd for Buffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the CPU does with a buffer that devices use as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It does both.
    ReadWrite,
}

impl Access {
    /// `DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_WRITE`.
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::ReadWrite => 3,
        }
    }
}

/// Where an access of the CPU stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It begins.
    Start,
    /// It is over.
    End,
}

impl Phase {
    /// `DMA_BUF_SYNC_START` or `DMA_BUF_SYNC_END`.
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Start => 0,
            Self::End => 4,
        }
    }
}

/// The secure world's name for a protected buffer.
///
/// Whoever knows it can have content decrypted into the buffer, so it is not
/// shown by accident: `Debug` leaves the number out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(NonZeroU64);

impl Handle {
    /// The handle with this number; 0 is none.
    pub fn new(raw: u64) -> Option<Self> {
        NonZeroU64::new(raw).map(Self)
    }

    /// Its number, to be shown knowingly.
    pub fn raw(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(..)")
    }
}

/// What the driver says of a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BufferInfo {
    /// Name of the heap that it is from.
    pub heap: String,
    /// Bytes.
    pub size: u64,
    /// Whether it is fenced off from the normal world.
    pub protected: bool,
    /// Whether it may be mapped and accessed by the CPU.
    pub cpu_access: bool,
    /// Whether it is physically contiguous.
    pub contiguous: bool,
    /// What it is for.
    pub use_case: UseCase,
    /// The secure world's name for it, if it is protected; left out of
    /// serialized forms.
    #[serde(skip)]
    pub handle: Option<Handle>,
}

impl BufferInfo {
    /// The handle of a protected buffer.
    ///
    /// # Errors
    ///
    /// [`Error::NotProtected`] if there is none.
    pub fn protected_handle(&self) -> Result<Handle, Error> {
        self.handle.ok_or_else(|| Error::NotProtected {
            heap: self.heap.clone(),
        })
    }
}

impl From<&uapi::BufferInfo> for BufferInfo {
    fn from(raw: &uapi::BufferInfo) -> Self {
        Self {
            heap: uapi::name(&raw.heap),
            size: raw.size,
            protected: raw.flags & uapi::PROTECTED != 0,
            cpu_access: raw.flags & uapi::CPU_ACCESS != 0,
            contiguous: raw.flags & uapi::CONTIGUOUS != 0,
            use_case: UseCase(raw.use_case),
            handle: Handle::new(raw.handle),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_handle_is_not_shown_by_accident() {
        let mut raw = uapi::BufferInfo::ask(0);
        raw.handle = 0x1234_5678;
        raw.flags = uapi::PROTECTED;
        let info = BufferInfo::from(&raw);
        assert_eq!(info.protected_handle().unwrap().raw(), 0x1234_5678);
        assert!(!format!("{info:?}").contains("305419896"));
        assert!(!serde_json::to_string(&info).unwrap().contains("handle"));
    }

    #[test]
    fn an_unprotected_buffer_has_no_handle() {
        let mut raw = uapi::BufferInfo::ask(0);
        raw.heap[..6].copy_from_slice(b"camera");
        let refused = BufferInfo::from(&raw).protected_handle().unwrap_err();
        assert!(refused.to_string().contains("camera"));
    }

    #[test]
    fn an_fd_of_ones_own_process_can_be_had() {
        let (mut reader, mut writer) = UnixStream::pair().unwrap();
        let pid = std::process::id();
        let copy = Buffer::of_process(pid, writer.as_raw_fd()).unwrap();
        assert_ne!(copy.as_fd().as_raw_fd(), writer.as_raw_fd());
        writer.write_all(b"x").unwrap();
        drop(writer);
        drop(copy);
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "x", "both references are gone, so the stream ended");
    }

    #[test]
    fn a_closed_fd_and_an_impossible_process_are_errors() {
        let pid = std::process::id();
        assert!(matches!(
            Buffer::of_process(pid, 9999),
            Err(Error::NoFd { fd: 9999, .. })
        ));
        assert!(matches!(Buffer::of_process(0, 1), Err(Error::NoFd { .. })));
        assert!(matches!(
            Buffer::of_process(u32::MAX, 1),
            Err(Error::NoFd { .. })
        ));
    }
}
