// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger's rules, one by one, on a machine without faults.

mod simulation;

use ringfence_firewall::extent::{BLOCK, GRANULE};
use ringfence_firewall::ledger::{MAX_REGIONS, MAX_WINDOW};
use ringfence_firewall::{Caller, CallerId, Error, Ledger, RegionError, Role};
use ringfence_proto::command::{result, Protection, UseCase};
use ringfence_proto::firewall::MAX_RANGES;
use simulation::{
    address, Machine, Table, World, BASE, PAGES, RECORD, RECORD_PAGES, UI, UI_PAGES, VIDEO,
    VIDEO_PAGES,
};

/// A ledger without carveouts.
fn bare() -> Ledger<Machine> {
    Ledger::new(Machine::new(BASE, PAGES, Box::new(Table::new(BASE, PAGES))))
}

#[test]
fn a_range_is_named_by_its_exact_bounds() {
    let mut world = World::default();
    let (start, size) = (address(VIDEO), 8 * GRANULE);
    assert_eq!(world.protect(start, size), Ok(UseCase::SecureVideo));
    for (start, size) in [
        (start, size - GRANULE),
        (start, size + GRANULE),
        (start + GRANULE, size - GRANULE),
        (start - GRANULE, size),
    ] {
        assert_eq!(world.unprotect(start, size), Err(Error::NotFound));
    }
    assert_eq!(world.unprotect(start, size), Ok(()));
    assert_eq!(world.unprotect(start, size), Err(Error::NotFound));
}

#[test]
fn malformed_requests_are_refused() {
    let mut world = World::default();
    let start = address(VIDEO);
    for (start, size) in [
        (start, 0),
        (start + 1, GRANULE),
        (start, GRANULE + 1),
        (start, 0u64.wrapping_sub(GRANULE)),
        (0u64.wrapping_sub(GRANULE), GRANULE),
        (0u64.wrapping_sub(GRANULE), 2 * GRANULE),
        (u64::MAX, u64::MAX),
    ] {
        assert_eq!(world.protect(start, size), Err(Error::Malformed));
        assert_eq!(world.unprotect(start, size), Err(Error::Malformed));
        assert_eq!(world.map(start, size), Err(Error::Malformed));
        assert_eq!(world.unmap(start, size), Err(Error::Malformed));
    }
}

#[test]
fn a_range_lies_in_one_carveout() {
    let mut world = World::default();
    for (first, pages) in [
        (VIDEO - 1, 1),
        (VIDEO - 1, 2),
        (UI - 1, 2),
        (VIDEO, VIDEO_PAGES + UI_PAGES),
        (UI + UI_PAGES - 1, 2),
        (UI + UI_PAGES, RECORD_PAGES + 1),
        (RECORD + RECORD_PAGES, 1),
    ] {
        assert_eq!(
            world.protect(address(first), pages * GRANULE),
            Err(Error::OutOfBounds)
        );
    }
    assert_eq!(
        world.protect(address(VIDEO), VIDEO_PAGES * GRANULE),
        Ok(UseCase::SecureVideo)
    );
    assert_eq!(
        world.protect(address(UI), UI_PAGES * GRANULE),
        Ok(UseCase::TrustedUi)
    );
}

#[test]
fn ranges_do_not_overlap() {
    let mut world = World::default();
    let page = |n| address(VIDEO + n);
    assert!(world.protect(page(10), 10 * GRANULE).is_ok());
    for (first, pages) in [(10, 10), (9, 2), (19, 2), (12, 1), (0, 30)] {
        assert_eq!(
            world.protect(page(first), pages * GRANULE),
            Err(Error::Overlap)
        );
    }
    assert!(world.protect(page(0), 10 * GRANULE).is_ok());
    assert!(world.protect(page(20), GRANULE).is_ok());
}

#[test]
fn a_full_ledger_refuses_and_goes_on() {
    let mut world = World::default();
    let page = |n: usize| address(VIDEO + 2 * n as u64);
    for n in 0..MAX_RANGES {
        assert!(world.ledger.protect(page(n), GRANULE).is_ok());
    }
    assert_eq!(world.protect(address(UI + 1), GRANULE), Err(Error::Full));
    assert_eq!(world.unprotect(page(500), GRANULE), Ok(()));
    assert!(world.protect(address(UI + 1), GRANULE).is_ok());
    assert_eq!(world.protect(page(500), GRANULE), Err(Error::Full));
}

#[test]
fn a_mapped_range_is_not_released() {
    let mut world = World::default();
    let (start, size) = (address(VIDEO), 4 * BLOCK);
    assert!(world.protect(start, size).is_ok());
    assert_eq!(
        world.map(start, MAX_WINDOW + GRANULE),
        Err(Error::Malformed)
    );
    assert_eq!(
        world.map(start + size - GRANULE, 2 * GRANULE),
        Err(Error::NotFound)
    );
    let first = world.map(start, MAX_WINDOW).unwrap();
    let second = world.map(start + size - GRANULE, GRANULE).unwrap();
    assert_eq!(world.unprotect(start, size), Err(Error::Mapped));

    // In parts, and not beyond the window.
    assert_eq!(
        world.unmap(first, MAX_WINDOW + GRANULE),
        Err(Error::NotFound)
    );
    assert_eq!(world.unmap(first + GRANULE, GRANULE), Ok(()));
    assert_eq!(world.unmap(first, MAX_WINDOW), Err(Error::NotFound));
    assert_eq!(world.unmap(first, GRANULE), Ok(()));
    assert_eq!(
        world.unmap(first + 2 * GRANULE, MAX_WINDOW - 2 * GRANULE),
        Ok(())
    );
    assert_eq!(world.unprotect(start, size), Err(Error::Mapped));
    assert_eq!(world.unmap(second, GRANULE), Ok(()));
    assert_eq!(world.unmap(second, GRANULE), Err(Error::NotFound));
    assert_eq!(world.unprotect(start, size), Ok(()));
}

#[test]
fn a_dead_ta_holds_nothing() {
    let mut world = World::default();
    let (start, size) = (address(VIDEO), 2 * GRANULE);
    assert!(world.protect(start, size).is_ok());
    assert!(world.map(start, size).is_ok());
    world.ledger.platform_mut().ta_writes();
    assert_eq!(world.unprotect(start, size), Err(Error::Mapped));
    world.ledger.platform_mut().ta_dies();
    assert_eq!(world.unprotect(start, size), Ok(()));
}

#[test]
fn carveouts_are_disjoint_and_few() {
    let mut ledger = bare();
    let slot = |n: usize| BASE + n as u64 * 2 * BLOCK;
    for (start, size) in [(BASE, 0), (BASE + 1, BLOCK), (BASE, 1), (u64::MAX, 1)] {
        assert_eq!(
            ledger.declare(start, size, UseCase::None, Protection::Buffer),
            Err(RegionError::Malformed)
        );
    }
    for n in 0..MAX_REGIONS {
        assert_eq!(
            ledger.declare(slot(n), BLOCK, UseCase::None, Protection::Buffer),
            Ok(())
        );
        assert_eq!(
            ledger.declare(
                slot(n) + BLOCK - GRANULE,
                BLOCK,
                UseCase::None,
                Protection::Buffer
            ),
            Err(RegionError::Overlap)
        );
    }
    assert_eq!(
        ledger.declare(slot(MAX_REGIONS), BLOCK, UseCase::None, Protection::Buffer),
        Err(RegionError::Full)
    );
    assert_eq!(ledger.regions(), MAX_REGIONS);
}

#[test]
fn without_carveouts_everything_is_refused() {
    let mut ledger = bare();
    assert_eq!(ledger.protect(BASE, GRANULE), Err(Error::OutOfBounds));
    assert_eq!(ledger.unprotect(BASE, GRANULE), Err(Error::NotFound));
    let caller = Caller {
        id: CallerId::from_raw(1),
        role: Role::Ringfence,
    };
    assert_eq!(ledger.map(caller, BASE, GRANULE), Err(Error::NotFound));
    assert_eq!(ledger.platform().calls(), 0);
}

#[test]
fn one_call_to_the_firmware_per_block() {
    let mut world = World::default();
    // Three whole blocks, and a page before and behind.
    let start = BASE + BLOCK - GRANULE;
    let size = 3 * BLOCK + 2 * GRANULE;
    assert!(world.protect(start, size).is_ok());
    // Five pieces, each fenced and scrubbed once.
    assert_eq!(world.calls(), 10);
    assert_eq!(world.unprotect(start, size), Ok(()));
    assert_eq!(world.calls(), 20);
}

#[test]
fn errors_have_the_codes_of_the_protocol() {
    for (error, code) in [
        (Error::Malformed, result::BAD_PARAMETERS),
        (Error::OutOfBounds, result::ACCESS_DENIED),
        (Error::Overlap, result::ACCESS_CONFLICT),
        (Error::NotFound, result::ITEM_NOT_FOUND),
        (Error::Mapped, result::BUSY),
        (Error::Named, result::ACCESS_CONFLICT),
        (Error::Full, result::OUT_OF_MEMORY),
        (Error::NoWindow, result::NO_WINDOW),
        (Error::Platform, result::GENERIC),
    ] {
        assert_eq!(error.code(), code);
    }
}
