// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in this process's memory.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

/// A shared mapping of a whole buffer, for reading and writing.
#[derive(Debug)]
pub struct Mapping {
    address: *mut c_void,
    length: usize,
}

impl Mapping {
    /// Maps the first `length` bytes of a buffer.
    pub fn new(buffer: impl AsFd, length: usize) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                buffer,
                0,
            )
        }?;
        Ok(Self { address, length })
    }

    /// Writes one byte over all of it.
    pub fn fill(&mut self, byte: u8) {
        // SAFETY: The mapping has so many bytes, and the kernel gives pages to all of them.
        unsafe { ptr::write_bytes(self.address.cast::<u8>(), byte, self.length) };
    }

    /// How many bytes differ from `byte`.
    pub fn others_than(&self, byte: u8) -> usize {
        let words = u64::from_ne_bytes([byte; 8]);
        // SAFETY: The mapping is aligned to pages and has so many words. Who else has the buffer
        // leaves it alone meanwhile.
        let all =
            unsafe { std::slice::from_raw_parts(self.address.cast::<u64>(), self.length / 8) };
        all.iter().filter(|&&word| word != words).count() * 8
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own. It can fail for addresses only that were never
        // mapped.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}
