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

impl<'a> SharedBytes<'a> {
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

impl<'a> SharedBytes<'a> {
    /// Divides the bytes into runs of `run`, and what lies between them: `gap` bytes
    /// after each run. The last piece may be shorter.
    pub fn alternate(self, run: usize, gap: usize) -> (Alternate<'a>, Alternate<'a>) {
        let mut between = Self { ..self };
        between.take(run);
        let runs = Alternate {
            rest: self,
            take: run,
            leave: gap,
        };
        let gaps = Alternate {
            rest: between,
            take: gap,
            leave: run,
        };
        (runs, gaps)
    }
}

/// Every other piece of some bytes; see [`SharedBytes::alternate`].
#[derive(Debug)]
pub struct Alternate<'a> {
    rest: SharedBytes<'a>,
    take: usize,
    leave: usize,
}

impl<'a> Iterator for Alternate<'a> {
    type Item = SharedBytes<'a>;

    fn next(&mut self) -> Option<SharedBytes<'a>> {
        if self.rest.is_empty() || self.take == 0 {
            return None;
        }
        let piece = self.rest.take(self.take);
        self.rest.take(self.leave);
        Some(piece)
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
    fn runs_and_gaps_are_all_bytes_once() {
        let memory = [0u8; 64];
        for (length, run, gap) in [(64, 4, 12), (61, 4, 12), (20, 16, 0), (3, 4, 4), (0, 1, 1)] {
            // SAFETY: `memory` outlives the value.
            let shared = unsafe { SharedBytes::new(memory.as_ptr(), length) };
            let (runs, gaps) = shared.alternate(run, gap);
            let mut seen = [0; 64];
            for (piece, is_run) in runs.map(|p| (p, true)).chain(gaps.map(|p| (p, false))) {
                let start = piece.as_ptr().addr() - memory.as_ptr().addr();
                for (place, times) in seen.iter_mut().enumerate().skip(start).take(piece.len()) {
                    *times += 1;
                    assert_eq!(place % (run + gap) < run, is_run, "{place}");
                }
            }
            assert!(
                seen[..length].iter().all(|times| *times == 1),
                "{run} {gap}"
            );
            assert!(
                seen[length..].iter().all(|times| *times == 0),
                "{run} {gap}"
            );
        }
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
