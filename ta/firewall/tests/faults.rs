// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every platform call of every command fails once, and so does every pair of
//! them, and everything from any call on. After each of these the ledger and
//! the hardware agree, nothing is open that holds data, nobody else's range was
//! touched, and what is left can be released.
//!
//! The checks are in [`simulation::World`]; here are the situations.

mod simulation;

use ringfence_firewall::extent::{BLOCK, GRANULE};
use ringfence_firewall::Error;
use simulation::{address, Faults, World, BASE, VIDEO};

/// Ranges that start and end inside, at and across blocks.
const RANGES: [(u64, u64); 5] = [
    (0x3000, 0x1000),
    (BLOCK, BLOCK),
    (BLOCK - GRANULE, 2 * GRANULE),
    (0, 3 * BLOCK),
    (BLOCK - 5 * GRANULE, 2 * BLOCK + 11 * GRANULE),
];

/// The region's second block is the first whole one.
fn start(offset: u64) -> u64 {
    BASE + BLOCK + offset
}

/// A world with a neighbour on each side of the range.
fn neighbourhood(start: u64, size: u64) -> World {
    let mut world = World::default();
    assert!(world.protect(start - GRANULE, GRANULE).is_ok());
    assert!(world.protect(start + size, GRANULE).is_ok());
    world
}

/// All schedules of faults for a command of `calls` platform calls.
fn schedules(calls: u64) -> impl Iterator<Item = Faults> {
    let nth = (0..calls).map(Faults::Nth);
    // A rollback makes more calls than the command itself.
    let from = (0..3 * calls).map(Faults::From);
    let two = (0..calls)
        .flat_map(move |one| (one + 1..3 * calls).map(move |other| Faults::Two(one, other)));
    nth.chain(from).chain(two)
}

fn calls(world: &mut World, command: impl FnOnce(&mut World)) -> u64 {
    let before = world.calls();
    command(world);
    world.calls() - before
}

#[test]
fn protect_survives_every_fault() {
    for (offset, size) in RANGES {
        let start = start(offset);
        let count = calls(&mut neighbourhood(start, size), |world| {
            assert!(world.protect(start, size).is_ok());
        });
        assert!(count >= 2);
        for faults in schedules(count) {
            let mut world = neighbourhood(start, size);
            world.set_faults(faults.clone());
            let result = world.protect(start, size);
            let first = match faults {
                Faults::Nth(n) | Faults::From(n) | Faults::Two(n, _) => n,
                Faults::None | Faults::Pattern(_) => unreachable!(),
            };
            assert_eq!(result.is_err(), first < count, "{faults:?}");
            world.recover();
        }
    }
}

#[test]
fn a_single_fault_leaves_nothing_of_a_protect() {
    for (offset, size) in RANGES {
        let start = start(offset);
        let count = calls(&mut neighbourhood(start, size), |world| {
            assert!(world.protect(start, size).is_ok());
        });
        for n in 0..count {
            let mut world = neighbourhood(start, size);
            world.set_faults(Faults::Nth(n));
            assert_eq!(world.protect(start, size), Err(Error::Platform));
            assert_eq!(world.ledger.len(), 2, "only the neighbours");
            world.set_faults(Faults::None);
            assert!(world.protect(start, size).is_ok(), "as good as new");
        }
    }
}

#[test]
fn unprotect_survives_every_fault() {
    for (offset, size) in RANGES {
        let start = start(offset);
        let prepared = || {
            let mut world = neighbourhood(start, size);
            assert!(world.protect(start, size).is_ok());
            let va = world.map(start, GRANULE).unwrap();
            world.ledger.platform_mut().ta_writes();
            assert_eq!(world.unmap(va, GRANULE), Ok(()));
            world
        };
        let count = calls(&mut prepared(), |world| {
            assert_eq!(world.unprotect(start, size), Ok(()));
        });
        assert!(count >= 2);
        for faults in schedules(count) {
            let mut world = prepared();
            world.set_faults(faults);
            // What is left is checked there to be quarantined.
            let _ = world.unprotect(start, size);
            world.recover();
        }
    }
}

#[test]
fn a_single_fault_keeps_the_name_of_a_range() {
    for (offset, size) in RANGES {
        let start = start(offset);
        let count = calls(&mut neighbourhood(start, size), |world| {
            assert!(world.protect(start, size).is_ok());
            assert_eq!(world.unprotect(start, size), Ok(()));
        }) / 2;
        for n in 0..count {
            let mut world = neighbourhood(start, size);
            assert!(world.protect(start, size).is_ok());
            world.set_faults(Faults::Nth(n));
            assert_eq!(world.unprotect(start, size), Err(Error::Platform));
            assert_eq!(world.ledger.quarantined(), 1);
            assert_eq!(world.map(start, GRANULE), Err(Error::NotFound));
            assert_eq!(world.protect(start, size), Err(Error::Overlap));
            assert_eq!(world.unprotect(start, size), Ok(()), "fault {n}");
        }
    }
}

#[test]
fn map_and_unmap_survive_every_fault() {
    let (start, size) = (address(VIDEO), 2 * BLOCK);
    for n in 0..4 {
        let mut world = World::default();
        assert!(world.protect(start, size).is_ok());
        world.set_faults(Faults::Nth(n));
        let va = world.map(start, BLOCK).or_else(|error| {
            assert_eq!(error, Error::Platform);
            world.map(start, BLOCK)
        });
        let va = va.unwrap();
        if world.unmap(va, BLOCK) == Err(Error::Platform) {
            assert_eq!(world.unprotect(start, size), Err(Error::Mapped));
            assert_eq!(world.unmap(va, BLOCK), Ok(()));
        }
        assert_eq!(
            world.unprotect(start, size),
            if n == 3 { Err(Error::Platform) } else { Ok(()) }
        );
        world.recover();
    }
}
