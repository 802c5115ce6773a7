// SPDX-License-Identifier: GPL-2.0

//! Many calls against the bitmap oracle: a million each time, a hundred million on request.

mod model;
mod random;

use model::{
    Op,
    Outcome,
    World, //
};
use random::Random;
use ringfence_range_alloc::Geometry;

impl Random {
    /// Returns mostly small numbers, up to `end`: all magnitudes are as likely.
    fn magnitude(&mut self, end: u64) -> u64 {
        let bits = self.below(u64::from(end.ilog2()) + 1);
        (self.below(2 << bits) + 1).min(end)
    }

    fn op(&mut self, granules: u64) -> Op {
        match self.below(64) {
            0 => Op::AllocAt {
                start: self.below(granules) as u32,
                granules: self.magnitude(granules / 16 + 1) as u32,
            },
            1 => Op::FreeAgain(self.next() as u8),
            2..=33 => Op::Alloc {
                granules: self.magnitude(granules / 8 + 1) as u32,
                short: self.next() as u16,
                align: [0, 0, 0, 4, 4, 9, 9, self.below(12) as u8][self.below(8) as usize],
                top: self.below(4) == 0,
            },
            _ => Op::Free(self.next() as u16),
        }
    }
}

/// Makes `calls` calls, on regions of many sizes and bases, each filled and emptied again.
fn soak(calls: u64, seed: u64) {
    let mut random = Random(seed);
    let mut done = 0;
    let mut full = 0;
    while done < calls {
        let granules = 1 + random.magnitude(if cfg!(miri) { 1 << 12 } else { 1 << 19 });
        let granule = 4096 << [0, 0, 0, 0, 1, 4, 9][random.below(7) as usize];
        let geometry = Geometry {
            base: random.below(1 << 24) * granule,
            size: granules * granule,
            granule,
        };
        let mut world = World::new(geometry, 1 + random.below(2000) as usize);
        world.thorough = false;
        let share = 1 + random.below(200_000);
        for number in 0..share.min(calls - done) {
            // Frees more often than it allocates, so let it fill up first, again and again.
            let mut op = random.op(granules);
            while matches!(op, Op::Free(_)) && number % 4096 < 1500 {
                op = random.op(granules);
            }
            full += u64::from(world.apply(op) == Outcome::Full);
            if number % 4096 == 0 {
                world.check();
            }
        }
        done += share;
        world.free_all();
    }
    // A soak that is never refused memory has not tested the refusals.
    assert!(cfg!(miri) || full > calls / 100, "{full} of {calls}");
}

#[test]
fn a_million_calls() {
    soak(if cfg!(miri) { 1_000 } else { 1_000_000 }, 1);
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_million_calls() {
    for seed in 0..100 {
        soak(1_000_000, 1_000 + seed);
    }
}
