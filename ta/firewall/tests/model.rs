// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random runs, each operation checked against what the pages say.

mod simulation;

use proptest::collection::vec;
use proptest::prelude::*;
use ringfence_firewall::extent::GRANULE;
use simulation::{address, Faults, Operation, World, PAGES, RECORD, RECORD_PAGES};

fn start() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (0..PAGES).prop_map(address),
        1 => (0..PAGES * GRANULE).prop_map(|offset| address(0) + offset),
        1 => any::<u64>(),
        1 => (0u64..8).prop_map(|pages| 0u64.wrapping_sub(pages * GRANULE)),
    ]
}

/// Mostly a page of the region that is fenced as a whole.
fn start_inside() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => (RECORD..RECORD + RECORD_PAGES).prop_map(address),
        1 => start(),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        12 => (1u64..20).prop_map(|pages| pages * GRANULE),
        6 => (1..PAGES).prop_map(|pages| pages * GRANULE),
        2 => (505u64..520).prop_map(|pages| pages * GRANULE),
        1 => any::<u64>(),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    prop_oneof![
        3 => Just(Faults::None),
        2 => (0u64..12).prop_map(Faults::Nth),
        2 => (0u64..12, 0u64..24).prop_map(|(one, other)| Faults::Two(one, other)),
        1 => (0u64..12).prop_map(Faults::From),
        1 => any::<u32>().prop_map(Faults::Pattern),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (start(), size()).prop_map(|(start, size)| Operation::Protect { start, size }),
        1 => (start(), size()).prop_map(|(start, size)| Operation::Unprotect { start, size }),
        2 => Just(Operation::ProtectRegion),
        4 => any::<usize>().prop_map(|index| Operation::ReleaseListed { index }),
        4 => (start_inside(), size()).prop_map(|(start, size)| Operation::Name { start, size }),
        1 => (start_inside(), size()).prop_map(|(start, size)| Operation::Forget { start, size }),
        2 => (start_inside(), size()).prop_map(|(start, size)| Operation::Scrub { start, size }),
        2 => any::<u64>().prop_map(|page| Operation::DeviceWrites { page }),
        1 => (start(), size()).prop_map(|(start, size)| Operation::Map { start, size }),
        3 => (any::<usize>(), 0u64..600, size()).prop_map(|(index, pages, size)| {
            Operation::MapListed { index, offset: pages * GRANULE, size }
        }),
        1 => (any::<u64>(), size()).prop_map(|(va, size)| Operation::Unmap { va, size }),
        2 => any::<usize>().prop_map(|index| Operation::UnmapWindow { index }),
        1 => (0..PAGES).prop_map(|page| Operation::NormalWorldWrites { page }),
        1 => Just(Operation::TaWrites),
        1 => Just(Operation::TaDies),
        2 => faults().prop_map(|faults| Operation::Fail { faults }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn random_runs_hold_the_invariants(operations in vec(operation(), 1..120)) {
        let mut world = World::default();
        for operation in operations {
            world.apply(operation);
        }
        world.recover();
    }

    /// The same on a controller with few windows, whose registers panic on what
    /// its manual forbids.
    #[test]
    fn random_runs_hold_the_invariants_with_few_windows(
        windows in 1usize..=8,
        operations in vec(operation(), 1..120),
    ) {
        let mut world = World::with_windows(windows);
        for operation in operations {
            world.apply(operation);
        }
        world.recover();
    }

    /// The fuzzer's way in.
    #[test]
    fn random_bytes_hold_the_invariants(bytes in vec(any::<u8>(), 0..400)) {
        World::run(&bytes);
    }
}
