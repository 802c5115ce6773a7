// SPDX-License-Identifier: GPL-2.0

//! Linux's ledger of the ranges that are, or may be, fenced off.
//!
//! The truth is in the secure world; the ledger says what Linux wants of each
//! range. Whenever the two may have drifted apart, Linux asks for the list
//! ([`Ledger::resync`]) and settles every difference:
//!
//! | in the list | wanted by a buffer | a buffer no more | not in the ledger |
//! |---|---|---|---|
//! | yes | takes the handle from the list | is unprotected | is unprotected |
//! | no | is lost, loudly | is free | - |
//!
//! A buffer in a [region that is fenced as a whole](crate::region) comes into the
//! ledger when somebody asks for its handle, as a named part of the region.
//!
//! A range that may be fenced is never free for Linux. When it can't be opened,
//! it is kept back: it *waits* while there is hope without anybody's help (the
//! application is away, or has the range mapped: it is asked again a few times),
//! and is *quarantined* when the application refused. Quarantined ranges are
//! tried again on request (the heap's `retry` file in debugfs) and when the
//! application arrives anew.

use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::Arc, //
};
use ringfence_core::{
    attachment::PhysRange,
    registry::Heap,
    tee::Failure, //
};

use crate::{
    application::{
        Abilities,
        Application, //
    },
    command::{
        result,
        RangeKind,
        RangeRecord,
        NO_HANDLE, //
    },
    ranges::RangeState,
    reservation::Reservation,
    secure_world::Refusal,
    STATE, //
};

mod entry;

pub(crate) use entry::HandleCell;
use entry::{
    Entry,
    Standing, //
};

/// The ledger, and the session by which it is kept true.
pub(crate) struct Ledger {
    /// Whether the trusted application is on the bus.
    present: bool,
    /// Open as long as all goes well; opened anew by the next command otherwise.
    application: Option<Application>,
    /// By physical address.
    entries: RBTree<u64, Entry>,
    /// Whether a range waits because the firewall has no window to part two others
    /// with.
    starved: bool,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            present: false,
            application: None,
            entries: RBTree::new(),
            starved: false,
        }
    }

    pub(crate) fn abilities(&mut self) -> Result<Abilities> {
        self.connect().map(Application::abilities)
    }

    /// The trusted application has appeared on the bus.
    pub(crate) fn arrive(&mut self) -> Result {
        self.present = true;
        self.refresh(true).inspect_err(|_| self.leave())
    }

    /// The trusted application goes: its session must be closed.
    pub(crate) fn leave(&mut self) {
        self.present = false;
        self.application = None;
    }

    /// Fences off the range of `reservation` for a buffer.
    ///
    /// After a failure the ledger owns the reservation until the range is known
    /// to be open.
    pub(crate) fn protect(
        &mut self,
        reservation: Reservation,
        cell: Arc<HandleCell>,
    ) -> Result<(), Refusal> {
        // Memory first: nothing may fail between the command and its record.
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let range = reservation.range();
        match self.connect()?.protect(range) {
            Ok(handle) => {
                cell.set(handle);
                let entry = Entry::new(reservation, handle, Standing::Live(cell));
                entry.show(RangeState::Protected);
                self.entries.insert(node.into_node(range.start, entry));
                Ok(())
            }
            Err(failure) => {
                let entry = Entry::kept_back(reservation, NO_HANDLE);
                self.entries.insert(node.into_node(range.start, entry));
                let recovered = self.recover(failure).is_ok();
                let settled = self.entries.get(&range.start).is_none();
                if recovered && settled && is_restart(failure) {
                    return Err(Refusal::Restarted);
                }
                Err(Refusal::Failed(errno(failure)))
            }
        }
    }

    /// Has the part of a fenced region that a buffer has made known to the trusted
    /// application.
    ///
    /// # Errors
    ///
    /// `EIO` when it is refused; the buffer has no handle then.
    pub(crate) fn name(&mut self, reservation: &Reservation, cell: &Arc<HandleCell>) -> Result {
        // The record first: if the answer gets lost, the list tells the handle.
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let range = reservation.range();
        let entry = Entry {
            carveout: reservation.carveout().clone(),
            range,
            reservation: None,
            handle: NO_HANDLE,
            standing: Standing::Live(cell.clone()),
            attempts: 0,
            listed: false,
        };
        self.entries.insert(node.into_node(range.start, entry));
        let outcome = self.try_name(range, cell);
        if outcome.is_err() {
            if let Some(entry) = self.entries.remove(&range.start) {
                entry.show(RangeState::Protected);
            }
        }
        outcome
    }

    fn try_name(&mut self, part: PhysRange, cell: &HandleCell) -> Result {
        let mut restarted = false;
        loop {
            let failure = match self.connect()?.name(part) {
                Ok(handle) => {
                    if let Some(entry) = self.entries.get_mut(&part.start) {
                        entry.handle = handle;
                    }
                    cell.set(handle);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            self.recover(failure)?;
            if cell.get().is_some() {
                return Ok(());
            }
            if restarted || !is_restart(failure) {
                return Err(errno(failure));
            }
            restarted = true;
        }
    }

    /// Has a named part zeroed and forgotten, now or as soon as possible, and takes
    /// its reservation over until then.
    pub(crate) fn release_part(&mut self, reservation: Reservation) {
        let start = reservation.range().start;
        if let Some(entry) = self.entries.get_mut(&start) {
            entry.reservation = Some(reservation);
            self.release(start);
        }
    }

    /// Has a stretch of a fenced region zeroed in which no part is known.
    ///
    /// # Errors
    ///
    /// `ENODEV` without the trusted application, `EIO` when it refuses.
    pub(crate) fn scrub(&mut self, stretch: PhysRange) -> Result {
        let failure = match self.connect()?.scrub(stretch) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        self.recover(failure)?;
        if !is_restart(failure) {
            return Err(errno(failure));
        }
        self.connect()?.scrub(stretch).map_err(errno)
    }

    /// Whether a range waits to be opened.
    pub(crate) fn has_waiting(&self) -> bool {
        self.entries
            .values()
            .any(|entry| matches!(entry.standing, Standing::Waiting))
    }

    /// Has a buffer's range opened, now or as soon as possible.
    pub(crate) fn release(&mut self, start: u64) {
        let Some(entry) = self.entries.get_mut(&start) else {
            return;
        };
        entry.wait();
        // Opening a new session settles the range as well.
        let fresh = self.application.is_none();
        if self.connect().is_err() {
            self.retry_later(start);
            return;
        }
        if fresh {
            return;
        }
        if let Err(failure) = self.settle(start) {
            if self.recover(failure).is_err() {
                self.retry_later(start);
            }
        }
    }

    /// Compares with the secure world's list, and settles the differences; with
    /// `all`, quarantined ranges are tried again too.
    pub(crate) fn refresh(&mut self, all: bool) -> Result {
        let unproven = self.application.is_some();
        self.open()?;
        let mut outcome = self.resync(all);
        if unproven && matches!(outcome, Err(failure) if is_restart(failure)) {
            // The application had died since the last command: a new session tells more.
            self.application = None;
            self.open()?;
            outcome = self.resync(all);
        }
        outcome.map_err(|failure| {
            self.application = None;
            errno(failure)
        })
    }

    /// Makes sure that the handles are those which the trusted application knows
    /// now: it may have died since the last command, and forgets them then.
    pub(crate) fn confirm(&mut self) -> Result {
        match self.connect()?.greet() {
            Ok(_) => Ok(()),
            Err(failure) => self.recover(failure),
        }
    }

    /// The trusted application, if there is a session.
    pub(crate) fn application(&self) -> Option<&Application> {
        self.application.as_ref()
    }

    /// Makes sure that there is a session.
    fn open(&mut self) -> Result {
        if !self.present {
            return Err(ENODEV);
        }
        if self.application.is_none() {
            self.application = Some(Application::open().map_err(errno)?);
        }
        Ok(())
    }

    /// The session, and when it is a new one, with the ledger in step.
    pub(crate) fn connect(&mut self) -> Result<&Application> {
        if self.application.is_none() {
            self.refresh(false)?;
        }
        self.application.as_ref().ok_or(ENODEV)
    }

    /// Finds out how things stand after `failure`.
    pub(crate) fn recover(&mut self, failure: Failure) -> Result {
        if is_restart(failure) {
            pr_warn!("the trusted application has died: recovering from its list\n");
        }
        if !is_plain_refusal(failure) {
            self.application = None;
        }
        self.refresh(false)
    }

    /// Makes the secure world's list and the ledger agree.
    fn resync(&mut self, all: bool) -> Result<(), Failure> {
        let application = self.application.as_ref().ok_or(ENODEV)?;
        let records = application.list()?;

        for entry in self.entries.values_mut() {
            entry.listed = false;
        }
        let mut strangers = KVVec::new();
        let is_region = |record: &&RangeRecord| record.kind == RangeKind::Region.raw();
        for record in records.iter().filter(|record| !is_region(record)) {
            match self.entries.get_mut(&record.start) {
                Some(entry) if entry.range.size == record.size => {
                    entry.listed = true;
                    entry.handle = record.handle;
                }
                _ => strangers.push(*record, GFP_KERNEL).map_err(Error::from)?,
            }
        }

        let mut starts = KVVec::new();
        for &start in self.entries.keys() {
            starts.push(start, GFP_KERNEL).map_err(Error::from)?;
        }
        for &start in &starts {
            self.reconcile(start, all)?;
        }
        for stranger in &strangers {
            self.evict(stranger)?;
        }
        // Regions come last: they can't be opened before their parts are forgotten.
        self.resync_regions(&records, all)
    }

    /// Settles what the list says about an entry of the ledger.
    fn reconcile(&mut self, start: u64, all: bool) -> Result<(), Failure> {
        let Some(entry) = self.entries.get_mut(&start) else {
            return Ok(());
        };
        match (&entry.standing, entry.listed) {
            (Standing::Live(cell), true) => {
                cell.set(entry.handle);
                entry.show(RangeState::Protected);
            }
            (Standing::Live(cell), false) => {
                if cell.get().is_some() {
                    pr_err!(
                        "{}: the secure world has lost the live buffer at {:#x}\n",
                        entry.carveout.heap().name(),
                        start
                    );
                    entry.show(RangeState::Lost);
                }
                cell.set(NO_HANDLE);
            }
            // It was opened, or forgotten, and zeroed before that.
            (_, false) => self.remove_zeroed(start),
            (Standing::Waiting, true) => self.settle(start)?,
            (Standing::Quarantined, true) if all => {
                entry.attempts = 0;
                self.settle(start)?;
            }
            (Standing::Quarantined, true) => {}
        }
        Ok(())
    }

    /// Has the range of an entry opened, which no buffer wants any more.
    ///
    /// # Errors
    ///
    /// Only when it is not clear how the range stands now.
    fn settle(&mut self, start: u64) -> Result<(), Failure> {
        let (Some(application), Some(entry)) = (&self.application, self.entries.get_mut(&start))
        else {
            return Ok(());
        };
        match application.unprotect(entry.handle) {
            Ok(()) => {
                self.remove_zeroed(start);
                self.feed();
            }
            Err(Failure::Answer(result::BUSY)) => entry.retry_later(),
            Err(Failure::Answer(result::NO_WINDOW)) => {
                entry.retry_later();
                self.starved = true;
            }
            Err(failure) if !is_plain_refusal(failure) => return Err(failure),
            Err(failure) => entry.quarantine("could not be opened", code(failure)),
        }
        Ok(())
    }

    /// Forgets a range that the secure world has zeroed.
    fn remove_zeroed(&mut self, start: u64) {
        let entry = self.entries.remove(&start);
        if let Some(mut reservation) = entry.and_then(|entry| entry.reservation) {
            reservation.is_zeroed();
        }
    }

    /// A range was opened: those that wait for a window try again.
    fn feed(&mut self) {
        if !core::mem::take(&mut self.starved) {
            return;
        }
        for entry in self.entries.values() {
            if matches!(entry.standing, Standing::Waiting) {
                Heap::retry_after(entry.carveout.heap(), 0);
            }
        }
    }

    /// Has a range opened that the ledger does not know: it was left behind by an
    /// earlier instance of this module, or of the kernel.
    fn evict(&mut self, record: &RangeRecord) -> Result<(), Failure> {
        let application = self.application.as_ref().ok_or(ENODEV)?;
        let (start, size) = (record.start, record.size);
        // A heap that is not bound yet looks after its own ranges later.
        let Some(carveout) = STATE.get().and_then(|state| state.carveout_of(start, size)) else {
            return Ok(());
        };
        let failure = match application.unprotect(record.handle) {
            Ok(()) => {
                pr_info!(
                    "{}: released the range {:#x}+{:#x} of an earlier life\n",
                    carveout.heap().name(),
                    start,
                    size
                );
                return Ok(());
            }
            Err(failure @ Failure::Answer(result::BUSY | result::NO_WINDOW)) => failure,
            Err(failure) if !is_plain_refusal(failure) => return Err(failure),
            Err(failure) => failure,
        };
        let Ok(reservation) = Reservation::at(&carveout, start, size) else {
            // Whoever has it allocated now finds out when the secure world refuses it.
            pr_err!(
                "{}: the fenced range {:#x}+{:#x} is in the way\n",
                carveout.heap().name(),
                start,
                size
            );
            return Ok(());
        };
        let mut entry = Entry::kept_back(reservation, record.handle);
        match failure {
            Failure::Answer(result::BUSY | result::NO_WINDOW) => entry.retry_later(),
            _ => entry.quarantine("of an earlier life could not be opened", code(failure)),
        }
        self.entries
            .try_create_and_insert(start, entry, GFP_KERNEL)?;
        Ok(())
    }

    fn retry_later(&mut self, start: u64) {
        if !self.present {
            // Its return is the occasion.
            return;
        }
        if let Some(entry) = self.entries.get_mut(&start) {
            entry.retry_later();
        }
    }
}

/// Whether the trusted application died, so that a new instance is needed.
pub(crate) fn is_restart(failure: Failure) -> bool {
    failure == Failure::Answer(result::TARGET_DEAD)
}

/// Whether the answer leaves no doubt: the command was not carried out, by an
/// application that lives and knows the range.
pub(crate) fn is_plain_refusal(failure: Failure) -> bool {
    !matches!(
        failure,
        Failure::Transport(_) | Failure::Answer(result::TARGET_DEAD | result::ITEM_NOT_FOUND)
    )
}

pub(crate) fn code(failure: Failure) -> u32 {
    match failure {
        Failure::Answer(code) => code,
        Failure::Transport(error) => error.to_errno().unsigned_abs(),
    }
}

/// What a caller of the heap is told.
pub(crate) fn errno(failure: Failure) -> Error {
    match failure {
        Failure::Answer(result::BUSY) => EBUSY,
        Failure::Answer(result::OUT_OF_MEMORY) => ENOMEM,
        Failure::Answer(result::NO_WINDOW) => ENOSPC,
        Failure::Answer(_) => EIO,
        Failure::Transport(error) => error,
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_ledger)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_answer_is_a_failure() {
        assert_eq!(errno(Failure::Answer(0x1234_5678)), EIO);
        assert_eq!(errno(Failure::Answer(result::ACCESS_DENIED)), EIO);
        assert_eq!(errno(Failure::Answer(result::NO_WINDOW)), ENOSPC);
        assert!(is_plain_refusal(Failure::Answer(0x1234_5678)));
    }

    #[test]
    fn doubt_calls_for_a_new_session() {
        assert!(!is_plain_refusal(Failure::Transport(EIO)));
        assert!(!is_plain_refusal(Failure::Answer(result::TARGET_DEAD)));
        assert!(!is_plain_refusal(Failure::Answer(result::ITEM_NOT_FOUND)));
        assert!(is_plain_refusal(Failure::Answer(result::BUSY)));
    }

    #[test]
    fn a_cell_without_a_handle_says_so() {
        let cell = HandleCell::new();
        assert_eq!(cell.get(), None);
        cell.set(7);
        assert_eq!(cell.get(), Some(7));
        cell.set(NO_HANDLE);
        assert_eq!(cell.get(), None);
    }
}
