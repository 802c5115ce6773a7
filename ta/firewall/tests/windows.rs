// SPDX-License-Identifier: MIT OR Apache-2.0

//! A barrier of few windows: what shares one, what is refused, and that a
//! refusal leaves nothing half done.

mod simulation;

use ringfence_firewall::extent::GRANULE;
use ringfence_firewall::tzc::{register, Controller, Registers};
use ringfence_firewall::{Barrier, Error, Extent, Step};
use simulation::{address, Faults, World, RECORD, RECORD_PAGES, UI, VIDEO, VIDEO_PAGES};

/// A page of the first region, of which every second one is used.
fn apart(n: u64) -> u64 {
    address(VIDEO + 2 * n)
}

#[test]
fn each_stretch_takes_a_window_until_there_is_none() {
    for windows in 1..=8 {
        let mut world = World::with_windows(windows as usize);
        for n in 0..windows {
            assert!(world.protect(apart(n), GRANULE).is_ok());
        }
        assert_eq!(world.protect(apart(windows), GRANULE), Err(Error::NoWindow));
        assert_eq!(world.calls(), 2 * windows, "nothing was tried");
        assert_eq!(world.unprotect(apart(0), GRANULE), Ok(()));
        assert!(world.protect(apart(windows), GRANULE).is_ok());
        world.recover();
    }
}

#[test]
fn ranges_that_touch_share_a_window_across_use_cases() {
    let mut world = World::with_windows(1);
    let last = VIDEO + VIDEO_PAGES - 1;
    assert!(world.protect(address(last), GRANULE).is_ok());
    assert!(world.protect(address(UI), GRANULE).is_ok());
    assert!(world.protect(address(last - 3), 3 * GRANULE).is_ok());
    assert_eq!(
        world.protect(address(VIDEO), GRANULE),
        Err(Error::NoWindow),
        "it touches none"
    );
    world.recover();
}

#[test]
fn a_range_that_closes_a_gap_gives_a_window_back() {
    let mut world = World::with_windows(2);
    assert!(world.protect(address(VIDEO), GRANULE).is_ok());
    assert!(world.protect(address(VIDEO + 2), GRANULE).is_ok());
    assert!(world.protect(address(VIDEO + 1), GRANULE).is_ok());
    assert!(world.protect(address(VIDEO + 9), GRANULE).is_ok());
    world.recover();
}

#[test]
fn a_range_between_two_waits_for_a_window() {
    let mut world = World::with_windows(1);
    let page = |n| address(VIDEO + n);
    for n in 0..3 {
        assert!(world.protect(page(n), GRANULE).is_ok());
    }
    let calls = world.calls();
    assert_eq!(world.unprotect(page(1), GRANULE), Err(Error::NoWindow));
    assert_eq!(world.calls(), calls, "nothing was tried");
    // It is as it was, and can be used.
    assert!(world.map(page(1), GRANULE).is_ok());
    world.ledger.platform_mut().ta_dies();
    assert_eq!(world.unprotect(page(0), GRANULE), Ok(()));
    assert_eq!(world.unprotect(page(1), GRANULE), Ok(()));
    assert_eq!(world.unprotect(page(2), GRANULE), Ok(()));
}

#[test]
fn a_region_takes_one_window_whatever_lives_in_it() {
    let mut world = World::with_windows(1);
    let (start, size) = (address(RECORD), RECORD_PAGES * GRANULE);
    assert!(world.protect(start, size).is_ok());
    for n in 0..20 {
        assert!(world.name(address(RECORD + 3 * n), GRANULE).is_ok());
    }
    assert_eq!(world.protect(address(VIDEO), GRANULE), Err(Error::NoWindow));
    world.recover();
}

#[test]
fn one_fault_leaves_nothing_of_a_window() {
    let page = |n| address(VIDEO + n);
    // What is there before, and what comes: alone, above, below, between.
    for (before, range) in [
        (&[][..], (5, 3)),
        (&[(2, 3)], (5, 3)),
        (&[(8, 1)], (5, 3)),
        (&[(4, 1), (8, 2)], (5, 3)),
    ] {
        for n in 0..3 {
            let mut world = World::with_windows(2);
            for &(first, pages) in before {
                assert!(world.protect(page(first), pages * GRANULE).is_ok());
            }
            let (start, size) = (page(range.0), range.1 * GRANULE);
            world.set_faults(Faults::Nth(n));
            let fails = n < 2;
            assert_eq!(world.protect(start, size).is_err(), fails);
            if fails {
                assert_eq!(world.ledger.len(), before.len());
                world.set_faults(Faults::None);
                assert!(world.protect(start, size).is_ok());
            }
            world.set_faults(Faults::Nth(n));
            assert_eq!(world.unprotect(start, size).is_err(), fails);
            world.recover();
        }
    }
}

/// Registers of a controller whose gates never close.
struct Stuck;

impl Registers for Stuck {
    fn read(&mut self, offset: u32) -> u32 {
        match offset {
            register::BUILD_CONFIG => 8,
            _ => u32::MAX,
        }
    }

    fn write(&mut self, _: u32, _: u32) {}
}

#[test]
fn a_gate_that_does_not_close_is_a_refusal() {
    let mut controller = Controller::new(Stuck, GRANULE);
    let extent = Extent::new(address(VIDEO), GRANULE).expect("an extent");
    assert!(controller.fence(extent).is_err());
    // And it is as open as before.
    assert!(controller.open(extent).is_err());
}

#[test]
fn a_controller_says_what_it_can_do() {
    let abilities = Controller::new(simulation::Simulated::new(6), 0x1_0000).abilities();
    assert_eq!(abilities.granule, 0x1_0000);
    assert_eq!(abilities.windows.map(|windows| windows.get()), Some(6));
    assert_eq!(abilities.step, Step::Whole);
}

#[test]
fn a_coarse_granule_binds_fences_and_not_parts() {
    use ringfence_proto::command::{Protection, UseCase};
    use simulation::{Machine, Simulated, BASE, PAGES};

    const COARSE: u64 = 16 * GRANULE;
    let controller = Controller::new(Simulated::new(8), COARSE);
    let machine = Machine::new(BASE, PAGES, Box::new(controller));
    let mut ledger = ringfence_firewall::Ledger::new(machine);
    let declare = |ledger: &mut ringfence_firewall::Ledger<Machine>, start, protection| {
        ledger.declare(start, 4 * COARSE, UseCase::SecureVideo, protection)
    };
    assert!(declare(&mut ledger, BASE + GRANULE, Protection::Buffer).is_err());
    assert_eq!(declare(&mut ledger, BASE, Protection::Buffer), Ok(()));
    assert_eq!(
        declare(&mut ledger, BASE + 4 * COARSE, Protection::Region),
        Ok(())
    );
    assert_eq!(ledger.protect(BASE, GRANULE), Err(Error::Malformed));
    assert_eq!(
        ledger.protect(BASE + GRANULE, COARSE),
        Err(Error::Malformed)
    );
    assert!(ledger.protect(BASE + COARSE, COARSE).is_ok());
    assert!(ledger.protect(BASE + 4 * COARSE, 4 * COARSE).is_ok());
    assert!(ledger.name(BASE + 4 * COARSE + GRANULE, GRANULE).is_ok());
}
