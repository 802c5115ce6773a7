// SPDX-License-Identifier: MIT OR Apache-2.0

//! A simulated machine under the ledger, and an interpreter of operations that
//! checks after each one that nothing was lost, exposed or disturbed.
//!
//! Shared by the tests and by the fuzz target, which include this file.

#![allow(dead_code, reason = "each of them uses another part")]

mod machine;
mod operation;

pub use machine::{Faults, Machine, Page};
pub use operation::Operation;

use ringfence_firewall::extent::GRANULE;
use ringfence_firewall::{Error, Ledger, Platform};
use ringfence_proto::command::{RangeState, UseCase};
use ringfence_proto::firewall::{LedgerRecord, MAX_RANGES};

/// Physical address of the first simulated page.
pub const BASE: u64 = 0x8000_0000;
/// Pages before the first region, and after the last.
pub const MARGIN: u64 = 16;
/// Pages of the first region: four blocks.
pub const VIDEO_PAGES: u64 = 2048;
/// Pages of the second one, which follows at once: a block and a half.
pub const UI_PAGES: u64 = 768;
/// All simulated pages.
pub const PAGES: u64 = MARGIN + VIDEO_PAGES + UI_PAGES + MARGIN;

/// Address of a page.
pub fn address(page: u64) -> u64 {
    BASE.wrapping_add(page.wrapping_mul(GRANULE))
}

/// The first page of the first region, and of the second.
pub const VIDEO: u64 = MARGIN;
pub const UI: u64 = MARGIN + VIDEO_PAGES;

/// The ledger on its simulated machine.
pub struct World {
    pub ledger: Ledger<Machine>,
}

/// All that can be seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Snapshot {
    pages: Vec<Page>,
    records: Vec<LedgerRecord>,
}

/// The pages that a request names, if it is well-formed.
fn request(start: u64, size: u64) -> Option<std::ops::Range<u64>> {
    let end = start.checked_add(size)?;
    (size != 0 && start.is_multiple_of(GRANULE) && size.is_multiple_of(GRANULE))
        .then_some(start / GRANULE..end / GRANULE)
}

fn covered(record: &LedgerRecord) -> std::ops::Range<u64> {
    record.start / GRANULE..(record.start + record.size) / GRANULE
}

impl Default for World {
    fn default() -> Self {
        let mut ledger = Ledger::new(Machine::new(BASE, PAGES));
        let declared = [
            (VIDEO, VIDEO_PAGES, UseCase::SecureVideo),
            (UI, UI_PAGES, UseCase::TrustedUi),
        ];
        for (first, pages, use_case) in declared {
            ledger
                .declare(address(first), pages * GRANULE, use_case)
                .expect("disjoint regions");
        }
        Self { ledger }
    }
}

impl World {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            pages: self.ledger.platform().pages().to_vec(),
            records: self.ledger.records().collect(),
        }
    }

    /// Whether any step since the last call was made to fail.
    fn faulted(&mut self) -> bool {
        self.ledger.platform_mut().take_faulted()
    }

    /// Makes steps fail from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.ledger.platform_mut().set_faults(faults);
    }

    /// Platform calls so far.
    pub fn calls(&self) -> u64 {
        self.ledger.platform().calls()
    }

    /// What has to hold between any two operations.
    fn check(&self, snapshot: &Snapshot) {
        let mut fenced = vec![false; PAGES as usize];
        let mut end = 0;
        for record in &snapshot.records {
            assert!(record.size > 0 && record.start >= end, "sorted, disjoint");
            end = record.start + record.size;
            let first = (record.start - BASE) / GRANULE;
            let last = (end - BASE) / GRANULE - 1;
            let use_case = match (first, last) {
                (VIDEO.., ..UI) => UseCase::SecureVideo,
                (UI.., last) if last < UI + UI_PAGES => UseCase::TrustedUi,
                _ => panic!("{record:x?} is not inside one region"),
            };
            assert_eq!(record.use_case, use_case.raw());
            assert!(RangeState::from_raw(record.state).is_some());
            fenced[first as usize..=last as usize].fill(true);
        }
        for (index, page) in snapshot.pages.iter().enumerate() {
            assert_eq!(
                page.fenced, fenced[index],
                "page {index}: fenced exactly when in the ledger"
            );
        }
        let quarantined = snapshot
            .records
            .iter()
            .filter(|record| record.state == RangeState::Quarantined.raw())
            .count();
        assert_eq!(self.ledger.quarantined(), quarantined);
    }

    /// That no page outside of `inside`, and no record but those that touch
    /// it, changed.
    fn check_undisturbed(before: &Snapshot, after: &Snapshot, inside: &std::ops::Range<u64>) {
        for (index, (old, new)) in before.pages.iter().zip(&after.pages).enumerate() {
            if !inside.contains(&(BASE / GRANULE + index as u64)) {
                assert_eq!(old, new, "page {index} is outside of the request");
            }
        }
        let others = |snapshot: &Snapshot| -> Vec<LedgerRecord> {
            snapshot
                .records
                .iter()
                .copied()
                .filter(|record| {
                    let pages = covered(record);
                    pages.start < inside.start || pages.end > inside.end
                })
                .collect()
        };
        assert_eq!(others(before), others(after));
    }

    fn pages<'a>(snapshot: &'a Snapshot, range: &std::ops::Range<u64>) -> &'a [Page] {
        let first = range.start - BASE / GRANULE;
        let last = range.end - BASE / GRANULE;
        &snapshot.pages[first as usize..last as usize]
    }

    /// PROTECT, checked against what the pages alone say about the request.
    pub fn protect(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let before = self.snapshot();
        self.faulted();
        let result = self.ledger.protect(start, size);
        let faulted = self.faulted();
        let after = self.snapshot();
        self.check(&after);

        let within = |first: u64, pages: u64, range: &std::ops::Range<u64>| {
            let first = address(first) / GRANULE;
            first <= range.start && range.end <= first + pages
        };
        let expected = match request(start, size) {
            None => Err(Error::Malformed),
            Some(range) => {
                let use_case = if within(VIDEO, VIDEO_PAGES, &range) {
                    Ok(UseCase::SecureVideo)
                } else if within(UI, UI_PAGES, &range) {
                    Ok(UseCase::TrustedUi)
                } else {
                    Err(Error::OutOfBounds)
                };
                match use_case {
                    Ok(_) if Self::pages(&before, &range).iter().any(|page| page.fenced) => {
                        Err(Error::Overlap)
                    }
                    Ok(_) if before.records.len() == MAX_RANGES => Err(Error::Full),
                    Ok(_) if faulted => Err(Error::Platform),
                    other => other,
                }
            }
        };
        assert_eq!(result, expected);
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
                let new: Vec<_> = after
                    .records
                    .iter()
                    .filter(|record| !before.records.contains(record))
                    .collect();
                assert!(new.len() <= 1);
                for record in new {
                    assert_eq!(record.state, RangeState::Quarantined.raw());
                }
            }
            Err(_) => assert_eq!(before, after),
        }
        result
    }

    /// UNPROTECT, checked the same way.
    pub fn unprotect(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let before = self.snapshot();
        let known = before
            .records
            .iter()
            .any(|record| (record.start, record.size) == (start, size));
        let mapped =
            request(start, size).is_some_and(|range| self.ledger.platform().any_mapped(&range));
        self.faulted();
        let result = self.ledger.unprotect(start, size);
        let faulted = self.faulted();
        let after = self.snapshot();
        self.check(&after);

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
                    .filter(|record| range.contains(&(record.start / GRANULE)))
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

    /// MAP, which changes neither pages nor ledger.
    pub fn map(&mut self, start: u64, size: u64) -> Result<u64, Error> {
        let before = self.snapshot();
        let inside = before.records.iter().any(|record| {
            record.state == RangeState::Protected.raw()
                && request(start, size).is_some_and(|range| {
                    let pages = covered(record);
                    pages.start <= range.start && range.end <= pages.end
                })
        });
        self.faulted();
        let result = self.ledger.map(start, size);
        let expected = match request(start, size) {
            None => Err(Error::Malformed),
            Some(_) if size > ringfence_firewall::ledger::MAX_WINDOW => Err(Error::Malformed),
            Some(_) if !inside => Err(Error::NotFound),
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
        let result = self.ledger.unmap(va, size);
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

    /// Runs one operation, checking everything that can be. Whether it
    /// succeeds is one of those things, and of no interest here.
    pub fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Protect { start, size } => {
                let _ = self.protect(start, size);
            }
            Operation::Unprotect { start, size } => {
                let _ = self.unprotect(start, size);
            }
            Operation::UnprotectListed { index } => {
                if let Some(record) = self.record(index) {
                    let _ = self.unprotect(record.start, record.size);
                }
            }
            Operation::Map { start, size } => {
                let _ = self.map(start, size);
            }
            Operation::MapListed {
                index,
                offset,
                size,
            } => {
                if let Some(record) = self.record(index) {
                    let _ = self.map(record.start + offset, size);
                }
            }
            Operation::Unmap { va, size } => {
                let _ = self.unmap(va, size);
            }
            Operation::UnmapWindow { index } => {
                if let Some((va, size)) = self.ledger.platform().window(index) {
                    let _ = self.unmap(va, size);
                }
            }
            Operation::NormalWorldWrites { page } => {
                self.ledger.platform_mut().normal_world_writes(page % PAGES);
            }
            Operation::TaWrites => self.ledger.platform_mut().ta_writes(),
            Operation::TaDies => self.ledger.platform_mut().ta_dies(),
            Operation::Fail { faults } => self.set_faults(faults),
        }
    }

    /// One of the ledger's ranges.
    fn record(&self, index: usize) -> Option<LedgerRecord> {
        let count = self.ledger.records().len();
        self.ledger.records().nth(index % count.max(1))
    }

    /// Ends as a system must be able to: nothing fails any more, the TA starts
    /// anew, and every range that LIST shows can be released.
    pub fn recover(&mut self) {
        self.set_faults(Faults::None);
        self.ledger.platform_mut().ta_dies();
        for record in self.ledger.records().collect::<Vec<_>>() {
            assert_eq!(self.unprotect(record.start, record.size), Ok(()));
        }
        assert_eq!(self.ledger.records().len(), 0);
    }
}
