// SPDX-License-Identifier: GPL-2.0

//! What can't be seen from outside: the arithmetic of keys, and that the index is what it says.

extern crate std;

use std::{
    collections::BTreeMap,
    vec,
    vec::Vec, //
};

use super::{
    blocks::in_order,
    proofs::slots_are_usable_lengths,
    Geometry,
    Group,
    Handle,
    Placement,
    RangeAllocator,
    Record,
    Request, //
};

type Ranges = RangeAllocator<Vec<Record>, Vec<Group>>;

fn ranges(geometry: Geometry, max_live: usize) -> Ranges {
    let needed = geometry.metadata_size(max_live).unwrap();
    RangeAllocator::new(
        geometry,
        max_live,
        vec![Record::default(); needed.records],
        vec![Group::default(); needed.groups],
    )
    .unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn keys_are_usable_lengths() {
    for shift in [12, 14, 16, 18, 21, 22] {
        let ranges = ranges(
            Geometry {
                base: 0,
                size: 1 << shift,
                granule: 1 << shift,
            },
            1,
        );
        let index = ranges.blocks.index();
        // Beyond one turn of the largest alignment, only the largest key is of interest.
        let lengths = (1u32..=1030).chain((1 << 18) - 520..(1 << 18) + 520);
        for length in lengths {
            for start in [0, 1, 512, (1u32 << 24) - 7].map(|start| start..start + 515) {
                for start in start {
                    slots_are_usable_lengths(index, shift, start, length);
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too long")]
fn the_index_has_the_free_blocks_and_nothing_else() {
    let geometry = Geometry {
        base: 0x1234_5000,
        size: 3 << 30,
        granule: 4096,
    };
    let mut ranges = ranges(geometry, 400);
    let mut live: Vec<Handle> = Vec::new();
    let mut state = 1u64;
    let mut random = move |end: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % end
    };
    for number in 0..4000 {
        let bits = random(29);
        let request = Request {
            size: 1 + random(1 << bits.max(1)),
            align: [1 << 12, 1 << 16, 1 << 21][random(3) as usize],
            placement: [Placement::Bottom, Placement::Top][random(2) as usize],
        };
        match ranges.alloc(request) {
            Ok(range) if random(8) != 0 => live.push(range.handle),
            Ok(range) => drop(ranges.free(range.handle).unwrap()),
            Err(_) => {
                for _ in 0..live.len() / 2 {
                    let pick = random(live.len() as u64) as usize;
                    ranges.free(live.swap_remove(pick)).unwrap();
                }
            }
        }
        // Looking at a whole index takes a while.
        if number % 16 != 0 {
            continue;
        }
        let mut expected = [const { BTreeMap::<u32, Vec<u32>>::new() }; 3];
        for (number, record) in in_order(&ranges.records) {
            let slots = ranges.blocks.index().slots(record.start, record.end);
            for (class, slot) in expected.iter_mut().zip(slots) {
                if !record.is_live() && slot < 1 << 18 {
                    class.entry(slot).or_default().push(number);
                }
            }
        }
        let index = ranges.blocks.index();
        for (class, mut expected) in expected.into_iter().enumerate() {
            expected
                .values_mut()
                .for_each(|blocks| blocks.sort_unstable());
            assert_eq!(
                index.content(&ranges.records, &ranges.groups, class),
                expected
            );
        }
    }
}
