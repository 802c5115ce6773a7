// SPDX-License-Identifier: GPL-2.0

//! Zeroes memory that nobody has: ahead of need, or when it is needed.
//!
//! A buffer's memory is dirty when it is given back, and so is a whole region at
//! first, as nobody knows what the firmware left there. The heap's worker zeroes
//! it, lowest address first, in windows, no faster than the module parameter
//! `scrub_rate` allows, and it is clean for the allocator when its range is done.
//!
//! An allocation takes clean memory if a run of it fits, and has nothing to do
//! with any of this. Otherwise it takes over the [cheapest place] that clean and
//! dirty memory together have room for, and zeroes that, and no more. This costs,
//! beside the zeroing: waiting for the one window that may be under way, a step
//! for each allocated and each dirty range to find the place, and up to three
//! walks over the allocator's blocks to take it. It fails only where it would
//! fail if all of the memory were clean.
//!
//! Behind the fence of a region the secure world does the zeroing, and a window is
//! all that lies side by side, up to a limit, as a call of it costs as much as
//! zeroing megabytes.
//!
//! What could not be zeroed stays dirty: the worker tries again after a while.
//!
//! [cheapest place]: crate::place::cheapest

use kernel::{
    prelude::*,
    sync::{
        Arc,
        MutexGuard, //
    },
    time::Msecs, //
};
use ringfence_core::{
    inject::{
        self,
        Point, //
    },
    reserved_mem::WINDOW,
    task::Origin, //
};
use ringfence_range_alloc::AllocError;

use crate::{
    carveout::{
        errno,
        Carveout, //
    },
    module_parameters,
    ranges::{
        Nodes,
        Taken,
        Wish, //
    },
    reservation::Reservation, //
};

/// Milliseconds between two spells of work.
const INTERVAL: Msecs = 20;

/// Milliseconds until what failed is tried again.
const RETRY: Msecs = 1_000;

/// Bytes in a spell at most, for which the end of a heap may have to wait.
const MAX_SPELL: u64 = 64 << 20;

/// Bytes that the secure world zeroes in one call at most.
const RUN: u64 = 16 << 20;

/// Bytes to zero in a spell of work, at `rate` MiB in a second; 0 means never.
fn spell(rate: u32) -> u64 {
    if rate == 0 {
        return 0;
    }
    let bytes = (u64::from(rate) << 20) * u64::from(INTERVAL) / 1_000;
    bytes.clamp(WINDOW, MAX_SPELL)
}

/// Milliseconds to pause after a spell of `bytes`, at `rate` MiB in a second.
fn pause(rate: u32, bytes: u64) -> Msecs {
    let rate = u64::from(rate.max(1)) << 20;
    // CAST: At most `MAX_SPELL` bytes in at least a MiB a second.
    (bytes * 1_000).div_ceil(rate) as Msecs
}

/// Does a spell of work in the background, and answers when to go on, if there is
/// more to do.
pub(crate) fn work(carveout: &Carveout) -> Option<Msecs> {
    let rate = *module_parameters::scrub_rate.value_ref();
    let budget = spell(rate);
    let mut done = 0;
    while done < budget {
        // Between two windows others may take the lock.
        let scrubbing = carveout.scrubbing().lock();
        if inject::check(Point::Background).is_err() {
            return Some(RETRY);
        }
        match window(carveout, &scrubbing) {
            Ok(Some(bytes)) => done += bytes,
            Ok(None) => return None,
            Err(_) => return Some(RETRY),
        }
    }
    (budget > 0).then(|| pause(rate, done))
}

/// Zeroes a window of the first dirty range, if there is one, and answers its size
/// in bytes.
fn window(carveout: &Carveout, _scrubbing: &MutexGuard<'_, ()>) -> Result<Option<u64>> {
    let most = carveout.is_fenced_as_a_whole().then_some(RUN);
    let Some((mut start, window)) = carveout.ranges().lock().next_dirty(most) else {
        return Ok(None);
    };
    // The ranges can't go away meanwhile: that takes the lock that the caller holds.
    carveout.zero(window)?;
    let end = window.start + window.size;
    while start < end {
        let scrubbed = carveout.ranges().lock().scrubbed(start, end);
        // Its node's memory is given back outside of the lock.
        let Some((next, _node)) = scrubbed else {
            break;
        };
        start = next;
    }
    Ok(Some(window.size))
}

/// Allocates memory, though there is no clean run that fits.
///
/// # Errors
///
/// `ENOMEM` when nothing fits, or without the memory to do it; `EINTR` when a
/// fatal signal is pending; `EAGAIN` when a region has to be fenced first. What was
/// taken is dirty again then.
pub(crate) fn clean_now(carveout: &Arc<Carveout>, wish: Wish) -> Result<Reservation> {
    let Taken { range, to_scrub } = take(carveout, wish)?;
    let reservation = Reservation::unknown(carveout, range);
    if let Some(to_scrub) = to_scrub {
        inject::check(Point::Scrub)?;
        carveout.zero(to_scrub)?;
    }
    Ok(reservation)
}

fn take(carveout: &Carveout, wish: Wish) -> Result<Taken> {
    loop {
        let nodes = Nodes::new()?;
        let scrubbing = carveout.scrubbing().lock();
        let taken = {
            let mut ranges = carveout.ranges().lock();
            if !ranges.can_allocate() {
                return Err(EAGAIN);
            }
            ranges.take(nodes, wish, Origin::current())
        };
        match taken {
            // Fewer dirty ranges make room for records. Each window is progress.
            Err(AllocError::NoRecord) => match window(carveout, &scrubbing)? {
                Some(_) => {}
                None => return Err(ENOMEM),
            },
            taken => return taken.map_err(errno),
        }
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_carveout_scrubber)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_bounded() {
        assert_eq!(spell(0), 0);
        assert_eq!(spell(1), WINDOW);
        assert_eq!(spell(1024), (1024 << 20) / 50);
        assert_eq!(spell(u32::MAX), MAX_SPELL);
    }

    #[test]
    fn pauses_keep_to_the_rate() {
        assert_eq!(pause(1, WINDOW), 2_000);
        assert_eq!(pause(1024, spell(1024)), INTERVAL);
        assert_eq!(pause(1, MAX_SPELL), 64_000);
        assert_eq!(pause(u32::MAX, MAX_SPELL), 1);
    }
}
