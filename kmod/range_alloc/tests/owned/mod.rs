// SPDX-License-Identifier: GPL-2.0

//! An allocator that owns its metadata, for tests.

use ringfence_range_alloc::{Geometry, Group, RangeAllocator, Record};

pub type Ranges = RangeAllocator<Vec<Record>, Vec<Group>>;

/// An empty one.
pub fn ranges(geometry: Geometry, max_live: usize) -> Ranges {
    let needed = geometry.metadata_size(max_live).expect("sound geometry");
    RangeAllocator::new(
        geometry,
        max_live,
        vec![Record::default(); needed.records],
        vec![Group::default(); needed.groups],
    )
    .expect("sound geometry")
}
