// SPDX-License-Identifier: MIT OR Apache-2.0

//! What user space, and devices on its behalf, can do with a dma-buf.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use anyhow::Context;
use ringfence::buffer::Buffer;
use rustix::fs::{fcntl_add_seals, ftruncate, memfd_create, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Setter, Updater};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::new_fd;

/// `DMA_BUF_SYNC_READ`.
pub const SYNC_READ: u64 = 1;
/// `DMA_BUF_SYNC_WRITE`.
pub const SYNC_WRITE: u64 = 2;
/// `DMA_BUF_SYNC_END`; without it a sync starts.
pub const SYNC_END: u64 = 4;

/// `DMA_BUF_IOCTL_SYNC`: says that the CPU begins or ends an access.
pub fn sync(buffer: impl AsFd, flags: u64) -> Result<(), Errno> {
    const SYNC: rustix::ioctl::Opcode = opcode::write::<u64>(b'b', 0);
    // SAFETY: `struct dma_buf_sync` is one u64, which the kernel only reads.
    unsafe { ioctl(buffer, Setter::<SYNC, u64>::new(flags)) }
}

/// Maps `length` bytes at `offset` and unmaps them again.
pub fn map(
    buffer: impl AsFd,
    length: usize,
    offset: u64,
    protection: ProtFlags,
    flags: MapFlags,
) -> Result<(), Errno> {
    // SAFETY: A new mapping at an address of the kernel's choice, which nobody
    // uses before it is undone.
    let mapped = unsafe { mmap(ptr::null_mut(), length, protection, flags, buffer, offset) }?;
    // SAFETY: As above.
    unsafe { munmap(mapped, length) }
}

/// A device that takes dma-bufs: one of the DRM subsystem's for tests.
pub struct Importer(File);

/// A buffer that the importer holds, by its GEM handle.
#[derive(Debug, Clone, Copy)]
pub struct Imported(u32);

#[repr(C)]
struct PrimeHandle {
    handle: u32,
    flags: u32,
    fd: i32,
}

#[repr(C)]
struct GemClose {
    handle: u32,
    pad: u32,
}

impl Importer {
    /// Finds vgem; its module must be loaded.
    pub fn open() -> anyhow::Result<Self> {
        Self::of("vgem")
    }

    /// Finds the device of a driver; its module must be loaded.
    pub fn of(driver: &str) -> anyhow::Result<Self> {
        for entry in fs::read_dir("/sys/class/drm").context("/sys/class/drm")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let device = fs::canonicalize(format!("/sys/class/drm/{name}/device"));
            let is_its = device.is_ok_and(|path| path.ends_with(driver));
            if name.starts_with("card") && !name.contains('-') && is_its {
                let path = format!("/dev/dri/{name}");
                return OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map(Self)
                    .context(path);
            }
        }
        anyhow::bail!("no {driver} among the DRM devices")
    }

    /// Attaches the buffer to the device and maps it for its DMA.
    pub fn import(&self, buffer: &Buffer) -> Result<Imported, Errno> {
        const PRIME_FD_TO_HANDLE: rustix::ioctl::Opcode =
            opcode::read_write::<PrimeHandle>(b'd', 0x2e);
        let mut argument = PrimeHandle {
            handle: 0,
            flags: 0,
            fd: buffer.as_fd().as_raw_fd(),
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe {
            ioctl(
                &self.0,
                Updater::<PRIME_FD_TO_HANDLE, _>::new(&mut argument),
            )
        }?;
        Ok(Imported(argument.handle))
    }

    /// Gives a buffer back.
    pub fn close(&self, imported: Imported) -> Result<(), Errno> {
        const GEM_CLOSE: rustix::ioctl::Opcode = opcode::write::<GemClose>(b'd', 9);
        let argument = GemClose {
            handle: imported.0,
            pad: 0,
        };
        // SAFETY: The number carries the structure's size; it is only read.
        unsafe { ioctl(&self.0, Setter::<GEM_CLOSE, _>::new(argument)) }
    }
}

/// A dma-buf of another exporter: ordinary memory, through udmabuf.
pub fn foreign(size: u64) -> anyhow::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    const CREATE: rustix::ioctl::Opcode = opcode::write::<Create>(b'u', 0x42);

    let name = CString::new("foreign")?;
    let memory = memfd_create(&name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, size)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK)?;
    let driver = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/udmabuf")
        .context("/dev/udmabuf")?;
    let mut create = Create {
        memfd: memory.as_raw_fd().try_into()?,
        flags: 1, // UDMABUF_FLAGS_CLOEXEC
        offset: 0,
        size,
    };
    // SAFETY: `UDMABUF_CREATE` reads that structure, and answers a new descriptor.
    Ok(unsafe { new_fd::create(&driver, CREATE, &mut create) }?)
}
