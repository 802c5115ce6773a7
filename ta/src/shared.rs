// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the normal world shares, and may change at any moment.

use core::marker::PhantomData;

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
