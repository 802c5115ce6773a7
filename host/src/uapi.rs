// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control device's ioctls, as in `kmod/include/uapi/ringfence.h`.
//!
//! The structures are extensible by their size, which is part of the ioctl
//! number: a driver takes a shorter one as if filled up with zeros, and a
//! longer one if what it doesn't know is zero.

use std::mem::{offset_of, size_of};

use rustix::ioctl::{opcode, Opcode};

/// The control device.
pub const CONTROL_PATH: &str = "/dev/ringfence";

/// Magic number of the ioctls.
pub const MAGIC: u8 = 0xb6;

/// Bytes of a heap's name, the final NUL included.
pub const NAME_SIZE: usize = 64;

/// Flag: fenced off from the normal world.
pub const PROTECTED: u32 = 1;
/// Flag: may be mapped and accessed by the CPU.
pub const CPU_ACCESS: u32 = 2;
/// Flag: physically contiguous.
pub const CONTIGUOUS: u32 = 4;
/// Flag, heaps only: there is a backend, so that allocations can succeed.
pub const ONLINE: u32 = 0x100;
/// All of a heap's region is fenced while any buffer lives in it.
pub const WHOLE_REGION: u32 = 0x200;

/// Flag, allocation only: take the upper end of the memory that fits.
pub const ALLOC_TOP_DOWN: u32 = 0x10000;
/// Flag, allocation only: rather fail than take longer for a larger buffer.
pub const ALLOC_NO_WAIT: u32 = 0x20000;

/// Heaps that one allocation may name.
pub const ALLOC_MAX_HEAPS: usize = 16;

/// What came of a heap that was not asked, as another one served.
pub const NOT_TRIED: i32 = -1;

/// `struct ringfence_buffer_info`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BufferInfo {
    /// In: a dma-buf.
    pub fd: i32,
    /// Out: [`PROTECTED`], [`CPU_ACCESS`], [`CONTIGUOUS`].
    pub flags: u32,
    /// Out: bytes.
    pub size: u64,
    /// Out: the secure world's name for it; 0 when it is not protected.
    pub handle: u64,
    /// Out: number of a use case.
    pub use_case: u32,
    /// Must be 0.
    pub pad: u32,
    /// Out: the heap's name, NUL-terminated.
    pub heap: [u8; NAME_SIZE],
}

/// `struct ringfence_heap_info`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct HeapInfo {
    /// In: which heap, from 0.
    pub index: u32,
    /// Out: as for buffers, [`ONLINE`] and [`WHOLE_REGION`].
    pub flags: u32,
    /// Out: bytes in the region.
    pub size: u64,
    /// Out: bytes that are free.
    pub free: u64,
    /// Out: bytes in the longest free run.
    pub largest_free: u64,
    /// Out: bytes that are never handed out.
    pub quarantined: u64,
    /// Out: bytes that are fenced now.
    pub protected_bytes: u64,
    /// Out: live buffers.
    pub buffers: u32,
    /// Out: number of a use case.
    pub use_case: u32,
    /// Out: bytes, start alignment of every buffer.
    pub alignment: u32,
    /// Must be 0.
    pub pad: u32,
    /// Out: the heap's name, NUL-terminated.
    pub name: [u8; NAME_SIZE],
    /// Out: bytes of live buffers.
    pub used: u64,
    /// Out: the most that `used` ever was.
    pub high_water: u64,
    /// Out: buffers that were ever made.
    pub allocations: u64,
    /// Out: allocations that were refused.
    pub failures: u64,
    /// Out: bytes, the unit in which memory is taken.
    pub granule: u64,
    /// Out: bytes, the largest alignment that can be asked for.
    pub max_alignment: u64,
    /// Out: [`ALLOC_TOP_DOWN`], [`ALLOC_NO_WAIT`]: what can be asked for.
    pub alloc_flags: u32,
    /// Must be 0.
    pub pad2: u32,
}

/// `struct ringfence_alloc`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Alloc {
    /// In: bytes.
    pub size: u64,
    /// In: bytes to which the start is aligned; 0 for what the heap does anyhow.
    pub alignment: u64,
    /// In: address of `heap_count` names of [`NAME_SIZE`] bytes.
    pub heaps: u64,
    /// In: 0, or address of `heap_count` numbers: 0, [`NOT_TRIED`] or an errno.
    pub outcomes: u64,
    /// In: 1 to [`ALLOC_MAX_HEAPS`].
    pub heap_count: u32,
    /// In: `ALLOC_*`, and the properties that the buffer must have.
    pub flags: u32,
    /// In: flags of the fd.
    pub fd_flags: u32,
    /// Out: which of the heaps served; in: 0.
    pub index: u32,
    /// Out: the dma-buf; in: 0.
    pub fd: i32,
    /// Must be 0.
    pub pad: u32,
}

/// `struct ringfence_sync`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Sync {
    /// In: a dma-buf.
    pub fd: i32,
    /// In: `DMA_BUF_SYNC_*`.
    pub flags: u32,
    /// In: bytes from the start of the buffer.
    pub offset: u64,
    /// In: bytes.
    pub length: u64,
}

/// `RINGFENCE_IOCTL_BUFFER_INFO`.
pub const BUFFER_INFO: Opcode = opcode::read_write::<BufferInfo>(MAGIC, 0);

/// `RINGFENCE_IOCTL_HEAP_INFO`.
pub const HEAP_INFO: Opcode = opcode::read_write::<HeapInfo>(MAGIC, 1);

/// `RINGFENCE_IOCTL_ALLOC`.
pub const ALLOC: Opcode = opcode::read_write::<Alloc>(MAGIC, 2);

/// `RINGFENCE_IOCTL_SYNC`.
pub const SYNC: Opcode = opcode::read_write::<Sync>(MAGIC, 3);

const _: () = {
    assert!(size_of::<BufferInfo>() == 96);
    assert!(offset_of!(BufferInfo, size) == 8);
    assert!(offset_of!(BufferInfo, handle) == 16);
    assert!(offset_of!(BufferInfo, use_case) == 24);
    assert!(offset_of!(BufferInfo, heap) == 32);
    assert!(size_of::<HeapInfo>() == 184);
    assert!(offset_of!(HeapInfo, used) == 128);
    assert!(offset_of!(HeapInfo, alloc_flags) == 176);
    assert!(size_of::<Alloc>() == 56);
    assert!(offset_of!(Alloc, heap_count) == 32);
    assert!(offset_of!(Alloc, fd) == 48);
    assert!(size_of::<Sync>() == 24);
    assert!(offset_of!(HeapInfo, size) == 8);
    assert!(offset_of!(HeapInfo, protected_bytes) == 40);
    assert!(offset_of!(HeapInfo, buffers) == 48);
    assert!(offset_of!(HeapInfo, alignment) == 56);
    assert!(offset_of!(HeapInfo, name) == 64);
};

impl BufferInfo {
    /// The question about one dma-buf.
    pub const fn ask(fd: i32) -> Self {
        Self {
            fd,
            flags: 0,
            size: 0,
            handle: 0,
            use_case: 0,
            pad: 0,
            heap: [0; NAME_SIZE],
        }
    }
}

impl HeapInfo {
    /// The question about one heap.
    pub const fn ask(index: u32) -> Self {
        Self {
            index,
            flags: 0,
            size: 0,
            free: 0,
            largest_free: 0,
            quarantined: 0,
            protected_bytes: 0,
            buffers: 0,
            use_case: 0,
            alignment: 0,
            pad: 0,
            name: [0; NAME_SIZE],
            used: 0,
            high_water: 0,
            allocations: 0,
            failures: 0,
            granule: 0,
            max_alignment: 0,
            alloc_flags: 0,
            pad2: 0,
        }
    }
}

/// A name as the driver takes it; `None` for one that is empty, too long, or has
/// a NUL inside.
pub fn encode_name(name: &str) -> Option<[u8; NAME_SIZE]> {
    if name.is_empty() || name.len() >= NAME_SIZE || name.contains('\0') {
        return None;
    }
    let mut bytes = [0; NAME_SIZE];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Some(bytes)
}

/// The name in a NUL-terminated array.
pub fn name(bytes: &[u8; NAME_SIZE]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(NAME_SIZE);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that a C program gets from the header on arm64 and x86-64.
    #[test]
    fn ioctl_numbers() {
        assert_eq!(BUFFER_INFO, 0xc060_b600);
        assert_eq!(HEAP_INFO, 0xc0b8_b601);
        assert_eq!(ALLOC, 0xc038_b602);
        assert_eq!(SYNC, 0xc018_b603);
    }

    #[test]
    fn a_name_ends_at_its_nul_or_at_the_end() {
        let mut bytes = [b'x'; NAME_SIZE];
        assert_eq!(name(&bytes).len(), NAME_SIZE);
        bytes[3] = 0;
        assert_eq!(name(&bytes), "xxx");
    }

    #[test]
    fn a_name_that_does_not_fit_is_not_cut() {
        assert_eq!(name(&encode_name("camera").unwrap()), "camera");
        assert!(encode_name(&"x".repeat(NAME_SIZE - 1)).is_some());
        for wrong in [String::new(), "x".repeat(NAME_SIZE), "a\0b".into()] {
            assert!(encode_name(&wrong).is_none(), "{wrong:?}");
        }
    }
}
