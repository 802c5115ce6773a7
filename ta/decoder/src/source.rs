// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compressed bytes, which somebody may change while they are read.

use core::marker::PhantomData;
use core::ptr::NonNull;

pub use ringfence_codec::Source;

/// Bytes that are mapped, and reached through a pointer only: a reference would
/// promise that no device changes them.
#[derive(Debug)]
pub struct Mapped<'a> {
    first: NonNull<u8>,
    length: usize,
    _window: PhantomData<&'a ()>,
}

impl Mapped<'_> {
    /// These bytes.
    ///
    /// # Safety
    ///
    /// For the lifetime of the value they must stay mapped and readable. They
    /// may change at any time.
    pub const unsafe fn new(bytes: NonNull<[u8]>) -> Self {
        Self {
            first: bytes.cast(),
            length: bytes.len(),
            _window: PhantomData,
        }
    }
}

impl Source for Mapped<'_> {
    fn length(&self) -> usize {
        self.length
    }

    fn copy(&self, offset: usize, to: &mut [u8]) -> usize {
        let length = self.length.saturating_sub(offset).min(to.len());
        for (index, byte) in to[..length].iter_mut().enumerate() {
            // SAFETY: `offset + index` is below the length, and as many bytes are
            // mapped, by the promise to `new`. The read is volatile: it happens
            // once, whoever writes meanwhile.
            *byte = unsafe { self.first.add(offset + index).read_volatile() };
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect_copies(source: &(impl Source + ?Sized)) {
        for (offset, expected) in [
            (0, &[1, 2, 3][..]),
            (3, &[4, 5]),
            (5, &[]),
            (6, &[]),
            (usize::MAX, &[]),
        ] {
            let mut to = [0; 3];
            let length = source.copy(offset, &mut to);
            assert_eq!(&to[..length], expected, "from {offset}");
            assert!(to[length..].iter().all(|byte| *byte == 0));
        }
        assert_eq!(source.length(), 5);
    }

    #[test]
    fn both_copy_what_there_is() {
        let bytes = [1u8, 2, 3, 4, 5];
        expect_copies(&bytes[..]);
        // SAFETY: `bytes` outlives the value.
        expect_copies(&unsafe { Mapped::new(NonNull::from(&bytes[..])) });
    }
}
