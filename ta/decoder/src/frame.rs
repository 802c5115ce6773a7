// SPDX-License-Identifier: MIT OR Apache-2.0

//! How the pixels of a picture lie in memory.

use ringfence_proto::decoder::{MAX_FRAME, MAX_WIDTH, PIXEL};

use crate::refusal::Refusal;

/// A frame's measures.
///
/// # Invariants
///
/// There is a pixel; a line has [`MAX_WIDTH`] pixels at most and fits the
/// stride, which is a multiple of a pixel; and all lines have [`MAX_FRAME`]
/// bytes at most, padding included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: usize,
    height: usize,
    stride: usize,
}

impl Layout {
    /// A frame of `width` by `height` pixels, with `stride` bytes from one line
    /// to the next.
    ///
    /// # Errors
    ///
    /// [`Refusal::Layout`] if there can be no such frame.
    pub fn new(width: u32, height: u32, stride: u32) -> Result<Self, Refusal> {
        let fits = (1..=MAX_WIDTH).contains(&width)
            && height != 0
            && stride.is_multiple_of(PIXEL)
            && width * PIXEL <= stride
            && stride
                .checked_mul(height)
                .is_some_and(|size| size <= MAX_FRAME);
        if !fits {
            return Err(Refusal::Layout);
        }
        // INVARIANT: just checked. CAST: to the size of an address from less.
        Ok(Self {
            width: width as usize,
            height: height as usize,
            stride: stride as usize,
        })
    }

    /// Pixels of a line.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Lines.
    pub const fn height(&self) -> usize {
        self.height
    }

    /// Bytes of all lines, padding included.
    pub const fn size(&self) -> usize {
        self.stride * self.height
    }

    /// Bytes of all lines when one follows the other, with `depth` bytes to a
    /// pixel.
    pub(crate) const fn packed(&self, depth: usize) -> usize {
        self.width * self.height * depth
    }

    /// Moves lines of pixels apart that lie one after the other at the frame's
    /// beginning, and zeroes what is between them.
    pub(crate) fn spread(&self, frame: &mut [u8]) {
        let line = self.width * PIXEL as usize;
        if line == self.stride {
            return;
        }
        // From the last on: a line's place lies behind all lines before it.
        for number in (0..self.height).rev() {
            let place = number * self.stride;
            frame.copy_within(number * line..(number + 1) * line, place);
            frame[place + line..place + self.stride].fill(0);
        }
    }

    /// Makes pixels of grey levels, which lie one after the other at the frame's
    /// beginning.
    pub(crate) fn colour(&self, frame: &mut [u8]) {
        // From the last on: a pixel's place lies behind all levels before it.
        for index in (0..self.width * self.height).rev() {
            let level = frame[index];
            frame[index * PIXEL as usize..][..PIXEL as usize].copy_from_slice(&[
                level,
                level,
                level,
                u8::MAX,
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_frame_that_cannot_be_is_refused() {
        assert!(Layout::new(1, 1, 4).is_ok());
        assert!(Layout::new(MAX_WIDTH, 512, 4 * MAX_WIDTH).is_ok());
        assert!(Layout::new(1, MAX_FRAME / 4, 4).is_ok());
        for (width, height, stride) in [
            (0, 1, 4),
            (1, 0, 4),
            (1, 1, 0),
            (1, 1, 5),
            (2, 1, 4),
            (MAX_WIDTH + 1, 1, 4 * (MAX_WIDTH + 1)),
            (MAX_WIDTH, 513, 4 * MAX_WIDTH),
            (1, MAX_FRAME / 4 + 1, 4),
            (1, 0x4000_0001, 4),
            (1, 1, MAX_FRAME + 4),
            (0x4000_0001, 1, 4),
            (u32::MAX, u32::MAX, u32::MAX),
            (1, u32::MAX, u32::MAX - 3),
        ] {
            assert_eq!(
                Layout::new(width, height, stride),
                Err(Refusal::Layout),
                "{width} x {height}, {stride}"
            );
        }
    }

    #[test]
    fn lines_are_moved_apart_with_zeros_between() {
        let layout = Layout::new(2, 3, 12).expect("a layout");
        let mut frame: Vec<u8> = (1..=36).collect();
        layout.spread(&mut frame);
        let expected: Vec<u8> = [1..=8, 9..=16, 17..=24]
            .into_iter()
            .flat_map(|line| line.chain([0; 4]))
            .collect();
        assert_eq!(frame, expected);
    }

    #[test]
    fn grey_levels_become_pixels() {
        let layout = Layout::new(3, 1, 12).expect("a layout");
        let mut frame = [7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        layout.colour(&mut frame);
        assert_eq!(frame, [7, 7, 7, 255, 8, 8, 8, 255, 9, 9, 9, 255]);
    }
}
