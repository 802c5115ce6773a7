// SPDX-License-Identifier: GPL-2.0

//! Every short sequence of calls on a tiny region, against the bitmap oracle.

mod model;

use model::{
    Op,
    Outcome,
    World, //
};
use ringfence_range_alloc::Geometry;

/// Replays `calls`, and then goes on with each call that changes something.
fn explore(geometry: Geometry, calls: &mut Vec<Op>, depth: usize, sequences: &mut usize) {
    let allocs = (1..=3u32).flat_map(|granules| {
        [(0, false), (1, true)].map(|(align, top)| Op::Alloc {
            granules,
            short: 0,
            align,
            top,
        })
    });
    let others = [
        Op::AllocAt {
            start: 2,
            granules: 1,
        },
        Op::FreeAgain(0),
    ];
    for op in allocs.chain((0..3).map(Op::Free)).chain(others) {
        let mut world = World::new(geometry, 3);
        world.thorough = false;
        for &op in calls.iter() {
            world.apply(op);
        }
        if matches!(op, Op::Free(pick) if usize::from(pick) >= world.live.len()) {
            continue;
        }
        world.thorough = true;
        let outcome = world.apply(op);
        *sequences += 1;
        if outcome == Outcome::Done && depth > 1 {
            calls.push(op);
            explore(geometry, calls, depth - 1, sequences);
            calls.pop();
        }
        world.free_all();
    }
}

#[test]
fn all_sequences_of_six_calls() {
    // Granules of 1 MiB, from an odd one on: the class of 2 MiB matters.
    let geometry = Geometry {
        base: 3 << 20,
        size: 6 << 20,
        granule: 1 << 20,
    };
    let mut sequences = 0;
    let depth = if cfg!(miri) { 2 } else { 6 };
    explore(geometry, &mut Vec::new(), depth, &mut sequences);
    assert!(cfg!(miri) || sequences > 10_000, "{sequences}");
}
