// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ranges of physical memory, the bytes of one that a command touches, and the
//! windows through which it touches them.
//!
//! A window is what gets mapped: whole pages. The bytes that belong to the
//! command may begin and end inside the first and the last page; the rest of
//! those pages is mapped and left alone.

use crate::refusal::Refusal;

/// Unit of mapping in bytes.
pub const PAGE: u64 = 4096;

/// A range of physical memory.
///
/// # Invariants
///
/// Start and size are multiples of [`PAGE`], the size is not zero, and the end
/// is at most `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start: u64,
    size: u64,
}

impl Range {
    /// The range of `size` bytes at physical address `start`, if there can be
    /// such a range.
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        let aligned = start.is_multiple_of(PAGE) && size.is_multiple_of(PAGE);
        if !aligned || size == 0 || start.checked_add(size).is_none() {
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

    /// The `length` bytes that begin `offset` bytes into the range.
    ///
    /// # Errors
    ///
    /// [`Refusal::OutOfBounds`] if there are none, or one is outside.
    pub fn span(&self, offset: u64, length: u64) -> Result<Span, Refusal> {
        match offset.checked_add(length) {
            Some(end) if length != 0 && end <= self.size => Ok(Span {
                // Neither sum overflows: both are at most the range's end.
                start: self.start + offset,
                end: self.start + end,
            }),
            _ => Err(Refusal::OutOfBounds),
        }
    }
}

/// Some bytes inside one [`Range`].
///
/// # Invariants
///
/// `start < end`, and both are within a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// Windows of at most `largest` bytes that cover the span, in order.
    ///
    /// No window crosses a multiple of `largest`, so that a long span is
    /// covered by windows that are aligned to their size.
    ///
    /// # Errors
    ///
    /// [`Refusal::Firewall`] if `largest`, which is the firewall's to say, is
    /// not a positive multiple of [`PAGE`].
    pub fn windows(&self, largest: u64) -> Result<Windows, Refusal> {
        if largest == 0 || !largest.is_multiple_of(PAGE) {
            return Err(Refusal::Firewall);
        }
        Ok(Windows {
            next: self.start,
            end: self.end,
            largest,
        })
    }
}

impl Span {
    /// The one window that covers the span, wherever its boundaries lie.
    ///
    /// # Errors
    ///
    /// [`Refusal::OutOfBounds`] if it would have more than `largest` bytes.
    pub fn window(&self, largest: u64) -> Result<Window, Refusal> {
        let skip = self.start % PAGE;
        let length = self.end - self.start;
        // The page of the span's last byte ends within its range: no overflow.
        let size = (skip + length).div_ceil(PAGE) * PAGE;
        if size > largest {
            return Err(Refusal::OutOfBounds);
        }
        Ok(Window {
            start: self.start - skip,
            size,
            skip,
            length,
        })
    }
}

/// Whole pages to map, and the bytes in them that belong to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Physical address of the first page.
    pub start: u64,
    /// Bytes to map, a multiple of [`PAGE`].
    pub size: u64,
    /// Bytes of the first page before the command's first byte.
    pub skip: u64,
    /// The command's bytes.
    pub length: u64,
}

/// Iterator over the windows of a [`Span`].
#[derive(Clone, Debug)]
pub struct Windows {
    next: u64,
    end: u64,
    largest: u64,
}

impl Iterator for Windows {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        if self.next >= self.end {
            return None;
        }
        let first = self.next;
        let boundary = (first - first % self.largest).saturating_add(self.largest);
        let last = boundary.min(self.end);
        let start = first - first % PAGE;
        // A boundary is a multiple of the page, and the page of the span's last
        // byte ends within its range: the sum does not overflow.
        let size = (last - start).div_ceil(PAGE) * PAGE;
        self.next = last;
        Some(Window {
            start,
            size,
            skip: first - start,
            length: last - first,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn range(start: u64, size: u64) -> Range {
        Range::new(start, size).expect("a range")
    }

    #[test]
    fn a_range_is_whole_pages_below_the_end_of_the_address_space() {
        assert!(Range::new(0x8000_0000, PAGE).is_some());
        assert!(Range::new(0u64.wrapping_sub(2 * PAGE), PAGE).is_some());
        assert!(Range::new(0u64.wrapping_sub(PAGE), PAGE).is_none());
        assert!(Range::new(0x8000_0000, 0).is_none());
        assert!(Range::new(0x8000_0001, PAGE).is_none());
        assert!(Range::new(0x8000_0000, PAGE + 1).is_none());
        assert!(Range::new(PAGE, 0u64.wrapping_sub(PAGE)).is_none());
    }

    #[test]
    fn a_span_ends_with_its_range_to_the_byte() {
        let range = range(0x8000_0000, 2 * MIB);
        let refused = Err(Refusal::OutOfBounds);
        assert!(range.span(0, 2 * MIB).is_ok());
        assert!(range.span(2 * MIB - 1, 1).is_ok());
        assert_eq!(range.span(0, 2 * MIB + 1), refused);
        assert_eq!(range.span(1, 2 * MIB), refused);
        assert_eq!(range.span(2 * MIB, 1), refused);
        assert_eq!(range.span(2 * MIB, 0), refused);
        assert_eq!(range.span(0, 0), refused);
        assert_eq!(range.span(u64::MAX, 1), refused);
        assert_eq!(range.span(1, u64::MAX), refused);
        assert_eq!(range.span(u64::MAX, u64::MAX), refused);
        assert_eq!(range.span(u64::MAX - 2 * MIB + 1, 2 * MIB), refused);
    }

    #[test]
    fn windows_are_page_aligned_around_the_bytes() {
        let span = range(0x8000_0000, 8 * MIB)
            .span(2 * MIB - 5, 2 * MIB + 10)
            .expect("inside");
        let windows = span.windows(2 * MIB).expect("window size");
        let expected = [
            Window {
                start: 0x801f_f000,
                size: PAGE,
                skip: PAGE - 5,
                length: 5,
            },
            Window {
                start: 0x8020_0000,
                size: 2 * MIB,
                skip: 0,
                length: 2 * MIB,
            },
            Window {
                start: 0x8040_0000,
                size: PAGE,
                skip: 0,
                length: 5,
            },
        ];
        assert!(windows.eq(expected));
    }

    #[test]
    fn one_window_covers_what_fits_wherever_it_lies() {
        let range = range(0x8000_0000, 8 * MIB);
        let window = |offset, length| range.span(offset, length).expect("inside").window(MIB);
        let expected = Window {
            start: 0x801f_f000,
            size: 2 * PAGE,
            skip: PAGE - 5,
            length: 10,
        };
        assert_eq!(window(2 * MIB - 5, 10), Ok(expected));
        assert_eq!(window(MIB, MIB).map(|window| window.size), Ok(MIB));
        assert_eq!(window(PAGE + 1, MIB - 1).map(|window| window.size), Ok(MIB));
        assert_eq!(window(PAGE - 1, MIB), Err(Refusal::OutOfBounds));
        assert_eq!(window(0, MIB + 1), Err(Refusal::OutOfBounds));
    }

    #[test]
    fn one_byte_is_one_page() {
        let span = range(0x8000_0000, PAGE).span(PAGE - 1, 1).expect("inside");
        let mut windows = span.windows(PAGE).expect("window size");
        assert_eq!(
            windows.next(),
            Some(Window {
                start: 0x8000_0000,
                size: PAGE,
                skip: PAGE - 1,
                length: 1
            })
        );
        assert_eq!(windows.next(), None);
    }

    #[test]
    fn windows_reach_the_last_page_of_the_address_space() {
        let start = 0u64.wrapping_sub(3 * PAGE);
        let span = range(start, 2 * PAGE)
            .span(1, 2 * PAGE - 1)
            .expect("inside");
        let mapped: u64 = span
            .windows(1 << 63)
            .expect("window size")
            .map(|window| window.size)
            .sum();
        assert_eq!(mapped, 2 * PAGE);
    }

    #[test]
    fn a_window_size_that_cannot_be_is_the_firewalls_fault() {
        let span = range(0x8000_0000, PAGE).span(0, 1).expect("inside");
        for largest in [0, 1, PAGE - 1, PAGE + 1] {
            assert_eq!(span.windows(largest).err(), Some(Refusal::Firewall));
        }
    }

    proptest! {
        #[test]
        fn windows_cover_exactly_the_span_and_stay_inside_the_range(
            page in 0..1u64 << 40,
            pages in 1..5000u64,
            offset: u64,
            length: u64,
            largest_pages in 1..1500u64,
        ) {
            let range = range(page * PAGE, pages * PAGE);
            let offset = offset % range.size();
            let length = length % (range.size() - offset) + 1;
            let largest = largest_pages * PAGE;
            let mut next = range.start() + offset;
            let span = range.span(offset, length).expect("inside");
            for window in span.windows(largest).expect("window size") {
                prop_assert_eq!(window.start % PAGE, 0);
                prop_assert_eq!(window.size % PAGE, 0);
                prop_assert!(window.size <= largest && window.length > 0);
                prop_assert!(window.skip < PAGE);
                prop_assert!(window.skip + window.length <= window.size);
                prop_assert!(window.size - window.skip - window.length < PAGE);
                prop_assert!(window.start >= range.start());
                prop_assert!(window.start + window.size <= range.start() + range.size());
                prop_assert_eq!(window.start + window.skip, next);
                next += window.length;
            }
            prop_assert_eq!(next, range.start() + offset + length);
        }
    }
}
