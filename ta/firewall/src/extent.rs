// SPDX-License-Identifier: MIT OR Apache-2.0

//! A stretch of physical memory.

/// Unit of protection, in bytes: the granule of the granule protection table.
pub const GRANULE: u64 = 4 << 10;

/// Bytes that one step handles at most, and whose multiples no step crosses.
///
/// One call to the firmware changes granules of one such block, and one
/// scrubbing window covers one. Both bound the time in which interrupts wait.
pub const BLOCK: u64 = 2 << 20;

/// How much of an extent is done in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of one [`BLOCK`] at most.
    Block,
    /// All of it.
    Whole,
}

/// A non-empty, granule-aligned stretch of physical memory.
///
/// # Invariants
/// `start` and `size` are multiples of [`GRANULE`], `size` is not zero, and
/// `start + size` does not wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    start: u64,
    size: u64,
}

impl Extent {
    /// The extent of `size` bytes from `start`, if they make one.
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        if size == 0 || !(start | size).is_multiple_of(GRANULE) || start.checked_add(size).is_none()
        {
            return None;
        }
        // INVARIANT: just checked.
        Some(Self { start, size })
    }

    /// Physical address of the first byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Physical address after the last byte.
    pub const fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Whether all of `other` lies in this extent.
    pub const fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether both ends are multiples of `granule`.
    pub const fn is_aligned(&self, granule: u64) -> bool {
        self.start.is_multiple_of(granule) && self.size.is_multiple_of(granule)
    }

    /// Whether both have a byte in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// The extent's pieces, none of which crosses a multiple of [`BLOCK`], in
    /// address order.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = Self> {
        self.pieces(Step::Block)
    }

    /// The extent's pieces, none of which is more than one step, in address
    /// order.
    pub fn pieces(&self, step: Step) -> impl DoubleEndedIterator<Item = Self> {
        let this = *self;
        let step = match step {
            Step::Block => BLOCK,
            // Nothing reaches the address that is its one multiple.
            Step::Whole => u64::MAX,
        };
        let first = this.start / step;
        let last = (this.end() - 1) / step;
        (first..=last).map(move |block| {
            let start = this.start.max(block * step);
            // No block but the last of the address space has an end that
            // wraps around, and there the extent's own end is the smaller.
            let end = this.end().min((block * step).saturating_add(step));
            // INVARIANT: all bounds are multiples of the granule, the piece is
            // not empty as the block holds a byte of the extent, and its end
            // is not above the extent's.
            Self {
                start,
                size: end - start,
            }
        })
    }

    /// The part from `start` on, which must be the start of one of the
    /// extent's [`pieces`](Self::pieces).
    pub(crate) fn suffix(&self, block: &Self) -> Self {
        debug_assert!(self.contains(block));
        // INVARIANT: a block of this extent starts inside it, at a multiple of
        // the granule.
        Self {
            start: block.start,
            size: self.end() - block.start,
        }
    }

    /// The part before one of the extent's [`pieces`](Self::pieces), unless
    /// that is the first.
    pub(crate) fn before(&self, block: &Self) -> Option<Self> {
        Self::new(self.start, block.start - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_extent() {
        for (start, size) in [
            (0, 0),
            (1, GRANULE),
            (GRANULE, GRANULE - 1),
            (GRANULE / 2, GRANULE / 2),
            (0u64.wrapping_sub(GRANULE), GRANULE),
            (0u64.wrapping_sub(GRANULE), 2 * GRANULE),
            (GRANULE, 0u64.wrapping_sub(GRANULE)),
        ] {
            assert_eq!(Extent::new(start, size), None, "{start:#x}+{size:#x}");
        }
    }

    proptest! {
        #[test]
        fn blocks_tile_the_extent(start in 0u64..2048, granules in 1u64..2048, top: bool) {
            let (start, size) = (start * GRANULE, granules * GRANULE);
            let start = if top { 0u64.wrapping_sub(GRANULE) - size - start } else { start };
            let extent = Extent::new(start, size).unwrap();
            let mut next = extent.start();
            for block in extent.blocks() {
                prop_assert_eq!(block.start(), next);
                prop_assert!(Extent::new(block.start(), block.size()).is_some());
                prop_assert_eq!(block.start() / BLOCK, (block.end() - 1) / BLOCK);
                next = block.end();
            }
            prop_assert_eq!(next, extent.end());
            prop_assert!(extent.pieces(Step::Whole).eq([extent]));
        }
    }
}
