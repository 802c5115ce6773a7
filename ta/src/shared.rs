// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the normal world shares, and may change at any moment.

use core::marker::PhantomData;
use core::ptr::NonNull;

/// Bytes in shared memory, of which each can be taken once.
///
/// They are reached through a raw pointer only: a reference would promise that
/// nobody changes them.
#[derive(Debug)]
pub struct SharedBytes<'a> {
    pointer: *const u8,
    length: usize,
    _memory: PhantomData<&'a ()>,
}

impl SharedBytes<'_> {
    /// The `length` bytes at `pointer`.
    ///
    /// # Safety
    ///
    /// For the lifetime of the value they must stay mapped and readable. They
    /// may change at any time.
    pub const unsafe fn new(pointer: *const u8, length: usize) -> Self {
        Self {
            pointer,
            length,
            _memory: PhantomData,
        }
    }

    /// The first byte. Each byte is to be read once at most, by means that
    /// allow for its changing meanwhile.
    pub const fn as_ptr(&self) -> *const u8 {
        self.pointer
    }

    /// Bytes not taken yet.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether all bytes are taken.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether any byte that is not taken yet is among `others`.
    pub fn overlaps(&self, others: NonNull<[u8]>) -> bool {
        let (start, other) = (self.pointer.addr(), others.cast::<u8>().addr().get());
        start < other.saturating_add(others.len()) && other < start.saturating_add(self.length)
    }

    /// Takes the next `length` bytes, or what is left of them.
    pub fn take(&mut self, length: usize) -> Self {
        let length = length.min(self.length);
        let taken = Self {
            pointer: self.pointer,
            length,
            _memory: PhantomData,
        };
        self.pointer = self.pointer.wrapping_add(length);
        self.length -= length;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_in_common_is_an_overlap() {
        let memory = [0u8; 16];
        let part = |from: usize, to: usize| NonNull::from(&memory[from..to]);
        // SAFETY: `memory` outlives the value.
        let mut shared = unsafe { SharedBytes::new(memory[4..].as_ptr(), 8) };
        for (from, to, overlaps) in [
            (0, 4, false),
            (0, 5, true),
            (6, 7, true),
            (11, 16, true),
            (12, 16, false),
        ] {
            assert_eq!(shared.overlaps(part(from, to)), overlaps, "{from}..{to}");
        }
        shared.take(2);
        assert!(!shared.overlaps(part(4, 6)));
    }

    #[test]
    fn each_byte_is_taken_once() {
        let memory = [0u8; 10];
        // SAFETY: `memory` outlives the value.
        let mut shared = unsafe { SharedBytes::new(memory.as_ptr(), memory.len()) };
        let mut next = memory.as_ptr();
        for (ask, get) in [(4, 4), (0, 0), (5, 5), (3, 1), (1, 0)] {
            let piece = shared.take(ask);
            assert_eq!((piece.as_ptr(), piece.len()), (next, get));
            next = next.wrapping_add(get);
        }
        assert!(shared.is_empty());
    }
}
