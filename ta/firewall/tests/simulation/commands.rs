// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger's commands, each checked against what the pages and the records
//! alone say about the request.

use super::{covered, overlap, region_of, request, Machine, Snapshot, World};
use ringfence_firewall::ledger::MAX_WINDOW;
use ringfence_firewall::{Error, Ledger, Platform};
use ringfence_proto::command::{Protection, RangeKind, RangeState, UseCase};
use ringfence_proto::firewall::{LedgerRecord, MAX_RANGES};

/// Whether the record is protected, and all of the pages lie in it.
fn holds(record: &LedgerRecord, pages: &std::ops::Range<u64>) -> bool {
    let own = covered(record);
    record.state == RangeState::Protected.raw() && own.start <= pages.start && pages.end <= own.end
}

/// The use case of a stretch of a region that is fenced as a whole.
fn inside_region(before: &Snapshot, pages: &std::ops::Range<u64>) -> Result<UseCase, Error> {
    let region = region_of(pages).ok_or(Error::OutOfBounds)?;
    let fenced = before
        .of_kind(false)
        .any(|record| record.kind == RangeKind::Region.raw() && holds(record, pages));
    match (region.protection, fenced) {
        (Protection::Region, true) => Ok(region.use_case),
        _ => Err(Error::NotFound),
    }
}

fn is_named(before: &Snapshot, pages: &std::ops::Range<u64>) -> bool {
    before
        .of_kind(true)
        .any(|part| overlap(&covered(part), pages))
}

impl World {
    /// Runs a command between two looks at the machine, and tells whether a step of it was
    /// made to fail.
    fn observe<T>(
        &mut self,
        command: impl FnOnce(&mut Ledger<Machine>) -> T,
    ) -> (Snapshot, T, bool, Snapshot) {
        let before = self.snapshot();
        self.faulted();
        let result = command(&mut self.ledger);
        let faulted = self.faulted();
        let after = self.snapshot();
        self.check(&after);
        (before, result, faulted, after)
    }

    /// PROTECT.
    pub fn protect(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let (before, result, faulted, after) = self.observe(|ledger| ledger.protect(start, size));

        let judge = || {
            let range = request(start, size).ok_or(Error::Malformed)?;
            let region = region_of(&range).ok_or(Error::OutOfBounds)?;
            if region.protection == Protection::Region && range.end - range.start != region.pages {
                return Err(Error::Malformed);
            }
            if Self::pages(&before, &range).iter().any(|page| page.fenced) {
                return Err(Error::Overlap);
            }
            if before.records.len() == MAX_RANGES {
                return Err(Error::Full);
            }
            if before.stretches(None, Some((start, size))) > self.windows() {
                return Err(Error::NoWindow);
            }
            match faulted {
                true => Err(Error::Platform),
                false => Ok(region.use_case),
            }
        };
        assert_eq!(result, judge());
        match result {
            Ok(_) => {
                let range = request(start, size).expect("accepted");
                Self::check_undisturbed(&before, &after, &range);
                assert_eq!(after.records.len(), before.records.len() + 1);
                for page in Self::pages(&after, &range) {
                    assert_eq!((page.fenced, page.content), (true, 0));
                }
            }
            Err(Error::Platform) => {
                let range = request(start, size).expect("got to the platform");
                Self::check_undisturbed(&before, &after, &range);
                let new = after.since(&before);
                assert!(new.len() <= 1);
                for record in new {
                    assert_eq!(record.state, RangeState::Quarantined.raw());
                }
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// UNPROTECT.
    pub fn unprotect(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let mapped =
            request(start, size).is_some_and(|range| self.ledger.platform().any_mapped(&range));
        let (before, result, faulted, after) = self.observe(|ledger| ledger.unprotect(start, size));
        let known = before
            .of_kind(false)
            .any(|record| (record.start, record.size) == (start, size));

        let expected = match request(start, size) {
            None => Err(Error::Malformed),
            Some(_) if !known => Err(Error::NotFound),
            Some(range) if is_named(&before, &range) => Err(Error::Named),
            Some(_) if mapped => Err(Error::Mapped),
            Some(_) if before.stretches(Some((start, size)), None) > self.windows() => {
                Err(Error::NoWindow)
            }
            Some(_) if faulted => Err(Error::Platform),
            Some(_) => Ok(()),
        };
        assert_eq!(result, expected);
        match result {
            Ok(()) => {
                let range = request(start, size).expect("accepted");
                Self::check_undisturbed(&before, &after, &range);
                assert_eq!(after.records.len() + 1, before.records.len());
                for page in Self::pages(&after, &range) {
                    assert_eq!((page.fenced, page.content), (false, 0));
                }
            }
            Err(Error::Platform) => {
                let range = request(start, size).expect("got to the platform");
                Self::check_undisturbed(&before, &after, &range);
                // What is left is quarantined and ends where the range ended.
                let left: Vec<_> = after
                    .records
                    .iter()
                    .filter(|record| overlap(&covered(record), &range))
                    .collect();
                let [left] = left[..] else {
                    panic!("{left:x?}: one range is left");
                };
                assert_eq!(left.state, RangeState::Quarantined.raw());
                assert_eq!(left.start + left.size, start + size);
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// NAME, which changes no page.
    pub fn name(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let (before, result, _, after) = self.observe(|ledger| ledger.name(start, size));

        let judge = || {
            let range = request(start, size).ok_or(Error::Malformed)?;
            let use_case = inside_region(&before, &range)?;
            if is_named(&before, &range) {
                return Err(Error::Overlap);
            }
            match before.records.len() {
                MAX_RANGES => Err(Error::Full),
                _ => Ok(use_case),
            }
        };
        assert_eq!(result, judge());
        assert_eq!(before.pages, after.pages);
        match result {
            Ok(_) => {
                let [part] = after.since(&before)[..] else {
                    panic!("{after:x?}: one part is new");
                };
                assert_eq!((part.start, part.size), (start, size));
                assert_eq!(part.state, RangeState::Protected.raw());
                let parts = |snapshot: &Snapshot| snapshot.of_kind(true).count();
                assert_eq!(parts(&after), parts(&before) + 1);
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// FORGET, which opens nothing.
    pub fn forget(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let mapped =
            request(start, size).is_some_and(|range| self.ledger.platform().any_mapped(&range));
        let (before, result, faulted, after) = self.observe(|ledger| ledger.forget(start, size));
        let known = before
            .of_kind(true)
            .any(|part| (part.start, part.size) == (start, size));

        let expected = match request(start, size) {
            None => Err(Error::Malformed),
            Some(_) if !known => Err(Error::NotFound),
            Some(_) if mapped => Err(Error::Mapped),
            Some(_) if faulted => Err(Error::Platform),
            Some(_) => Ok(()),
        };
        assert_eq!(result, expected);
        match result {
            Ok(()) => {
                let range = request(start, size).expect("accepted");
                Self::check_undisturbed(&before, &after, &range);
                assert_eq!(after.records.len() + 1, before.records.len());
                for page in Self::pages(&after, &range) {
                    assert_eq!((page.fenced, page.content), (true, 0));
                }
            }
            Err(Error::Platform) => {
                let range = request(start, size).expect("got to the platform");
                Self::check_undisturbed(&before, &after, &range);
                let left = after
                    .of_kind(true)
                    .find(|part| (part.start, part.size) == (start, size));
                let left = left.expect("still named");
                assert_eq!(left.state, RangeState::Quarantined.raw());
                assert!(Self::pages(&after, &range).iter().all(|page| page.fenced));
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// SCRUB, which changes no record.
    pub fn scrub(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let (before, result, faulted, after) = self.observe(|ledger| ledger.scrub(start, size));

        let judge = || {
            let range = request(start, size).ok_or(Error::Malformed)?;
            inside_region(&before, &range)?;
            if is_named(&before, &range) {
                return Err(Error::Overlap);
            }
            match faulted {
                true => Err(Error::Platform),
                false => Ok(()),
            }
        };
        assert_eq!(result, judge());
        assert_eq!(before.records, after.records);
        match result {
            Ok(()) | Err(Error::Platform) => {
                let range = request(start, size).expect("got to the platform");
                Self::check_undisturbed(&before, &after, &range);
                let zero = |page: &super::Page| page.content == 0;
                assert!(result.is_err() || Self::pages(&after, &range).iter().all(zero));
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// Whatever ends a record of LIST.
    pub fn release(&mut self, record: &LedgerRecord) -> Result<(), Error> {
        match RangeKind::from_raw(record.kind) {
            Some(RangeKind::Part) => self.forget(record.start, record.size),
            _ => self.unprotect(record.start, record.size),
        }
    }

    /// MAP, which changes neither pages nor ledger.
    pub fn map(&mut self, start: u64, size: u64) -> Result<u64, Error> {
        let before = self.snapshot();
        let record = before.records.iter().find(|record| {
            record.kind != RangeKind::Region.raw()
                && request(start, size).is_some_and(|range| holds(record, &range))
        });
        let use_case = record.and_then(|record| UseCase::from_raw(record.use_case));
        let busy = record.is_some_and(|record| {
            let platform = self.ledger.platform();
            platform.mapped_by_another(&covered(record))
        });
        let caller = self.caller();
        self.faulted();
        let result = self.ledger.map(caller, start, size);
        let expected = match request(start, size) {
            None => Err(Error::Malformed),
            Some(_) if size > MAX_WINDOW => Err(Error::Malformed),
            Some(_) if record.is_none() => Err(Error::NotFound),
            Some(_) if self.current != 0 && use_case != Some(UseCase::SecureVideo) => {
                Err(Error::Denied)
            }
            Some(_) if busy => Err(Error::Mapped),
            Some(_) if self.faulted() => Err(Error::Platform),
            Some(_) => Ok(()),
        };
        assert_eq!(result.map(|_| ()), expected);
        if let Ok(va) = result {
            let seen = self.ledger.platform_mut().physical(va, size);
            assert_eq!(seen, Some(start), "the window shows what was asked for");
        }
        assert_eq!(before, self.snapshot());
        result
    }

    /// UNMAP, which changes neither pages nor ledger.
    pub fn unmap(&mut self, va: u64, size: u64) -> Result<(), Error> {
        let before = self.snapshot();
        let mapped = self.ledger.platform().is_window(va, size);
        self.faulted();
        let result = self.ledger.unmap(self.caller(), va, size);
        let expected = match request(va, size) {
            None => Err(Error::Malformed),
            Some(_) if !mapped => Err(Error::NotFound),
            Some(_) if self.faulted() => Err(Error::Platform),
            Some(_) => Ok(()),
        };
        assert_eq!(result, expected);
        assert_eq!(before, self.snapshot());
        result
    }
}
