// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in this process's memory.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

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

/// Bytes that one entry of a table of blocks maps.
pub const BLOCK: usize = 2 << 20;

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

    /// Maps `size` bytes from the start of a buffer at an address that is `shift` bytes
    /// behind a multiple of [`BLOCK`].
    ///
    /// The kernel places a file's mapping by pages only: to have it mapped in blocks
    /// is up to whoever maps it.
    pub fn beside_block(buffer: impl AsFd, size: usize, shift: usize) -> Result<Self, Errno> {
        let room = size + 2 * BLOCK;
        // SAFETY: A new mapping of nothing, at an address of the kernel's choice.
        let reserved = unsafe {
            mmap_anonymous(ptr::null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE)
        }?;
        let before = reserved.align_offset(BLOCK) + shift;
        let address = reserved.wrapping_byte_add(before);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: It takes the place of a part of the mapping above, which nobody uses; what is left
        // of that on both sides goes.
        unsafe {
            let mapped = mmap(address, size, protection, flags, buffer, 0);
            if mapped.is_err() {
                munmap(reserved, room)?;
            }
            mapped?;
            if before > 0 {
                munmap(reserved, before)?;
            }
            munmap(address.wrapping_byte_add(size), room - before - size)?;
        }
        let address = NonNull::new(address).ok_or(Errno::FAULT)?;
        Ok(Self { address, size })
    }

    /// Takes the page at `offset` out of the mapping.
    pub fn punch(&mut self, offset: usize) -> Result<Hole<'_>, Errno> {
        if !offset.is_multiple_of(PAGE) || offset >= self.size {
            return Err(Errno::INVAL);
        }
        // SAFETY: The page is this mapping's, which nobody accesses while the hole lives: it is
        // borrowed.
        unsafe { munmap(self.address.as_ptr().byte_add(offset), PAGE) }?;
        Ok(Hole {
            mapping: self,
            offset,
        })
    }

    /// Copies from the buffer at `offset` on.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset.is_multiple_of(8) && offset + bytes.len() <= self.size);
        let first = self.address.cast::<u64>();
        for (index, chunk) in bytes.chunks_mut(8).enumerate() {
            // SAFETY: The word is inside the mapping, whose size is a multiple of it.
            let word = unsafe { first.byte_add(offset + index * 8).read_volatile() };
            chunk.copy_from_slice(&word.to_ne_bytes()[..chunk.len()]);
        }
    }

    /// Writes a word at `offset`, a multiple of 8.
    pub fn set(&self, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset < self.size);
        // SAFETY: The word is inside the mapping, which is writable and aligned.
        unsafe {
            self.address
                .cast::<u64>()
                .byte_add(offset)
                .write_volatile(word)
        };
    }

    /// The word at `offset`, a multiple of 8.
    pub fn get(&self, offset: usize) -> u64 {
        assert!(offset.is_multiple_of(8) && offset < self.size);
        // SAFETY: The word is inside the mapping, which is readable and aligned.
        unsafe { self.address.cast::<u64>().byte_add(offset).read_volatile() }
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

/// A mapping of which one page is missing; it is a whole one no more.
#[derive(Debug)]
pub struct Hole<'a> {
    mapping: &'a mut Mapping,
    offset: usize,
}

impl Hole<'_> {
    /// The word at `offset`, unless that is in the hole.
    pub fn get(&self, offset: usize) -> Option<u64> {
        let is_there = !(self.offset..self.offset + PAGE).contains(&offset);
        is_there.then(|| self.mapping.get(offset))
    }
}

impl Drop for Hole<'_> {
    fn drop(&mut self) {
        // Something must be there again, for whoever uses the mapping after this.
        // SAFETY: The page was unmapped by `punch`, and nothing was mapped since by this program's one
        // thread.
        let filled = unsafe {
            mmap_anonymous(
                self.mapping.address.as_ptr().byte_add(self.offset),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        };
        assert!(filled.is_ok(), "a page of memory");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.address.as_ptr(), self.size) };
    }
}
