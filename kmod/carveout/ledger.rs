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
    registry::Heap,
    tee::Failure, //
};

use crate::{
    application::Application,
    carveout::Reservation,
    command::{
        result,
        RangeRecord,
        NO_HANDLE, //
    },
    ranges::RangeState,
    secure_world::Refusal,
    STATE, //
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

    fn set(&self, handle: u64) {
        self.0.store(handle, Relaxed);
    }
}

/// What Linux wants of a range.
enum Standing {
    /// That it stays fenced: a buffer lives.
    Live(Arc<HandleCell>),
    /// That it is opened, as soon as that is possible.
    Waiting,
    /// That it is opened, but the trusted application refused.
    Quarantined,
}

struct Entry {
    /// Keeps the range from being allocated; gone with the entry.
    reservation: Reservation,
    handle: u64,
    standing: Standing,
    /// How often it was busy.
    attempts: usize,
    /// Whether the latest list had it.
    listed: bool,
}

impl Entry {
    fn kept_back(reservation: Reservation, handle: u64) -> Self {
        reservation.set_state(RangeState::Waiting);
        Self {
            reservation,
            handle,
            standing: Standing::Waiting,
            attempts: 0,
            listed: false,
        }
    }

    fn wait(&mut self) {
        self.standing = Standing::Waiting;
        self.reservation.set_state(RangeState::Waiting);
    }

    /// Sees to it that the range is tried again, or gives up hope.
    fn retry_later(&mut self) {
        match DELAYS.get(self.attempts) {
            Some(&delay) => {
                self.attempts += 1;
                Heap::retry_after(self.reservation.carveout().heap(), delay);
            }
            None => self.quarantine("is busy for too long", result::BUSY),
        }
    }

    fn quarantine(&mut self, why: &str, code: u32) {
        if !matches!(self.standing, Standing::Quarantined) {
            let range = self.reservation.range();
            pr_err!(
                "{}: the range {:#x}+{:#x} {} ({:#x}): quarantined\n",
                self.reservation.carveout().heap().name(),
                range.start,
                range.size,
                why,
                code
            );
        }
        self.standing = Standing::Quarantined;
        self.reservation.set_state(RangeState::Quarantined);
    }
}

/// The ledger, and the session by which it is kept true.
pub(crate) struct Ledger {
    /// Whether the trusted application is on the bus.
    present: bool,
    /// Open as long as all goes well; opened anew by the next command otherwise.
    application: Option<Application>,
    /// By physical address.
    entries: RBTree<u64, Entry>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            present: false,
            application: None,
            entries: RBTree::new(),
        }
    }

    pub(crate) fn granule(&mut self) -> Result<u64> {
        self.connect().map(Application::granule)
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
                reservation.set_state(RangeState::Protected);
                let entry = Entry {
                    reservation,
                    handle,
                    standing: Standing::Live(cell),
                    attempts: 0,
                    listed: true,
                };
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
    fn connect(&mut self) -> Result<&Application> {
        if self.application.is_none() {
            self.refresh(false)?;
        }
        self.application.as_ref().ok_or(ENODEV)
    }

    /// Finds out how things stand after `failure`.
    fn recover(&mut self, failure: Failure) -> Result {
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
        for record in &records {
            match self.entries.get_mut(&record.start) {
                Some(entry) if entry.reservation.range().size == record.size => {
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
        Ok(())
    }

    /// Settles what the list says about an entry of the ledger.
    fn reconcile(&mut self, start: u64, all: bool) -> Result<(), Failure> {
        let Some(entry) = self.entries.get_mut(&start) else {
            return Ok(());
        };
        match (&entry.standing, entry.listed) {
            (Standing::Live(cell), true) => {
                cell.set(entry.handle);
                entry.reservation.set_state(RangeState::Protected);
            }
            (Standing::Live(cell), false) => {
                if cell.get().is_some() {
                    pr_err!(
                        "{}: the secure world has lost the live buffer at {:#x}\n",
                        entry.reservation.carveout().heap().name(),
                        start
                    );
                }
                cell.set(NO_HANDLE);
                entry.reservation.set_state(RangeState::Lost);
            }
            // It was opened, and zeroed before that.
            (_, false) => drop(self.entries.remove(&start)),
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
            Ok(()) => drop(self.entries.remove(&start)),
            Err(Failure::Answer(result::BUSY)) => entry.retry_later(),
            Err(failure) if !is_plain_refusal(failure) => return Err(failure),
            Err(failure) => entry.quarantine("could not be opened", code(failure)),
        }
        Ok(())
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
            Err(failure @ Failure::Answer(result::BUSY)) => failure,
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
            Failure::Answer(result::BUSY) => entry.retry_later(),
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
fn is_restart(failure: Failure) -> bool {
    failure == Failure::Answer(result::TARGET_DEAD)
}

/// Whether the answer leaves no doubt: the command was not carried out, by an
/// application that lives and knows the range.
fn is_plain_refusal(failure: Failure) -> bool {
    !matches!(
        failure,
        Failure::Transport(_) | Failure::Answer(result::TARGET_DEAD | result::ITEM_NOT_FOUND)
    )
}

fn code(failure: Failure) -> u32 {
    match failure {
        Failure::Answer(code) => code,
        Failure::Transport(error) => error.to_errno().unsigned_abs(),
    }
}

/// What a caller of the heap is told.
fn errno(failure: Failure) -> Error {
    match failure {
        Failure::Answer(result::BUSY) => EBUSY,
        Failure::Answer(result::OUT_OF_MEMORY) => ENOMEM,
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
