// SPDX-License-Identifier: GPL-2.0

//! Where ranges go.

mod owned;

use owned::Ranges;
use ringfence_range_alloc::{AllocError, Geometry, Placement, Request};

const GIB: u64 = 1 << 30;

fn ranges(base: u64, size: u64) -> Ranges {
    let geometry = Geometry {
        base,
        size,
        granule: 4096,
    };
    owned::ranges(geometry, 64)
}

fn request(size: u64, align: u64, placement: Placement) -> Request {
    Request {
        size,
        align,
        placement,
    }
}

#[test]
fn alignment_is_of_the_physical_address() {
    // A base that is aligned to nothing but the granule.
    for placement in [Placement::Bottom, Placement::Top] {
        for align in (12..=30).map(|shift| 1 << shift) {
            let mut ranges = ranges(0x1_2345_7000, 4 * GIB);
            let range = ranges.alloc(request(8192, align, placement)).unwrap();
            assert_eq!(range.start % align, 0, "{align:#x}");
        }
    }
}

#[test]
fn both_ends_are_packed() {
    let mut ranges = ranges(GIB, 64 << 20);
    let mut start = |placement| {
        let range = ranges.alloc(request(1 << 20, 4096, placement)).unwrap();
        (range.start - GIB) >> 20
    };
    let starts = [0, 1, 2].map(|_| (start(Placement::Bottom), start(Placement::Top)));
    assert_eq!(starts, [(0, 63), (1, 62), (2, 61)]);
}

#[test]
fn the_best_fit_is_taken() {
    let mut ranges = ranges(GIB, 64 << 20);
    // Holes of 3, 1 and 2 MiB, and the rest.
    for start in [3, 5, 8] {
        ranges.alloc_at(GIB + (start << 20), 1 << 20).unwrap();
    }
    for (size, start) in [(1, 4), (2, 6), (3, 0), (3, 9)] {
        let range = ranges.alloc(request(size << 20, 4096, Placement::Bottom));
        assert_eq!(range.unwrap().start, GIB + (start << 20), "{size} MiB");
    }
}

#[test]
fn the_whole_region_is_one_range_whatever_its_size() {
    for size in [
        4096,
        64 << 10,
        GIB - 4096,
        GIB,
        GIB + 4096,
        2 * GIB,
        64 * GIB,
    ] {
        let mut ranges = ranges(GIB, size);
        for placement in [Placement::Bottom, Placement::Top] {
            let range = ranges.alloc(request(size, GIB, placement)).unwrap();
            assert_eq!((range.start, range.size), (GIB, size));
            assert_eq!(ranges.stats().largest_free, 0);
            ranges.free(range.handle).unwrap();
            assert_eq!(ranges.stats().largest_free, size);
        }
    }
}

#[test]
fn beyond_the_largest_key_every_block_is_tried() {
    let mut ranges = ranges(GIB, 64 * GIB);
    // Free runs of 2, 1, 5, 3 GiB, less the granules that part them.
    for end in [2, 3, 8, 11] {
        ranges.alloc_at(GIB + end * GIB, 4096).unwrap();
    }
    let rest = 53 * GIB - 4096;
    assert_eq!(ranges.stats().largest_free, rest);
    ranges
        .alloc(request(rest, 4096, Placement::Bottom))
        .unwrap();
    assert_eq!(ranges.stats().largest_free, 5 * GIB - 4096);
    let too_long = ranges.alloc(request(5 * GIB, 4096, Placement::Top));
    assert_eq!(too_long, Err(AllocError::NoSpace));
    // 5 GiB less a granule does not hold 4 GiB and 1 MiB that are aligned to 1 GiB…
    let range = ranges
        .alloc(request(4 * GIB - 4096, GIB, Placement::Top))
        .unwrap();
    assert_eq!(range.start, GIB + 4 * GIB);
    assert_eq!(ranges.stats().largest_free, 3 * GIB - 4096);
}

#[test]
fn a_fit_at_the_next_class_is_found() {
    // 128 KiB is no class; the only free run is one that 2 MiB fits exactly.
    let mut ranges = ranges(GIB, 4 << 20);
    ranges.alloc_at(GIB, 2 << 20).unwrap();
    ranges
        .alloc_at(GIB + (2 << 20) + (128 << 10), (2 << 20) - (128 << 10))
        .unwrap();
    let range = ranges.alloc(request(128 << 10, 128 << 10, Placement::Bottom));
    assert_eq!(range.unwrap().start, GIB + (2 << 20));
}
