// SPDX-License-Identifier: GPL-2.0

//! What Linux wants of one range.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::Msecs, //
};
use ringfence_core::{
    attachment::PhysRange,
    registry::Heap, //
};

use crate::{
    carveout::Carveout,
    command::{
        result,
        NO_HANDLE, //
    },
    ranges::RangeState,
    reservation::Reservation, //
};

/// Milliseconds until a range that was busy is tried again, one after the other.
const DELAYS: [Msecs; 5] = [100, 400, 1_600, 6_400, 25_600];

/// A buffer's view of its handle, which changes when the trusted application is
/// restarted.
pub(crate) struct HandleCell(Atomic<u64>);

impl HandleCell {
    pub(crate) fn new() -> Self {
        Self(Atomic::new(NO_HANDLE))
    }

    pub(crate) fn get(&self) -> Option<u64> {
        match self.0.load(Relaxed) {
            NO_HANDLE => None,
            handle => Some(handle),
        }
    }

    pub(super) fn set(&self, handle: u64) {
        self.0.store(handle, Relaxed);
    }
}

/// What Linux wants of a range.
pub(super) enum Standing {
    /// That it stays fenced: a buffer lives.
    Live(Arc<HandleCell>),
    /// That it is opened, as soon as that is possible.
    Waiting,
    /// That it is opened, but the trusted application refused.
    Quarantined,
}

pub(super) struct Entry {
    pub(super) carveout: Arc<Carveout>,
    pub(super) range: PhysRange,
    /// Keeps the range from being allocated; gone with the entry. A named part's
    /// buffer has it as long as it lives.
    pub(super) reservation: Option<Reservation>,
    pub(super) handle: u64,
    pub(super) standing: Standing,
    /// How often it was busy.
    pub(super) attempts: usize,
    /// Whether the latest list had it.
    pub(super) listed: bool,
}

impl Entry {
    pub(super) fn new(reservation: Reservation, handle: u64, standing: Standing) -> Self {
        Self {
            carveout: reservation.carveout().clone(),
            range: reservation.range(),
            reservation: Some(reservation),
            handle,
            standing,
            attempts: 0,
            listed: true,
        }
    }

    pub(super) fn kept_back(reservation: Reservation, handle: u64) -> Self {
        let mut entry = Self::new(reservation, handle, Standing::Waiting);
        entry.wait();
        entry
    }

    /// Shows and counts the range as `state` from now on.
    pub(super) fn show(&self, state: RangeState) {
        let mut ranges = self.carveout.ranges().lock();
        ranges.set_state(self.range.start, state);
    }

    pub(super) fn wait(&mut self) {
        self.standing = Standing::Waiting;
        self.show(RangeState::Waiting);
    }

    /// Sees to it that the range is tried again, or gives up hope.
    pub(super) fn retry_later(&mut self) {
        match DELAYS.get(self.attempts) {
            Some(&delay) => {
                self.attempts += 1;
                Heap::retry_after(self.carveout.heap(), delay);
            }
            None => self.quarantine("is busy for too long", result::BUSY),
        }
    }

    pub(super) fn quarantine(&mut self, why: &str, code: u32) {
        if !matches!(self.standing, Standing::Quarantined) {
            pr_err!(
                "{}: the range {:#x}+{:#x} {} ({:#x}): quarantined\n",
                self.carveout.heap().name(),
                self.range.start,
                self.range.size,
                why,
                code
            );
        }
        self.standing = Standing::Quarantined;
        self.show(RangeState::Quarantined);
    }
}
