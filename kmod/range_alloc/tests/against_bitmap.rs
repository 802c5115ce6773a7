// SPDX-License-Identifier: GPL-2.0

//! Random calls against the bitmap oracle, shrunk to the shortest that fail.

mod model;

use model::{
    Op,
    World, //
};
use proptest::prelude::*;
use ringfence_range_alloc::Geometry;

fn op(granules: u32) -> impl Strategy<Value = Op> {
    let size = prop_oneof![
        4 => 1..=16u32,
        3 => 1..=granules.min(600),
        1 => 0..=granules + 1,
    ];
    let align = prop_oneof![3 => Just(0u8), 2 => Just(4), 2 => Just(9), 1 => 0..=20u8];
    prop_oneof![
        8 => (size, 0..=4096u16, align, any::<bool>()).prop_map(|(granules, short, align, top)| {
            Op::Alloc { granules, short, align, top }
        }),
        1 => (0..=granules, 0..=64u32)
            .prop_map(|(start, granules)| Op::AllocAt { start, granules }),
        6 => any::<u16>().prop_map(Op::Free),
        1 => any::<u8>().prop_map(Op::FreeAgain),
    ]
}

fn geometry() -> impl Strategy<Value = (Geometry, usize)> {
    let granules = prop_oneof![1..=80u64, 1..=3000u64, 200_000..=600_000u64];
    let shift = prop_oneof![4 => Just(12u32), 1 => 12..=22u32];
    (granules, shift, 0..=1u64 << 20, 1..=300usize).prop_map(|(granules, shift, base, max_live)| {
        let granule = 1 << shift;
        let geometry = Geometry {
            base: base * granule,
            size: granules * granule,
            granule,
        };
        (geometry, max_live)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_bitmap(
        ((geometry, max_live), ops) in geometry().prop_flat_map(|(geometry, max_live)| {
            let granules = (geometry.size / geometry.granule) as u32;
            (Just((geometry, max_live)), prop::collection::vec(op(granules), 1..120))
        })
    ) {
        let mut world = World::new(geometry, max_live);
        for op in ops {
            world.apply(op);
        }
        world.free_all();
    }
}
