// SPDX-License-Identifier: GPL-2.0

//! Where in a region there is room, counting dirty memory as free.
//!
//! Arithmetic only: the caller names the allocated and the dirty ranges in order
//! of address, and what lies between them is free and clean. One pass over the
//! ranges answers each question here.

use core::cmp::{
    max,
    min, //
};

#[cfg(RINGFENCE_TEST)]
use kernel::prelude::*;
use ringfence_core::attachment::PhysRange;
use ringfence_range_alloc::Placement;

/// How a range that is not free and clean is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Allocated.
    Taken,
    /// Free, but of unknown content.
    Dirty,
}

/// Room for a request, which nothing allocated overlaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Physical address; a multiple of the granule.
    pub(crate) start: u64,
    /// The address behind it.
    pub(crate) end: u64,
    /// The dirty memory in it.
    pub(crate) dirty: Option<Dirt>,
}

/// Dirty memory in a [`Place`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dirt {
    /// Dirty bytes in the place.
    pub(crate) bytes: u64,
    /// Dirty ranges that overlap the place.
    pub(crate) ranges: usize,
    /// Where the first of these ranges begins, perhaps before the place.
    pub(crate) first: u64,
    /// Where the last of them ends, perhaps behind the place.
    pub(crate) last_end: u64,
}

/// What a place is to be like.
#[derive(Clone, Copy)]
pub(crate) struct Fit {
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes: a power of two.
    pub(crate) alignment: u64,
    /// Which end of a run to take.
    pub(crate) placement: Placement,
}

impl Place {
    /// The place in the run of free memory from `start` to `end`.
    fn within(start: u64, end: u64, fit: Fit) -> Option<Self> {
        let start = match fit.placement {
            Placement::Bottom => start.checked_next_multiple_of(fit.alignment)?,
            Placement::Top => {
                let highest = end.checked_sub(fit.size)?;
                let aligned = highest - highest % fit.alignment;
                (aligned >= start).then_some(aligned)?
            }
        };
        let place = Self {
            start,
            end: start.checked_add(fit.size)?,
            dirty: None,
        };
        (place.end <= end).then_some(place)
    }

    /// Takes note of a dirty range behind those that were noted.
    fn note(&mut self, range: PhysRange) {
        let range_end = range.start + range.size;
        let overlap_end = min(range_end, self.end);
        let bytes = overlap_end.saturating_sub(max(range.start, self.start));
        if bytes == 0 {
            return;
        }
        let dirt = self.dirty.get_or_insert(Dirt {
            bytes: 0,
            ranges: 0,
            first: range.start,
            last_end: range_end,
        });
        dirt.bytes += bytes;
        dirt.ranges += 1;
        dirt.last_end = range_end;
    }

    /// What has to be zeroed: from the first dirty byte to the last one.
    pub(crate) fn to_scrub(self) -> Option<PhysRange> {
        let dirt = self.dirty?;
        let start = max(dirt.first, self.start);
        Some(PhysRange {
            start,
            size: min(dirt.last_end, self.end) - start,
        })
    }

    /// Ranges to keep records of when the place is taken: itself, and what is left
    /// of dirty ranges on both sides.
    pub(crate) fn records(self) -> usize {
        let rests = self.dirty.map_or(0, |dirt| {
            usize::from(dirt.first < self.start) + usize::from(dirt.last_end > self.end)
        });
        1 + rests
    }

    fn cost(self) -> u64 {
        self.dirty.map_or(0, |dirt| dirt.bytes)
    }
}

/// Finds the place in which the fewest bytes are dirty, among those at one end of
/// each run of free memory.
///
/// A place is found whenever there is one, as a run has room for a request if and
/// only if it has at its end. `ahead` and `ranges` are the same ranges: one of the
/// two finds where a run ends, and the other follows to see what is dirty in it.
pub(crate) fn cheapest(
    region: PhysRange,
    mut ahead: impl Iterator<Item = (PhysRange, Use)>,
    mut ranges: impl Iterator<Item = (PhysRange, Use)>,
    fit: Fit,
) -> Option<Place> {
    let mut best: Option<Place> = None;
    let mut run = region.start;
    loop {
        let taken = ahead.find(|&(_, used)| used == Use::Taken);
        let run_end = taken.map_or(region.start + region.size, |(range, _)| range.start);
        let mut place = Place::within(run, run_end, fit);
        let dirty = ranges
            .by_ref()
            .take_while(|&(_, used)| used == Use::Dirty)
            .map(|(range, _)| range);
        match &mut place {
            Some(place) => dirty.for_each(|range| place.note(range)),
            None => dirty.for_each(drop),
        }
        if let Some(place) = place {
            if best.is_none_or(|best| place.cost() < best.cost()) {
                best = Some(place);
            }
        }
        let (range, _) = match taken {
            Some(taken) => taken,
            None => return best,
        };
        run = range.start + range.size;
    }
}

/// Bytes of the longest run without anything allocated; `taken` are the allocated
/// ranges.
pub(crate) fn longest_run(region: PhysRange, taken: impl Iterator<Item = PhysRange>) -> u64 {
    let mut longest = 0;
    let mut run = region.start;
    for range in taken {
        longest = max(longest, range.start.saturating_sub(run));
        run = range.start + range.size;
    }
    max(longest, (region.start + region.size).saturating_sub(run))
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_carveout_places)]
mod tests {
    use super::*;
    use Use::*;

    const REGION: PhysRange = PhysRange {
        start: 0x10_0000,
        size: 0x1_0000,
    };
    const PAGE: u64 = 0x1000;

    /// A range by its pages in [`REGION`], which has 16.
    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange {
            start: REGION.start + first * PAGE,
            size: count * PAGE,
        }
    }

    fn cheapest_of(
        ranges: &[(PhysRange, Use)],
        size: u64,
        alignment: u64,
        placement: Placement,
    ) -> Option<Place> {
        let fit = Fit {
            size,
            alignment,
            placement,
        };
        let ranges = || ranges.iter().copied();
        cheapest(REGION, ranges(), ranges(), fit)
    }

    /// The cheapest place's page, and how many pages of it are dirty.
    fn find(ranges: &[(PhysRange, Use)], count: u64) -> Option<(u64, u64)> {
        let place = cheapest_of(ranges, count * PAGE, PAGE, Placement::Bottom)?;
        assert_eq!(place.end - place.start, count * PAGE);
        Some(((place.start - REGION.start) / PAGE, place.cost() / PAGE))
    }

    #[test]
    fn all_dirty_is_all_free() {
        let ranges = [(pages(0, 8), Dirty), (pages(8, 8), Dirty)];
        assert_eq!(find(&ranges, 16), Some((0, 16)));
        assert_eq!(find(&ranges, 17), None);
        assert_eq!(longest_run(REGION, core::iter::empty()), REGION.size);
    }

    #[test]
    fn clean_and_dirty_neighbours_make_one_run() {
        let ranges = [
            (pages(0, 3), Taken),
            (pages(5, 2), Dirty),
            (pages(9, 1), Taken),
            (pages(10, 6), Dirty),
        ];
        // 3 to 9 has two dirty pages, 10 to 16 six.
        assert_eq!(find(&ranges, 6), Some((3, 2)));
        assert_eq!(find(&ranges, 2), Some((3, 0)));
        assert_eq!(find(&ranges, 7), None);
    }

    #[test]
    fn the_run_with_the_least_to_zero_is_taken() {
        let ranges = [
            (pages(0, 4), Dirty),
            (pages(4, 1), Taken),
            (pages(6, 3), Dirty),
            (pages(9, 1), Taken),
            (pages(10, 6), Dirty),
        ];
        assert_eq!(find(&ranges, 4), Some((5, 3)));
        assert_eq!(find(&ranges, 5), Some((10, 5)));
    }

    #[test]
    fn what_is_left_of_dirty_ranges_needs_records() {
        let wide = [(pages(0, 16), Dirty)];
        let place = cheapest_of(&wide, PAGE, PAGE, Placement::Bottom).unwrap();
        assert_eq!(place.records(), 2);
        assert_eq!(place.to_scrub().unwrap().size, PAGE);

        // Aligned to 8 pages, the run of pages 1 to 16 begins at page 8.
        let ranges = [(pages(0, 1), Taken), (pages(1, 15), Dirty)];
        let place = cheapest_of(&ranges, 4 * PAGE, 8 * PAGE, Placement::Bottom).unwrap();
        assert_eq!(place.start, pages(8, 1).start);
        assert_eq!(place.records(), 3);
        assert_eq!(place.dirty.unwrap().first, pages(1, 1).start);
    }

    #[test]
    fn the_upper_end_of_a_run_can_be_taken() {
        let ranges = [
            (pages(0, 4), Dirty),
            (pages(6, 1), Taken),
            (pages(9, 7), Dirty),
        ];
        let top = |count, alignment| {
            let place = cheapest_of(&ranges, count * PAGE, alignment * PAGE, Placement::Top)?;
            Some(((place.start - REGION.start) / PAGE, place.cost() / PAGE))
        };
        assert_eq!(top(2, 1), Some((4, 0)));
        assert_eq!(top(6, 1), Some((0, 4)));
        // Pages 7 and 8 are clean, but the upper end of their run is not.
        assert_eq!(top(8, 1), Some((8, 7)));
        assert_eq!(top(1, 8), Some((8, 0)));
        assert_eq!(top(9, 1), Some((7, 7)));
        assert_eq!(top(9, 8), None);
    }

    #[test]
    fn only_the_dirty_part_is_zeroed() {
        let ranges = [(pages(4, 2), Dirty), (pages(7, 1), Dirty)];
        let place = cheapest_of(&ranges, 16 * PAGE, PAGE, Placement::Bottom).unwrap();
        let scrub = place.to_scrub().unwrap();
        assert_eq!((scrub.start, scrub.size), (pages(4, 1).start, 4 * PAGE));
        assert_eq!(place.dirty.unwrap().ranges, 2);
        let clean = cheapest_of(&[], PAGE, PAGE, Placement::Bottom).unwrap();
        assert!(clean.to_scrub().is_none());
    }

    #[test]
    fn the_longest_run_lies_between_allocated_ranges() {
        let taken = [pages(2, 1), pages(3, 4), pages(12, 4)];
        assert_eq!(longest_run(REGION, taken.into_iter()), 5 * PAGE);
        assert_eq!(longest_run(REGION, [REGION].into_iter()), 0);
    }

    #[test]
    fn addresses_at_the_very_end_do_not_wrap() {
        let top = PhysRange {
            start: u64::MAX - 0x1fff,
            size: 0x1000,
        };
        for placement in [Placement::Bottom, Placement::Top] {
            let fits = |size| {
                let fit = Fit {
                    size,
                    alignment: PAGE,
                    placement,
                };
                cheapest(top, core::iter::empty(), core::iter::empty(), fit).is_some()
            };
            assert!(fits(0x1000));
            assert!(!fits(0x2000));
            assert!(!fits(u64::MAX - 0xfff));
        }
    }
}
