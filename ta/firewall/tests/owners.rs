// SPDX-License-Identifier: MIT OR Apache-2.0

//! A range is mapped into one address space at a time, and the decoder maps what
//! is for secure video only.

mod simulation;

use ringfence_firewall::extent::GRANULE;
use ringfence_firewall::Error;
use simulation::{address, World, DECODER, OTHER_DECODER, RECORD, RECORD_PAGES, UI, VIDEO};

const RINGFENCE: usize = 0;

/// A range for video of some pages.
fn video() -> (World, u64, u64) {
    let mut world = World::default();
    let (start, size) = (address(VIDEO), 4 * GRANULE);
    world.protect(start, size).expect("protected");
    (world, start, size)
}

#[test]
fn a_range_that_one_has_mapped_is_busy_for_all_others() {
    for owner in [RINGFENCE, DECODER, OTHER_DECODER] {
        let (mut world, start, size) = video();
        let va = world.switch(owner).map(start, GRANULE).expect("mapped");
        for other in [RINGFENCE, DECODER, OTHER_DECODER] {
            let expected = if other == owner {
                Ok(())
            } else {
                Err(Error::Mapped)
            };
            // Any part of it, also one that is not mapped.
            world.switch(other);
            for (offset, length) in [(0, GRANULE), (3 * GRANULE, GRANULE), (0, size)] {
                let outcome = world.map(start + offset, length);
                assert_eq!(outcome.map(|_| ()), expected, "{owner}, {other}");
                if let Ok(va) = outcome {
                    assert_eq!(world.unmap(va, length), Ok(()));
                }
            }
        }
        assert_eq!(
            world.switch(RINGFENCE).unprotect(start, size),
            Err(Error::Mapped)
        );
        assert_eq!(world.switch(owner).unmap(va, GRANULE), Ok(()));
        let next = (owner + 1) % 3;
        assert!(world.switch(next).map(start, size).is_ok());
        world.recover();
    }
}

#[test]
fn a_range_beside_it_is_not() {
    let (mut world, start, size) = video();
    world.protect(start + size, size).expect("protected");
    assert!(world.switch(DECODER).map(start, size).is_ok());
    assert!(world.switch(OTHER_DECODER).map(start + size, size).is_ok());
    world.recover();
}

/// Address spaces are alike: that another one has a window at the same address
/// says nothing.
#[test]
fn nobody_unmaps_anothers_window() {
    let (mut world, start, size) = video();
    world.protect(start + size, size).expect("protected");
    let one = world.switch(DECODER).map(start, size).expect("mapped");
    assert_eq!(
        world.switch(OTHER_DECODER).unmap(one, size),
        Err(Error::NotFound)
    );
    let other = world
        .switch(OTHER_DECODER)
        .map(start + size, size)
        .expect("mapped");
    assert_eq!(one, other, "the same address");
    assert_eq!(world.unmap(other, size), Ok(()));
    assert_eq!(
        world.switch(RINGFENCE).map(start, size),
        Err(Error::Mapped),
        "the first one's is still there"
    );
    world.recover();
}

#[test]
fn windows_go_with_the_application_that_dies() {
    for (owner, next) in [
        (DECODER, RINGFENCE),
        (RINGFENCE, DECODER),
        (DECODER, DECODER),
    ] {
        let (mut world, start, size) = video();
        world.switch(owner).map(start, size).expect("mapped");
        world.dies();
        // For the one that comes after it as well.
        let va = world.switch(next).map(start, size).expect("mapped");
        assert_eq!(world.unmap(va, size), Ok(()));
        assert_eq!(world.switch(RINGFENCE).unprotect(start, size), Ok(()));
        world.recover();
    }
}

/// Ours keep their session open. If one did not, its windows would be busy for
/// everybody until it is gone.
#[test]
fn windows_outlive_a_session_and_open_to_nobody() {
    let (mut world, start, size) = video();
    let va = world.switch(DECODER).map(start, size).expect("mapped");
    world.reopen();
    for application in [DECODER, OTHER_DECODER, RINGFENCE] {
        world.switch(application);
        assert_eq!(world.map(start, GRANULE), Err(Error::Mapped));
    }
    assert_eq!(world.unprotect(start, size), Err(Error::Mapped));
    assert_eq!(world.switch(DECODER).unmap(va, size), Err(Error::NotFound));
    world.dies();
    assert_eq!(world.switch(RINGFENCE).unprotect(start, size), Ok(()));
    world.recover();
}

#[test]
fn the_decoder_maps_what_is_for_secure_video_only() {
    let mut world = World::default();
    world.protect(address(UI), GRANULE).expect("protected");
    let region = (address(RECORD), RECORD_PAGES * GRANULE);
    world.protect(region.0, region.1).expect("protected");
    world.name(region.0, GRANULE).expect("named");
    for application in [DECODER, OTHER_DECODER] {
        world.switch(application);
        for start in [address(UI), region.0] {
            assert_eq!(world.map(start, GRANULE), Err(Error::Denied));
        }
        // Of what is not fenced it learns nothing.
        for start in [address(UI) + GRANULE, region.0 + GRANULE, address(VIDEO)] {
            assert_eq!(world.map(start, GRANULE), Err(Error::NotFound));
        }
    }
    world.switch(RINGFENCE);
    for start in [address(UI), region.0] {
        assert!(world.map(start, GRANULE).is_ok());
    }
    world.recover();
}
