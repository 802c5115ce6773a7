// SPDX-License-Identifier: MIT OR Apache-2.0

//! `DMA_HEAP_IOCTL_ALLOC` with every field in the caller's hands.

use std::ffi::c_void;
use std::fs::File;
use std::mem::size_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use ringfence::buffer::Buffer;
use ringfence::heap::HEAPS_PATH;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, Opcode, Updater};
use rustix::mm::{mmap_anonymous, mprotect, munmap, MapFlags, MprotectFlags, ProtFlags};

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

/// An address for an ioctl, of whatever is there.
#[derive(Debug, Clone, Copy)]
pub struct Argument(pub *mut c_void);

impl Argument {
    /// Calls an ioctl that says it reads and writes `size` bytes there.
    ///
    /// # Safety
    ///
    /// What can be written of the `size` bytes may be changed by the kernel.
    pub unsafe fn ioctl(
        self,
        file: &File,
        magic: u8,
        number: u8,
        size: usize,
    ) -> Result<(), Errno> {
        let raw = Raw {
            opcode: opcode::from_components(
                rustix::ioctl::Direction::ReadWrite,
                magic,
                number,
                size,
            ),
            argument: self.0,
        };
        // SAFETY: By the function's contract.
        unsafe { ioctl(file, raw) }
    }
}

/// A page that can be read and not written, so that no answer fits there.
#[derive(Debug)]
pub struct ReadOnlyPage(*mut c_void);

impl ReadOnlyPage {
    const SIZE: usize = 4096;

    /// A page that begins with the words, and goes on with zeros.
    pub fn new(words: &[u64]) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let page = Self(unsafe {
            mmap_anonymous(ptr::null_mut(), Self::SIZE, protection, MapFlags::PRIVATE)
        }?);
        let room = page.0.cast::<u64>();
        for (index, word) in words.iter().enumerate().take(Self::SIZE / 8) {
            // SAFETY: The index is inside the page, which is writable and aligned.
            unsafe { room.add(index).write(*word) };
        }
        // SAFETY: Nobody writes to the page from here on.
        unsafe { mprotect(page.0, Self::SIZE, MprotectFlags::READ) }?;
        Ok(page)
    }

    /// Calls an ioctl with the page as its argument.
    pub fn ioctl(&self, file: &File, opcode: Opcode) -> Result<(), Errno> {
        let raw = Raw {
            opcode,
            argument: self.0,
        };
        // SAFETY: The kernel reads a page that is there, and finds that it must
        // not write to it.
        unsafe { ioctl(file, raw) }
    }
}

impl Drop for ReadOnlyPage {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own. It can fail for addresses
        // only that were never mapped.
        let _ = unsafe { munmap(self.0, Self::SIZE) };
    }
}

/// Calls an ioctl with its argument at address 0.
pub fn ioctl_null(file: &File, opcode: Opcode) -> Result<(), Errno> {
    let raw = Raw {
        opcode,
        argument: ptr::null_mut(),
    };
    // SAFETY: There is no memory at address 0.
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
    unsafe { ioctl(heap, Updater::<ALLOC, _>::new(&mut data)) }?;
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
