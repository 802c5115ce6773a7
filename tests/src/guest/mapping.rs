// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in this process's memory.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

/// A mapping that may be read and written, until it is dropped.
///
/// Devices and other processes may have the memory too, so that no reference to it
/// is given out: it is accessed a word at a time.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<c_void>,
    size: usize,
}

/// Bytes in a page.
const PAGE: usize = 4096;

impl Mapping {
    /// Maps `size` bytes from the start of a buffer.
    pub fn new(buffer: impl AsFd, size: usize) -> Result<Self, Errno> {
        Self::part(buffer, 0, size, MapFlags::SHARED)
    }

    /// Maps `size` bytes at `offset`.
    pub fn part(
        buffer: impl AsFd,
        offset: u64,
        size: usize,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let address = unsafe { mmap(ptr::null_mut(), size, protection, flags, buffer, offset) }?;
        let address = NonNull::new(address).ok_or(Errno::FAULT)?;
        Ok(Self { address, size })
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    fn words(&self) -> impl Iterator<Item = NonNull<u64>> {
        let first = self.address.cast::<u64>();
        // SAFETY: The index is inside the mapping.
        (0..self.size / 8).map(move |index| unsafe { first.add(index) })
    }

    /// Writes the same byte everywhere.
    pub fn fill(&mut self, byte: u8) {
        let word = u64::from_ne_bytes([byte; 8]);
        for place in self.words() {
            // SAFETY: The word is inside the mapping, which is writable and aligned.
            unsafe { place.write_volatile(word) };
        }
    }

    /// Writes words, from the start of the mapping.
    pub fn write(&mut self, words: impl IntoIterator<Item = u64>) {
        for (place, word) in self.words().zip(words) {
            // SAFETY: As above.
            unsafe { place.write_volatile(word) };
        }
    }

    /// Writes a word in every page.
    pub fn touch(&self) {
        let first = self.address.cast::<u64>();
        for offset in (0..self.size).step_by(PAGE) {
            // SAFETY: As above.
            unsafe { first.byte_add(offset).write_volatile(1) };
        }
    }

    /// How many bytes are in words that are not made of this byte alone.
    pub fn others_than(&self, byte: u8) -> usize {
        let word = u64::from_ne_bytes([byte; 8]);
        self.words()
            // SAFETY: The word is inside the mapping, which is readable and aligned.
            .filter(|place| unsafe { place.read_volatile() } != word)
            .count()
            * 8
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.address.as_ptr(), self.size) };
    }
}
