// SPDX-License-Identifier: MIT OR Apache-2.0

//! `DMA_HEAP_IOCTL_ALLOC` with every field in the caller's hands.

use std::ffi::c_void;
use std::fs::File;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use ringfence::buffer::Buffer;
use ringfence::heap::HEAPS_PATH;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, Opcode};

/// `struct dma_heap_allocation_data`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AllocationData {
    /// In: bytes.
    pub len: u64,
    /// Out: the new fd; in: must be 0.
    pub fd: u32,
    /// In: flags of the new fd.
    pub fd_flags: u32,
    /// In: flags for the heap; none exist.
    pub heap_flags: u64,
}

const _: () = assert!(size_of::<AllocationData>() == 24);

/// `DMA_HEAP_IOCTL_ALLOC`.
pub const ALLOC: Opcode = opcode::read_write::<AllocationData>(b'H', 0);

/// The flags that ordinary callers use.
pub fn ordinary_flags() -> u32 {
    (OFlags::RDWR | OFlags::CLOEXEC).bits()
}

/// An ioctl whose number and argument the caller chooses.
struct Raw {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: The argument is what `Raw::new`'s callers promise: memory for the
// ioctl's whole size, or an address where the kernel finds none.
unsafe impl Ioctl for Raw {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Calls an ioctl with a structure of as many bytes as there are in `argument`.
pub fn ioctl_sized(file: &File, magic: u8, number: u8, argument: &mut [u8]) -> Result<(), Errno> {
    let opcode = opcode::from_components(
        rustix::ioctl::Direction::ReadWrite,
        magic,
        number,
        argument.len(),
    );
    let raw = Raw {
        opcode,
        argument: argument.as_mut_ptr().cast(),
    };
    // SAFETY: The size in the number is that of `argument`, which is borrowed
    // mutably for the call.
    unsafe { ioctl(file, raw) }
}

/// Calls an ioctl with an argument at an address that the kernel can't write.
///
/// # Safety
///
/// At `address` there must be no memory that may be written to, or none whose
/// change matters.
pub unsafe fn ioctl_at(file: &File, opcode: Opcode, address: *mut c_void) -> Result<(), Errno> {
    let raw = Raw {
        opcode,
        argument: address,
    };
    // SAFETY: By the caller's promise.
    unsafe { ioctl(file, raw) }
}

/// Opens a heap's device node.
pub fn open(heap: &str) -> anyhow::Result<File> {
    let path = Path::new(HEAPS_PATH).join(heap);
    File::open(&path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Allocates with exactly these fields.
pub fn allocate(heap: &File, mut data: AllocationData) -> Result<Buffer, Errno> {
    // SAFETY: `data` has the ioctl's size, and is borrowed mutably for the call.
    unsafe { ioctl_at(heap, ALLOC, (&raw mut data).cast()) }?;
    let fd = i32::try_from(data.fd).map_err(|_| Errno::BADF)?;
    // SAFETY: The call has succeeded, so this is a new fd that nobody else owns.
    Ok(Buffer::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Allocates as an ordinary program does.
pub fn allocate_size(heap: &File, len: u64) -> Result<Buffer, Errno> {
    allocate(
        heap,
        AllocationData {
            len,
            fd: 0,
            fd_flags: ordinary_flags(),
            heap_flags: 0,
        },
    )
}
