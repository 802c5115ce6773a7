// SPDX-License-Identifier: MIT OR Apache-2.0

//! The names of protected ranges, and of parts of protected regions.
//!
//! A handle is a random 64-bit number. Whoever knows it may use the content
//! commands on the range, so that the kernel gives it to holders of the buffer
//! only, and no other way to it but guessing exists.
//!
//! The firewall's ledger says which ranges there are; [`HandleTable::reconcile`]
//! makes the table follow it.

use core::num::NonZeroU64;

use heapless::index_map::FnvIndexMap;
use ringfence_proto::command::{RangeKind, RangeRecord, RangeState, UseCase};
use ringfence_proto::firewall::LedgerRecord;

use crate::refusal::Refusal;
use crate::windows::Range;

/// Draws after which a random number generator that only repeats itself is
/// given up; already the second draw is as good as never needed.
const MAX_DRAWS: usize = 4;

/// Names one protected range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(NonZeroU64);

impl Handle {
    /// The handle with this number on the wire.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`] for zero, which never names a range.
    pub const fn from_raw(raw: u64) -> Result<Self, Refusal> {
        match NonZeroU64::new(raw) {
            Some(raw) => Ok(Self(raw)),
            None => Err(Refusal::UnknownHandle),
        }
    }

    /// Its number on the wire.
    pub const fn raw(self) -> u64 {
        self.0.get()
    }
}

/// A protected range, as its handle names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub range: Range,
    /// Number of its use case, as the firewall says it.
    pub use_case: u32,
    /// How it stands in the ledger.
    pub state: RangeState,
    /// What it is to the firewall.
    pub kind: RangeKind,
    /// Whether its release has been asked for. Content commands refuse the
    /// handle from then on, even if the release fails.
    revoked: bool,
    /// Whether the ledger that is being read has it.
    listed: bool,
}

impl Entry {
    const fn new(range: Range, use_case: u32, state: RangeState, kind: RangeKind) -> Self {
        Self {
            range,
            use_case,
            state,
            kind,
            revoked: false,
            listed: true,
        }
    }

    /// What the range is for, if it is known.
    pub const fn use_case(&self) -> Option<UseCase> {
        UseCase::from_raw(self.use_case)
    }
}

/// Handles of at most `N` protected ranges; `N` is a power of two.
pub struct HandleTable<const N: usize> {
    entries: FnvIndexMap<u64, Entry, N>,
}

impl<const N: usize> HandleTable<N> {
    /// A table without handles.
    #[expect(
        clippy::new_without_default,
        reason = "large: made in place by a constant, never on the stack"
    )]
    pub const fn new() -> Self {
        Self {
            entries: FnvIndexMap::new(),
        }
    }

    /// Names a range that has just been protected, or made known.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] or [`Refusal::Entropy`].
    pub fn insert(
        &mut self,
        range: Range,
        use_case: u32,
        kind: RangeKind,
        random: &mut impl FnMut() -> u64,
    ) -> Result<Handle, Refusal> {
        let entry = Entry::new(range, use_case, RangeState::Protected, kind);
        self.name(entry, random)
    }

    fn name(&mut self, entry: Entry, random: &mut impl FnMut() -> u64) -> Result<Handle, Refusal> {
        if self.is_full() {
            return Err(Refusal::Full);
        }
        let handle = (0..MAX_DRAWS)
            .filter_map(|_| Handle::from_raw(random()).ok())
            .find(|handle| !self.entries.contains_key(&handle.raw()))
            .ok_or(Refusal::Entropy)?;
        self.entries
            .insert(handle.raw(), entry)
            .map_err(|_| Refusal::Full)?;
        Ok(handle)
    }

    /// The range that the handle names, in whatever state.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`].
    pub fn get(&self, handle: Handle) -> Result<&Entry, Refusal> {
        self.entries
            .get(&handle.raw())
            .ok_or(Refusal::UnknownHandle)
    }

    /// The range that the handle names, if its content may be used.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`], also for a handle that is revoked, for a
    /// range in quarantine, and for a region, whose content is that of its parts.
    pub fn usable(&self, handle: Handle) -> Result<&Entry, Refusal> {
        match self.get(handle)? {
            Entry {
                revoked: false,
                state: RangeState::Protected,
                kind: RangeKind::Range | RangeKind::Part,
                ..
            } => self.get(handle),
            _ => Err(Refusal::UnknownHandle),
        }
    }

    /// Closes the handle to content commands, for good, and tells what it names.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`].
    pub fn revoke(&mut self, handle: Handle) -> Result<(Range, RangeKind), Refusal> {
        let entry = self
            .entries
            .get_mut(&handle.raw())
            .ok_or(Refusal::UnknownHandle)?;
        entry.revoked = true;
        Ok((entry.range, entry.kind))
    }

    /// Forgets the handle of a range that has been released.
    pub fn remove(&mut self, handle: Handle) {
        self.entries.swap_remove(&handle.raw());
    }

    /// Makes the table follow the ledger, whose records `list` hands to the
    /// function that it is given: ranges that are in both keep their handles,
    /// new ones get one, and those that are gone are forgotten.
    ///
    /// # Errors
    ///
    /// What `list` says, and then no range is forgotten. [`Refusal::Firewall`]
    /// for a record that cannot be, [`Refusal::Full`] or [`Refusal::Entropy`];
    /// all other records have been taken over then.
    pub fn reconcile(
        &mut self,
        list: impl FnOnce(&mut dyn FnMut(LedgerRecord)) -> Result<(), Refusal>,
        random: &mut impl FnMut() -> u64,
    ) -> Result<(), Refusal> {
        for entry in self.entries.values_mut() {
            entry.listed = false;
        }
        let mut outcome = Ok(());
        list(&mut |record| {
            if let Err(refusal) = self.take_over(&record, random) {
                outcome = Err(refusal);
            }
        })?;
        self.entries.retain(|_, entry| entry.listed);
        outcome
    }

    fn take_over(
        &mut self,
        record: &LedgerRecord,
        random: &mut impl FnMut() -> u64,
    ) -> Result<(), Refusal> {
        let range = Range::new(record.start, record.size).ok_or(Refusal::Firewall)?;
        let state = RangeState::from_raw(record.state).ok_or(Refusal::Firewall)?;
        let kind = RangeKind::from_raw(record.kind).ok_or(Refusal::Firewall)?;
        let known = self
            .entries
            .values_mut()
            .find(|entry| (entry.range, entry.kind) == (range, kind));
        match known {
            Some(entry) => {
                entry.use_case = record.use_case;
                entry.state = state;
                entry.listed = true;
                Ok(())
            }
            None => self
                .name(Entry::new(range, record.use_case, state, kind), random)
                .map(|_| ()),
        }
    }

    /// All ranges, as the kernel's LIST reports them.
    pub fn records(&self) -> impl Iterator<Item = RangeRecord> + '_ {
        self.entries.iter().map(|(handle, entry)| RangeRecord {
            start: entry.range.start(),
            size: entry.range.size(),
            handle: *handle,
            use_case: entry.use_case,
            state: entry.state.raw(),
            kind: entry.kind.raw(),
        })
    }

    /// Ranges in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether no further range can be named.
    pub fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    /// Ranges in quarantine.
    pub fn quarantined(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.state == RangeState::Quarantined)
            .count()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    type Table = HandleTable<8>;

    fn range(page: u64) -> Range {
        Range::new(page * 4096, 4096).expect("a range")
    }

    /// Numbers in this order, then the last one for ever.
    fn scripted(numbers: &[u64]) -> impl FnMut() -> u64 + '_ {
        let mut numbers = numbers.iter();
        let mut last = 0;
        move || {
            last = numbers.next().copied().unwrap_or(last);
            last
        }
    }

    /// 1, 2, 3, …
    fn counting() -> impl FnMut() -> u64 {
        let mut last = 0;
        move || {
            last += 1;
            last
        }
    }

    fn record(page: u64, use_case: UseCase, state: RangeState) -> LedgerRecord {
        LedgerRecord {
            start: page * 4096,
            size: 4096,
            use_case: use_case.raw(),
            state: state.raw(),
            kind: RangeKind::Range.raw(),
        }
    }

    fn handle(raw: u64) -> Handle {
        Handle::from_raw(raw).expect("not zero")
    }

    /// A ledger that can be read.
    fn ledger<'l>(
        records: &'l [LedgerRecord],
    ) -> impl FnOnce(&mut dyn FnMut(LedgerRecord)) -> Result<(), Refusal> + 'l {
        move |each| {
            records.iter().for_each(|record| each(*record));
            Ok(())
        }
    }

    #[test]
    fn zero_and_numbers_in_use_are_not_handed_out() {
        let mut table = Table::new();
        let mut random = scripted(&[0, 7, 7, 0, 9]);
        assert_eq!(
            table.insert(range(1), 1, RangeKind::Range, &mut random),
            Ok(handle(7))
        );
        assert_eq!(
            table.insert(range(2), 1, RangeKind::Range, &mut random),
            Ok(handle(9))
        );
    }

    #[test]
    fn a_generator_that_repeats_itself_is_given_up() {
        let mut table = Table::new();
        assert_eq!(
            table.insert(range(1), 1, RangeKind::Range, &mut || 0),
            Err(Refusal::Entropy)
        );
        assert_eq!(
            table.insert(range(1), 1, RangeKind::Range, &mut || 5),
            Ok(handle(5))
        );
        assert_eq!(
            table.insert(range(2), 1, RangeKind::Range, &mut || 5),
            Err(Refusal::Entropy)
        );
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_is_full() {
        let mut table = Table::new();
        let mut random = counting();
        for page in 0..8 {
            assert!(!table.is_full());
            assert!(table
                .insert(range(page), 1, RangeKind::Range, &mut random)
                .is_ok());
        }
        assert!(table.is_full());
        assert_eq!(
            table.insert(range(8), 1, RangeKind::Range, &mut random),
            Err(Refusal::Full)
        );
        table.remove(handle(3));
        assert_eq!(
            table.insert(range(8), 1, RangeKind::Range, &mut random),
            Ok(handle(9))
        );
    }

    #[test]
    fn unknown_handles_are_refused() {
        let mut table = Table::new();
        assert_eq!(Handle::from_raw(0), Err(Refusal::UnknownHandle));
        assert_eq!(table.get(handle(1)), Err(Refusal::UnknownHandle));
        assert_eq!(table.usable(handle(1)), Err(Refusal::UnknownHandle));
        assert_eq!(table.revoke(handle(1)), Err(Refusal::UnknownHandle));
    }

    #[test]
    fn a_revoked_handle_is_the_kernels_only_and_stays_so() {
        let mut table = Table::new();
        let named = table
            .insert(range(1), 1, RangeKind::Range, &mut counting())
            .expect("room");
        assert!(table.usable(named).is_ok());
        assert_eq!(table.revoke(named), Ok((range(1), RangeKind::Range)));
        assert_eq!(table.usable(named), Err(Refusal::UnknownHandle));
        assert!(table.get(named).is_ok());
        let records = [record(1, UseCase::SecureVideo, RangeState::Protected)];
        assert_eq!(table.reconcile(ledger(&records), &mut counting()), Ok(()));
        assert_eq!(table.usable(named), Err(Refusal::UnknownHandle));
        assert_eq!(table.revoke(named), Ok((range(1), RangeKind::Range)));
    }

    #[test]
    fn the_table_follows_the_ledger() {
        let mut table = Table::new();
        let mut random = counting();
        let kept = table
            .insert(range(1), 1, RangeKind::Range, &mut random)
            .expect("room");
        let gone = table
            .insert(range(2), 1, RangeKind::Range, &mut random)
            .expect("room");
        let records = [
            record(3, UseCase::TrustedUi, RangeState::Quarantined),
            record(1, UseCase::TrustedUi, RangeState::Protected),
        ];
        assert_eq!(table.reconcile(ledger(&records), &mut random), Ok(()));
        assert_eq!(table.get(gone), Err(Refusal::UnknownHandle));
        assert_eq!(
            table.get(kept).map(|entry| entry.use_case()),
            Ok(Some(UseCase::TrustedUi))
        );
        assert_eq!(
            table.get(handle(3)).map(|entry| entry.state),
            Ok(RangeState::Quarantined)
        );
        assert_eq!(table.usable(handle(3)), Err(Refusal::UnknownHandle));
        assert_eq!((table.len(), table.quarantined()), (2, 1));
    }

    #[test]
    fn a_ledger_that_cannot_be_read_changes_nothing() {
        let mut table = Table::new();
        let named = table
            .insert(range(1), 1, RangeKind::Range, &mut counting())
            .expect("room");
        let outcome = table.reconcile(|_| Err(Refusal::Tee(1)), &mut counting());
        assert_eq!(outcome, Err(Refusal::Tee(1)));
        assert!(table.usable(named).is_ok());
    }

    #[test]
    fn a_record_that_cannot_be_does_not_hide_the_others() {
        let good = record(1, UseCase::SecureVideo, RangeState::Protected);
        let bad = [
            LedgerRecord { size: 0, ..good },
            LedgerRecord { start: 1, ..good },
            LedgerRecord { state: 0, ..good },
            LedgerRecord { state: 3, ..good },
        ];
        for bad in bad {
            let mut table = Table::new();
            assert_eq!(
                table.reconcile(ledger(&[bad, good]), &mut counting()),
                Err(Refusal::Firewall)
            );
            assert_eq!(table.len(), 1);
        }
    }

    proptest! {
        /// Handles survive any series of ledgers exactly as long as their
        /// ranges are listed.
        #[test]
        fn handles_live_as_long_as_their_ranges(
            ledgers in prop::collection::vec(prop::collection::btree_set(0..16u64, 0..9), 1..20),
        ) {
            let mut table = Table::new();
            let mut random = counting();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            for pages in ledgers {
                let gone = |page: &u64| !pages.contains(page);
                let before = model.keys().filter(|page| !gone(page)).count();
                let records: Vec<_> = pages
                    .iter()
                    .map(|page| record(*page, UseCase::SecureVideo, RangeState::Protected))
                    .collect();
                // Ranges that are gone give up their room at the end only.
                let fits = model.len() + pages.len() - before <= 8;
                let outcome = table.reconcile(ledger(&records), &mut random);
                prop_assert_eq!(outcome.is_ok(), fits);
                let now: BTreeMap<u64, u64> = table
                    .records()
                    .map(|record| (record.start / 4096, record.handle))
                    .collect();
                prop_assert!(now.keys().all(|page| pages.contains(page)));
                prop_assert!(!fits || now.len() == pages.len());
                for (page, handle) in &model {
                    prop_assert_eq!(now.get(page), (!gone(page)).then_some(handle));
                }
                let handles: Vec<u64> = now.values().copied().collect();
                prop_assert!(handles.iter().all(|raw| *raw != 0));
                model = now;
            }
        }
    }
}
