// SPDX-License-Identifier: GPL-2.0

//! Any sequence of calls on any region, against the bitmap oracle of the tests.

#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use model::{
    Op,
    World, //
};
use ringfence_range_alloc::Geometry;

/// A call, in the fuzzer's terms.
#[derive(Arbitrary, Debug)]
enum Call {
    Alloc(u16, u16, u8, bool),
    AllocLarge(u32),
    AllocAt(u16, u16),
    Free(u16),
    FreeAgain(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    base: u16,
    granules: u16,
    times: u8,
    shift: u8,
    max_live: u8,
    calls: Vec<Call>,
}

fuzz_target!(|input: Input| {
    let granule = 4096 << (input.shift % 10);
    let geometry = Geometry {
        base: u64::from(input.base) * granule,
        // Up to 2^20 granules, so that blocks exceed the largest key.
        size: (1 + u64::from(input.granules) * (1 + u64::from(input.times % 16))) * granule,
        granule,
    };
    let mut world = World::new(geometry, 1 + usize::from(input.max_live));
    world.thorough = input.granules < 4096;
    for call in input.calls.into_iter().take(256) {
        world.apply(match call {
            Call::Alloc(granules, short, align, top) => Op::Alloc {
                granules: u32::from(granules),
                short,
                align: align % 20,
                top,
            },
            Call::AllocLarge(granules) => Op::Alloc {
                granules: granules % (1 << 21),
                short: 0,
                align: 0,
                top: false,
            },
            Call::AllocAt(start, granules) => Op::AllocAt {
                start: u32::from(start),
                granules: u32::from(granules),
            },
            Call::Free(pick) => Op::Free(pick),
            Call::FreeAgain(pick) => Op::FreeAgain(pick),
        });
    }
    world.free_all();
});
