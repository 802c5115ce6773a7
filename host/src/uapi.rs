// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control device's ioctls, as in `kmod/include/uapi/ringfence.h`.
//!
//! Both structures are extensible by their size, which is part of the ioctl
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
}

/// `RINGFENCE_IOCTL_BUFFER_INFO`.
pub const BUFFER_INFO: Opcode = opcode::read_write::<BufferInfo>(MAGIC, 0);

/// `RINGFENCE_IOCTL_HEAP_INFO`.
pub const HEAP_INFO: Opcode = opcode::read_write::<HeapInfo>(MAGIC, 1);

const _: () = {
    assert!(size_of::<BufferInfo>() == 96);
    assert!(offset_of!(BufferInfo, size) == 8);
    assert!(offset_of!(BufferInfo, handle) == 16);
    assert!(offset_of!(BufferInfo, use_case) == 24);
    assert!(offset_of!(BufferInfo, heap) == 32);
    assert!(size_of::<HeapInfo>() == 128);
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
        }
    }
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
        assert_eq!(HEAP_INFO, 0xc080_b601);
    }

    #[test]
    fn a_name_ends_at_its_nul_or_at_the_end() {
        let mut bytes = [b'x'; NAME_SIZE];
        assert_eq!(name(&bytes).len(), NAME_SIZE);
        bytes[3] = 0;
        assert_eq!(name(&bytes), "xxx");
    }
}
