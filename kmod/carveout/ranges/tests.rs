// SPDX-License-Identifier: GPL-2.0

use kernel::prelude::*;

#[kunit_tests(ringfence_carveout_ranges)]
mod ranges {
    use super::super::*;
    use ringfence_range_alloc::Geometry;

    const ALL: [RangeState; 8] = [
        RangeState::Preparing,
        RangeState::Open,
        RangeState::Further,
        RangeState::Protected,
        RangeState::Lost,
        RangeState::Waiting,
        RangeState::Quarantined,
        RangeState::Dirty,
    ];

    const WINDOW: u64 = reserved_mem::WINDOW;
    const PAGE: u64 = 0x1000;
    const REGION: PhysRange = PhysRange {
        start: 0x8000_0000,
        size: 4 * WINDOW,
    };

    fn ranges(max_live: usize) -> Result<Ranges> {
        let geometry = Geometry {
            base: REGION.start,
            size: REGION.size,
            granule: PAGE,
        };
        let needed = geometry.metadata_size(max_live).map_err(|_| EINVAL)?;
        let allocator = RangeAllocator::new(
            geometry,
            max_live,
            KVVec::from_elem(Record::default(), needed.records, GFP_KERNEL)?,
            KVVec::from_elem(Group::default(), needed.groups, GFP_KERNEL)?,
        )
        .map_err(|_| EINVAL)?;
        Ranges::new(REGION, PAGE, allocator, max_live)
    }

    fn wish(size: u64) -> Wish {
        Wish {
            size,
            alignment: PAGE,
            placement: Placement::Bottom,
        }
    }

    fn allocate(ranges: &mut Ranges, size: u64) -> Result<Result<PhysRange, AllocError>> {
        if !ranges.has_spare() {
            ranges.keep(NodeReservation::new(GFP_KERNEL)?);
        }
        Ok(ranges.allocate(wish(size), RangeState::Preparing, Origin::kernel()))
    }

    fn take(ranges: &mut Ranges, size: u64) -> Result<Result<Taken, AllocError>> {
        Ok(ranges.take(Nodes::new()?, wish(size), Origin::kernel()))
    }

    /// Scrubs without touching memory, and answers the number of windows.
    fn scrub_all(ranges: &mut Ranges) -> usize {
        let mut windows = 0;
        while let Some((start, window)) = ranges.next_dirty(None) {
            ranges.scrubbed(start, window.start + window.size);
            windows += 1;
        }
        windows
    }

    #[test]
    fn what_is_kept_back_is_fenced_and_no_buffer() {
        for state in ALL.into_iter().filter(|state| state.is_kept_back()) {
            assert!(state.is_fenced());
            assert!(!state.is_buffer());
        }
    }

    #[test]
    fn a_lost_or_open_buffer_does_not_count_as_fenced() {
        assert!(!RangeState::Lost.is_fenced());
        assert!(!RangeState::Open.is_fenced());
        assert!(RangeState::Protected.is_fenced());
    }

    #[test]
    fn a_region_of_unknown_content_is_dirty_and_becomes_clean() -> Result {
        let mut ranges = ranges(64)?;
        ranges.soil_all()?;
        let figures = ranges.figures();
        assert_eq!((figures.clean, figures.dirty), (0, REGION.size));
        assert_eq!(figures.largest_free, REGION.size);
        assert!(ranges.is_idle());
        assert!(allocate(&mut ranges, PAGE)?.is_err());
        assert_eq!(scrub_all(&mut ranges), 4);
        let figures = ranges.figures();
        assert_eq!((figures.clean, figures.dirty), (REGION.size, 0));
        assert!(allocate(&mut ranges, REGION.size)?.is_ok());
        Ok(())
    }

    #[test]
    fn a_released_range_is_dirty_until_it_is_scrubbed() -> Result {
        let mut ranges = ranges(64)?;
        let range = allocate(&mut ranges, 3 * PAGE)?.map_err(|_| ENOMEM)?;
        ranges.set_state(range.start, RangeState::Open);
        assert_eq!(ranges.figures().buffers, 1);
        ranges.soil(range.start);
        let figures = ranges.figures();
        assert_eq!((figures.buffers, figures.dirty), (0, 3 * PAGE));
        assert_eq!(figures.largest_free, REGION.size);
        assert_eq!(ranges.line_from(0).map(|line| line.state), Some("dirty"));
        assert_eq!(scrub_all(&mut ranges), 1);
        assert!(ranges.line_from(0).is_none());
        Ok(())
    }

    #[test]
    fn dirty_memory_is_something_to_wait_for() -> Result {
        let mut ranges = ranges(64)?;
        assert!(!ranges.has_dirty(PAGE));
        ranges.soil_all()?;
        assert!(ranges.has_dirty(REGION.size));
        assert!(!ranges.has_dirty(REGION.size + PAGE));
        scrub_all(&mut ranges);
        assert!(!ranges.has_dirty(PAGE));
        Ok(())
    }

    #[test]
    fn a_request_takes_just_what_it_needs_of_a_dirty_range() -> Result {
        let mut ranges = ranges(64)?;
        ranges.soil_all()?;
        let taken = take(&mut ranges, WINDOW + PAGE)?.map_err(|_| ENOMEM)?;
        assert_eq!(taken.range.start, REGION.start);
        assert_eq!(taken.range.size, WINDOW + PAGE);
        assert_eq!(taken.to_scrub.map(|range| range.size), Some(WINDOW + PAGE));
        assert_eq!(ranges.figures().dirty, REGION.size - WINDOW - PAGE);
        assert_eq!(
            ranges.line_from(REGION.start + 1).map(|line| line.start),
            Some(REGION.start + WINDOW + PAGE)
        );
        Ok(())
    }

    #[test]
    fn what_was_scrubbed_of_a_split_range_is_remembered() -> Result {
        let mut ranges = ranges(64)?;
        let all = allocate(&mut ranges, REGION.size)?.map_err(|_| ENOMEM)?;
        ranges.soil(all.start);
        let (start, window) = ranges.next_dirty(None).ok_or(EINVAL)?;
        let scrubbed = ranges.scrubbed(start, window.start + window.size);
        assert!(matches!(scrubbed, Some((_, None))));
        take(&mut ranges, PAGE)?.map_err(|_| ENOMEM)?;
        // The rest of the first window is zero already.
        let (start, window) = ranges.next_dirty(None).ok_or(EINVAL)?;
        assert_eq!(start, REGION.start + PAGE);
        assert_eq!(window.start, REGION.start + WINDOW);
        Ok(())
    }

    #[test]
    fn too_many_ranges_are_told_from_too_little_memory() -> Result {
        let mut ranges = ranges(2)?;
        let first = allocate(&mut ranges, 4 * PAGE)?.map_err(|_| ENOMEM)?;
        ranges.soil(first.start);
        allocate(&mut ranges, REGION.size - 4 * PAGE)?.map_err(|_| ENOMEM)?;
        // A part of the dirty range would make a third one.
        let refused = take(&mut ranges, PAGE)?.err();
        assert_eq!(refused, Some(AllocError::NoRecord));
        let refused = take(&mut ranges, 5 * PAGE)?.err();
        assert_eq!(refused, Some(AllocError::NoSpace));
        assert!(take(&mut ranges, 4 * PAGE)?.is_ok());
        Ok(())
    }

    #[test]
    fn first_pieces_are_few_and_whole_granules() {
        assert_eq!(first_piece(4 << 20, PAGE, 1 << 10), WINDOW);
        assert_eq!(first_piece(192 << 20, PAGE, 1 << 14), WINDOW);
        assert_eq!(first_piece(64 << 30, PAGE, 1 << 14), 256 << 20);
        assert_eq!(first_piece(4 << 30, 1 << 30, 4), 4 << 30);
        assert_eq!(first_piece(512 << 20, 1 << 25, 16), 128 << 20);
    }

    #[test]
    fn a_run_of_dirty_ranges_ends_at_a_gap() -> Result {
        let mut ranges = ranges(64)?;
        let mut starts = [0; 5];
        for start in &mut starts {
            *start = allocate(&mut ranges, PAGE)?.map_err(|_| ENOMEM)?.start;
        }
        for index in [0, 1, 2, 4] {
            ranges.soil(starts[index]);
        }
        let (start, run) = ranges.next_dirty(Some(REGION.size)).ok_or(EINVAL)?;
        assert_eq!(
            (start, run.start, run.size),
            (starts[0], starts[0], 3 * PAGE)
        );
        let (_, part) = ranges.next_dirty(Some(2 * PAGE)).ok_or(EINVAL)?;
        assert_eq!(part.size, 2 * PAGE);
        // Range by range, as the run was zeroed.
        let end = run.start + run.size;
        let mut at = start;
        while at < end {
            let (next, left_over) = ranges.scrubbed(at, end).ok_or(EINVAL)?;
            assert!(left_over.is_none());
            at = next;
        }
        assert_eq!(ranges.figures().dirty, PAGE);
        Ok(())
    }

    #[test]
    fn nodes_serve_again_and_one_too_many_is_handed_back() -> Result {
        let mut ranges = ranges(2)?;
        assert!(!ranges.has_spare());
        let range = allocate(&mut ranges, PAGE)?.map_err(|_| ENOMEM)?;
        assert!(!ranges.has_spare());
        assert!(ranges.release(range.start).is_none());
        assert!(ranges.has_spare());
        // What fails leaves the node.
        assert!(allocate(&mut ranges, 2 * REGION.size)?.is_err());
        assert!(ranges.has_spare());
        assert!(ranges.keep(NodeReservation::new(GFP_KERNEL)?).is_none());
        assert!(ranges.keep(NodeReservation::new(GFP_KERNEL)?).is_some());
        Ok(())
    }

    fn whole() -> Result<Ranges> {
        let mut ranges = ranges(64)?;
        ranges.fence_as_a_whole();
        Ok(ranges)
    }

    #[test]
    fn nothing_is_allocated_behind_a_fence_that_is_not_up() -> Result {
        let mut ranges = whole()?;
        assert!(!ranges.can_allocate());
        assert_eq!(ranges.figures().fenced, 0);
        drop(ranges.fenced(7));
        assert!(ranges.can_allocate());
        assert_eq!(ranges.whole_handle(), Some(7));
        assert_eq!(ranges.figures().fenced, REGION.size);
        ranges.stuck(8);
        assert!(!ranges.can_allocate());
        let figures = ranges.figures();
        assert_eq!((figures.kept_back, figures.clean), (REGION.size, 0));
        assert_eq!(figures.largest_free, 0);
        drop(ranges.opened());
        assert_eq!(ranges.figures().clean, REGION.size);
        Ok(())
    }

    #[test]
    fn a_fence_is_opened_when_nothing_is_allocated_behind_it() -> Result {
        let mut ranges = whole()?;
        drop(ranges.fenced(7));
        let range = allocate(&mut ranges, PAGE)?.map_err(|_| ENOMEM)?;
        assert!(matches!(ranges.begin_opening(0), Opening::No));
        ranges.soil(range.start);
        assert!(matches!(
            ranges.begin_opening(60_000),
            Opening::Later(1..=60_000)
        ));
        assert!(matches!(ranges.begin_opening(0), Opening::Now(7)));
        // Others wait, and what is dirty is left alone.
        assert!(!ranges.can_allocate());
        assert!(ranges.next_dirty(None).is_none());
        drop(ranges.opened());
        let figures = ranges.figures();
        assert_eq!((figures.dirty, figures.clean), (0, REGION.size));
        Ok(())
    }

    #[test]
    fn a_lost_region_is_empty_before_it_is_used_again() -> Result {
        let mut ranges = whole()?;
        drop(ranges.fenced(7));
        let range = allocate(&mut ranges, PAGE)?.map_err(|_| ENOMEM)?;
        ranges.set_state(range.start, RangeState::Protected);
        ranges.lost();
        assert!(ranges.is_lost(range.start));
        assert!(!ranges.can_be_fenced());
        ranges.soil(range.start);
        assert!(ranges.can_be_fenced());
        Ok(())
    }
}
