// SPDX-License-Identifier: GPL-2.0

//! Bad input: refused with the error that says why, and nothing changes.

mod owned;

use owned::{ranges, Ranges};
use ringfence_range_alloc::{
    AllocError, FreeError, Geometry, GeometryError, Group, Placement, RangeAllocator, Record,
    Request, MAX_GRANULES,
};

const REGION: Geometry = Geometry {
    base: 0x8000_0000,
    size: 16 << 20,
    granule: 4096,
};

fn bottom(size: u64, align: u64) -> Request {
    Request {
        size,
        align,
        placement: Placement::Bottom,
    }
}

/// Makes the call, and checks that it changed nothing.
fn refused<T>(ranges: &mut Ranges, call: impl FnOnce(&mut Ranges) -> T) -> T {
    let look = |ranges: &Ranges| (ranges.ranges().collect::<Vec<_>>(), ranges.stats());
    let before = look(ranges);
    let answer = call(ranges);
    assert_eq!(before, look(ranges));
    answer
}

#[test]
fn geometries_that_cannot_be() {
    let bad = |change: fn(&mut Geometry)| {
        let mut geometry = REGION;
        change(&mut geometry);
        geometry.metadata_size(1).unwrap_err()
    };
    assert_eq!(bad(|g| g.granule = 0), GeometryError::Granule);
    assert_eq!(bad(|g| g.granule = 2048), GeometryError::Granule);
    assert_eq!(bad(|g| g.granule = 12288), GeometryError::Granule);
    assert_eq!(bad(|g| g.granule = 2 << 30), GeometryError::Granule);
    assert_eq!(bad(|g| g.base += 1), GeometryError::Unaligned);
    assert_eq!(bad(|g| g.size -= 1), GeometryError::Unaligned);
    assert_eq!(bad(|g| g.size = 0), GeometryError::Empty);
    assert_eq!(
        bad(|g| g.base = 0u64.wrapping_sub(8 << 20)),
        GeometryError::Wraps
    );
    assert_eq!(
        bad(|g| g.size = (MAX_GRANULES + 1) * g.granule),
        GeometryError::TooLarge
    );
    assert_eq!(REGION.metadata_size(0), Err(GeometryError::NoLive));
}

#[test]
fn the_last_address_can_be_managed() {
    let geometry = Geometry {
        base: 0u64.wrapping_sub(16 << 20),
        ..REGION
    };
    let range = ranges(geometry, 1)
        .alloc(bottom(16 << 20, 2 << 20))
        .unwrap();
    assert_eq!((range.start, range.size), (geometry.base, geometry.size));
}

#[test]
fn metadata_of_another_size() {
    let needed = REGION.metadata_size(8).unwrap();
    for (records, groups) in [(-1, 0), (0, -1), (1, 0), (0, 1)] {
        let ranges = RangeAllocator::new(
            REGION,
            8,
            vec![Record::default(); needed.records.wrapping_add_signed(records)],
            vec![Group::default(); needed.groups.wrapping_add_signed(groups)],
        );
        assert_eq!(ranges.unwrap_err(), GeometryError::Metadata);
    }
}

#[test]
fn more_live_ranges_than_imaginable() {
    let needed = REGION.metadata_size(usize::MAX).unwrap();
    assert_eq!(needed.records as u64, REGION.size / REGION.granule);
    let mut ranges = ranges(REGION, usize::MAX);
    for _ in 0..needed.records {
        ranges.alloc(bottom(1, 1)).unwrap();
    }
    assert_eq!(ranges.alloc(bottom(1, 1)), Err(AllocError::NoSpace));
}

#[test]
fn requests_that_cannot_be() {
    let mut ranges = ranges(REGION, 8);
    let mut alloc = |size, align| refused(&mut ranges, |r| r.alloc(bottom(size, align)));
    assert_eq!(alloc(0, 4096), Err(AllocError::ZeroSize));
    assert_eq!(alloc(4096, 0), Err(AllocError::Alignment));
    assert_eq!(alloc(4096, 12288), Err(AllocError::Alignment));
    assert_eq!(alloc(4096, 2 << 30), Err(AllocError::Alignment));
    assert_eq!(alloc(4096, 1 << 63), Err(AllocError::Alignment));
    assert_eq!(alloc(REGION.size + 1, 1), Err(AllocError::OutOfBounds));
    assert_eq!(alloc(u64::MAX, 1), Err(AllocError::OutOfBounds));
}

#[test]
fn places_that_cannot_be() {
    let mut ranges = ranges(REGION, 2);
    ranges.alloc_at(REGION.base + 8192, 4096).unwrap();
    let end = REGION.base + REGION.size;
    let mut at = |start, size| refused(&mut ranges, |r| r.alloc_at(start, size));
    assert_eq!(at(REGION.base, 0), Err(AllocError::ZeroSize));
    assert_eq!(at(REGION.base, u64::MAX), Err(AllocError::OutOfBounds));
    assert_eq!(at(REGION.base - 4096, 4096), Err(AllocError::OutOfBounds));
    assert_eq!(at(end, 4096), Err(AllocError::OutOfBounds));
    assert_eq!(at(end - 4096, 8192), Err(AllocError::OutOfBounds));
    assert_eq!(at(u64::MAX, 4096), Err(AllocError::OutOfBounds));
    assert_eq!(at(REGION.base + 1, 4096), Err(AllocError::Unaligned));
    assert_eq!(at(REGION.base, 4095), Err(AllocError::Unaligned));
    assert_eq!(at(REGION.base + 8192, 4096), Err(AllocError::Occupied));
    assert_eq!(at(REGION.base + 4096, 8192), Err(AllocError::Occupied));
    ranges.alloc_at(REGION.base + 4096, 4096).unwrap();
    assert_eq!(
        refused(&mut ranges, |r| r.alloc_at(REGION.base, 4096)),
        Err(AllocError::NoRecord)
    );
}

#[test]
fn more_live_ranges_than_records() {
    let mut ranges = ranges(REGION, 3);
    let handles = [0, 1, 2].map(|_| ranges.alloc(bottom(4096, 64 << 10)).unwrap().handle);
    let answer = refused(&mut ranges, |r| r.alloc(bottom(4096, 4096)));
    assert_eq!(answer, Err(AllocError::NoRecord));
    ranges.free(handles[1]).unwrap();
    ranges.alloc(bottom(4096, 4096)).unwrap();
}

#[test]
fn handles_that_are_not_ours() {
    let mut small = ranges(REGION, 1);
    let mut large = ranges(REGION, 8);
    // Another record, which the small one does not have.
    large.alloc_at(REGION.base + 8192, 4096).unwrap();
    let handles = [large.alloc(bottom(1 << 20, 1 << 20)).unwrap().handle];
    for handle in handles {
        assert!(refused(&mut small, |r| r.free(handle)).is_err());
    }
    // The same record and generation, at another place.
    let there = ranges(
        Geometry {
            base: REGION.base + 4096,
            ..REGION
        },
        1,
    )
    .alloc(bottom(4096, 4096))
    .unwrap();
    small.alloc(bottom(4096, 4096)).unwrap();
    let answer = refused(&mut small, |r| r.free(there.handle));
    assert_eq!(answer, Err(FreeError::Foreign));
}

#[test]
fn handles_of_freed_ranges() {
    let mut ranges = ranges(REGION, 8);
    let first = ranges.alloc(bottom(4096, 4096)).unwrap();
    let second = ranges.alloc(bottom(4096, 4096)).unwrap();
    ranges.free(first.handle).unwrap();
    let again = refused(&mut ranges, |r| r.free(first.handle));
    assert_eq!(again, Err(FreeError::Stale));
    // The same memory, by the same record, is another range.
    let third = ranges.alloc(bottom(4096, 4096)).unwrap();
    assert_eq!(third.start, first.start);
    let again = refused(&mut ranges, |r| r.free(first.handle));
    assert_eq!(again, Err(FreeError::Stale));
    // Also when its record has been absorbed by a neighbour.
    ranges.free(third.handle).unwrap();
    ranges.free(second.handle).unwrap();
    for handle in [first.handle, second.handle, third.handle] {
        assert_eq!(ranges.free(handle), Err(FreeError::Stale));
    }
}
