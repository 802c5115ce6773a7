// SPDX-License-Identifier: MIT OR Apache-2.0

//! A carveout that is fenced as a whole, and the parts of it that have names.

mod simulation;

use ringfence_firewall::extent::{BLOCK, GRANULE};
use ringfence_firewall::Error;
use ringfence_proto::command::{RangeKind, UseCase};
use ringfence_proto::firewall::MAX_RANGES;
use simulation::{address, Faults, World, RECORD, RECORD_PAGES, VIDEO};

const START: u64 = RECORD;
const SIZE: u64 = RECORD_PAGES * GRANULE;

fn page(n: u64) -> u64 {
    address(START + n)
}

fn fenced() -> World {
    let mut world = World::default();
    assert_eq!(world.protect(page(0), SIZE), Ok(UseCase::SecureVideoRecord));
    world
}

#[test]
fn it_is_fenced_as_a_whole_or_not_at_all() {
    let mut world = World::default();
    for (first, pages) in [
        (0, 1),
        (0, RECORD_PAGES - 1),
        (1, RECORD_PAGES - 1),
        (100, 3),
    ] {
        assert_eq!(
            world.protect(page(first), pages * GRANULE),
            Err(Error::Malformed)
        );
    }
    assert!(world.protect(page(0), SIZE).is_ok());
    assert_eq!(world.protect(page(0), SIZE), Err(Error::Overlap));
    assert_eq!(world.unprotect(page(0), GRANULE), Err(Error::NotFound));
    assert_eq!(world.unprotect(page(0), SIZE), Ok(()));
}

#[test]
fn only_named_parts_can_be_mapped() {
    let mut world = fenced();
    assert_eq!(world.map(page(0), GRANULE), Err(Error::NotFound));
    assert!(world.name(page(4), 4 * GRANULE).is_ok());
    for (first, pages) in [(0, 1), (3, 1), (3, 2), (7, 2), (8, 1), (0, 16)] {
        assert_eq!(
            world.map(page(first), pages * GRANULE),
            Err(Error::NotFound)
        );
    }
    let va = world.map(page(7), GRANULE).expect("the last page");
    assert_eq!(world.unmap(va, GRANULE), Ok(()));
}

#[test]
fn names_do_not_overlap_and_lie_inside_a_fenced_region() {
    let mut world = World::default();
    assert_eq!(world.name(page(0), GRANULE), Err(Error::NotFound));
    assert!(world.protect(address(VIDEO), 8 * GRANULE).is_ok());
    // A range that is fenced on its own has its name from the beginning.
    assert_eq!(world.name(address(VIDEO), GRANULE), Err(Error::NotFound));
    assert_eq!(world.scrub(address(VIDEO), GRANULE), Err(Error::NotFound));

    assert!(world.protect(page(0), SIZE).is_ok());
    assert!(world.name(page(10), 10 * GRANULE).is_ok());
    for (first, pages) in [(10, 10), (9, 2), (19, 2), (12, 1), (0, 30)] {
        assert_eq!(
            world.name(page(first), pages * GRANULE),
            Err(Error::Overlap)
        );
        assert_eq!(
            world.scrub(page(first), pages * GRANULE),
            Err(Error::Overlap)
        );
    }
    for (start, size) in [
        (page(0) - GRANULE, 2 * GRANULE),
        (page(RECORD_PAGES - 1), 2 * GRANULE),
        (page(RECORD_PAGES), GRANULE),
    ] {
        assert_eq!(world.name(start, size), Err(Error::OutOfBounds));
    }
    for (start, size) in [
        (page(0), 0),
        (page(0) + 1, GRANULE),
        (page(0), 1),
        (u64::MAX, 1),
        (page(0), 0u64.wrapping_sub(GRANULE)),
    ] {
        assert_eq!(world.name(start, size), Err(Error::Malformed));
        assert_eq!(world.forget(start, size), Err(Error::Malformed));
        assert_eq!(world.scrub(start, size), Err(Error::Malformed));
    }
}

#[test]
fn the_region_stays_fenced_as_long_as_a_part_has_a_name() {
    let mut world = fenced();
    assert!(world.name(page(3), GRANULE).is_ok());
    assert_eq!(world.unprotect(page(0), SIZE), Err(Error::Named));
    assert_eq!(world.forget(page(3), 2 * GRANULE), Err(Error::NotFound));
    assert_eq!(world.forget(page(3), GRANULE), Ok(()));
    assert_eq!(world.unprotect(page(0), SIZE), Ok(()));
}

#[test]
fn a_part_loses_its_content_before_its_name() {
    let mut world = fenced();
    // More than a block: the zeroing takes two steps.
    let (start, size) = (page(3), BLOCK + GRANULE);
    assert!(world.name(start, size).is_ok());
    let va = world.map(start, GRANULE).expect("a window");
    world.ledger.platform_mut().ta_writes();
    assert_eq!(world.forget(start, size), Err(Error::Mapped));
    assert_eq!(world.unmap(va, GRANULE), Ok(()));
    // Half way through; the name stays, and opens to nothing.
    world.set_faults(Faults::Nth(0));
    assert_eq!(world.forget(start, size), Err(Error::Platform));
    world.set_faults(Faults::None);
    assert_eq!(world.map(start, GRANULE), Err(Error::NotFound));
    assert_eq!(world.name(start, size), Err(Error::Overlap));
    assert_eq!(world.unprotect(page(0), SIZE), Err(Error::Named));
    assert_eq!(world.forget(start, size), Ok(()));
    world.recover();
}

#[test]
fn what_devices_wrote_is_gone_after_a_scrub() {
    let mut world = fenced();
    for n in [2, 3, 9] {
        world.ledger.platform_mut().device_writes(START + n);
    }
    assert_eq!(world.scrub(page(2), 8 * GRANULE), Ok(()));
    let before = world.calls();
    world.set_faults(Faults::Nth(0));
    assert_eq!(world.scrub(page(2), GRANULE), Err(Error::Platform));
    assert_eq!(world.calls(), before + 1);
    world.recover();
}

#[test]
fn names_and_ranges_share_the_room_in_the_ledger() {
    let mut world = fenced();
    for n in 0..RECORD_PAGES / 2 {
        assert!(world.ledger.name(page(2 * n), GRANULE).is_ok());
    }
    let mut next = 0;
    while world.ledger.len() < MAX_RANGES {
        assert!(world
            .ledger
            .protect(address(VIDEO + 2 * next), GRANULE)
            .is_ok());
        next += 1;
    }
    assert_eq!(world.name(page(1), GRANULE), Err(Error::Full));
    assert_eq!(
        world.protect(address(VIDEO + 2 * next), GRANULE),
        Err(Error::Full)
    );
    assert_eq!(world.forget(page(0), GRANULE), Ok(()));
    assert!(world.name(page(1), GRANULE).is_ok());
    world.recover();
}

#[test]
fn a_region_that_does_not_open_is_quarantined_as_a_whole() {
    for n in 0..6 {
        let mut world = fenced();
        world.set_faults(Faults::Nth(n));
        let outcome = world.unprotect(page(0), SIZE);
        world.set_faults(Faults::None);
        if outcome.is_err() {
            assert_eq!(world.ledger.quarantined(), 1);
            assert_eq!(world.name(page(0), GRANULE), Err(Error::NotFound));
            assert_eq!(world.scrub(page(0), GRANULE), Err(Error::NotFound));
            let record = world.ledger.records().next().expect("still there");
            assert_eq!(record.kind, RangeKind::Region.raw());
        }
        world.recover();
    }
}
