// SPDX-License-Identifier: MIT OR Apache-2.0

//! A simulated machine under the ledger, and an interpreter of operations that
//! checks after each one that nothing was lost, exposed or disturbed.
//!
//! Shared by the tests and by the fuzz target, which include this file.

#![allow(dead_code, reason = "each of them uses another part")]

mod commands;
mod hardware;
mod machine;
mod operation;

pub use hardware::{Hardware, Simulated, Table};
pub use machine::{Faults, Machine, Page, APPLICATIONS};
pub use operation::Operation;

use ringfence_firewall::extent::GRANULE;
use ringfence_firewall::tzc::Controller;
use ringfence_firewall::{Caller, Callers, Ledger};
use ringfence_proto::command::{Protection, RangeKind, RangeState, UseCase, TA_UUID};
use ringfence_proto::decoder::DECODER_UUID;
use ringfence_proto::firewall::LedgerRecord;

/// Physical address of the first simulated page.
pub const BASE: u64 = 0x8000_0000;
/// Pages before the first region, and after the last.
pub const MARGIN: u64 = 16;
/// Pages of the first region: four blocks.
pub const VIDEO_PAGES: u64 = 2048;
/// Pages of the second one, which follows at once: a block and a half.
pub const UI_PAGES: u64 = 768;
/// Pages of the third one, which follows at once, and is fenced as a whole.
pub const RECORD_PAGES: u64 = 640;
/// All simulated pages.
pub const PAGES: u64 = MARGIN + VIDEO_PAGES + UI_PAGES + RECORD_PAGES + MARGIN;

/// Address of a page.
pub fn address(page: u64) -> u64 {
    BASE.wrapping_add(page.wrapping_mul(GRANULE))
}

/// The first page of each region.
pub const VIDEO: u64 = MARGIN;
pub const UI: u64 = MARGIN + VIDEO_PAGES;
pub const RECORD: u64 = UI + UI_PAGES;

/// A declared region.
pub struct Declared {
    pub first: u64,
    pub pages: u64,
    pub use_case: UseCase,
    pub protection: Protection,
}

/// All of them.
pub const DECLARED: [Declared; 3] = [
    Declared {
        first: VIDEO,
        pages: VIDEO_PAGES,
        use_case: UseCase::SecureVideo,
        protection: Protection::Buffer,
    },
    Declared {
        first: UI,
        pages: UI_PAGES,
        use_case: UseCase::TrustedUi,
        protection: Protection::Buffer,
    },
    Declared {
        first: RECORD,
        pages: RECORD_PAGES,
        use_case: UseCase::SecureVideoRecord,
        protection: Protection::Region,
    },
];

/// The region in which all of these pages lie, by absolute number.
fn region_of(pages: &std::ops::Range<u64>) -> Option<&'static Declared> {
    DECLARED.iter().find(|region| {
        let first = address(region.first) / GRANULE;
        first <= pages.start && pages.end <= first + region.pages
    })
}

/// The ledger on its simulated machine.
pub struct World {
    pub ledger: Ledger<Machine>,
    callers: Callers,
    /// The session of each application.
    sessions: [Caller; APPLICATIONS],
    /// Which of them calls.
    current: usize,
}

/// The UUID of each application.
const UUIDS: [[u8; 16]; APPLICATIONS] = [TA_UUID, DECODER_UUID, DECODER_UUID];

/// The two instances of the decoder.
pub const DECODER: usize = 1;
pub const OTHER_DECODER: usize = 2;

/// All that can be seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Snapshot {
    pages: Vec<Page>,
    records: Vec<LedgerRecord>,
}

impl Snapshot {
    /// Records that were not there before.
    fn since(&self, before: &Self) -> Vec<&LedgerRecord> {
        let is_new = |record: &&LedgerRecord| !before.records.contains(record);
        self.records.iter().filter(is_new).collect()
    }

    fn of_kind(&self, part: bool) -> impl Iterator<Item = &LedgerRecord> {
        let is_part = |record: &LedgerRecord| record.kind == RangeKind::Part.raw();
        self.records
            .iter()
            .filter(move |record| is_part(record) == part)
    }

    /// Stretches of fenced ranges that touch each other, if one were gone and
    /// another there.
    fn stretches(&self, without: Option<(u64, u64)>, with: Option<(u64, u64)>) -> usize {
        let mut ranges: Vec<_> = self
            .of_kind(false)
            .map(|record| (record.start, record.size))
            .filter(|range| Some(*range) != without)
            .chain(with)
            .collect();
        ranges.sort_unstable();
        let touching = ranges
            .windows(2)
            .filter(|pair| pair[0].0 + pair[0].1 == pair[1].0)
            .count();
        ranges.len() - touching
    }
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

fn overlap(one: &std::ops::Range<u64>, other: &std::ops::Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl Default for World {
    /// A world with a granule protection table.
    fn default() -> Self {
        Self::on(Box::new(Table::new(BASE, PAGES)))
    }
}

impl World {
    /// A world with a controller of so many windows.
    pub fn with_windows(windows: usize) -> Self {
        Self::on(Box::new(Controller::new(Simulated::new(windows), GRANULE)))
    }

    fn on(hardware: Box<dyn Hardware>) -> Self {
        let mut ledger = Ledger::new(Machine::new(BASE, PAGES, hardware));
        for region in &DECLARED {
            ledger
                .declare(
                    address(region.first),
                    region.pages * GRANULE,
                    region.use_case,
                    region.protection,
                )
                .expect("disjoint regions");
        }
        let mut callers = Callers::new();
        let sessions = UUIDS.map(|uuid| callers.open(&uuid).expect("admitted"));
        let mut world = Self {
            ledger,
            callers,
            sessions,
            current: 0,
        };
        world.switch(0);
        world
    }

    /// Who calls.
    fn caller(&self) -> Caller {
        self.sessions[self.current]
    }

    /// Another application calls from now on.
    pub fn switch(&mut self, application: usize) -> &mut Self {
        self.current = application;
        let session = self.caller().id.raw();
        self.ledger.platform_mut().switch(application, session);
        self
    }

    /// The application that calls closes its session, and opens another; its
    /// windows stay.
    pub fn reopen(&mut self) {
        self.callers.close(self.caller().id);
        let session = self.callers.open(&UUIDS[self.current]);
        self.sessions[self.current] = session.expect("admitted");
        self.switch(self.current);
    }

    /// The application that calls panics, and another instance takes its place.
    pub fn dies(&mut self) {
        self.ledger.platform_mut().ta_dies();
        self.reopen();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            pages: self.ledger.platform().pages(),
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

    fn windows(&self) -> usize {
        match self.ledger.abilities().windows {
            Some(windows) => windows.get() as usize,
            None => usize::MAX,
        }
    }

    /// What has to hold between any two operations.
    fn check(&self, snapshot: &Snapshot) {
        let mut fenced = vec![false; PAGES as usize];
        let mut end = 0;
        for record in snapshot.of_kind(false) {
            assert!(record.size > 0 && record.start >= end, "sorted, disjoint");
            end = record.start + record.size;
            let region = region_of(&covered(record)).expect("inside one region");
            assert_eq!(record.use_case, region.use_case.raw());
            let kind = match region.protection {
                Protection::Buffer => RangeKind::Range,
                Protection::Region => RangeKind::Region,
            };
            assert_eq!(record.kind, kind.raw());
            let state = RangeState::from_raw(record.state).expect("a state");
            if kind == RangeKind::Region && state == RangeState::Protected {
                assert_eq!(record.start, address(region.first), "all of it");
                assert_eq!(record.size, region.pages * GRANULE, "all of it");
            }
            let pages = covered(record);
            let first = pages.start - BASE / GRANULE;
            fenced[first as usize..][..(pages.end - pages.start) as usize].fill(true);
        }
        let mut end = 0;
        for part in snapshot.of_kind(true) {
            assert!(part.size > 0 && part.start >= end, "sorted, disjoint");
            end = part.start + part.size;
            let whole = snapshot
                .of_kind(false)
                .find(|record| record.kind == RangeKind::Region.raw())
                .expect("a part of a fenced region");
            assert_eq!(whole.state, RangeState::Protected.raw());
            assert_eq!(whole.use_case, part.use_case);
            assert!(whole.start <= part.start && end <= whole.start + whole.size);
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
        assert_eq!(self.ledger.len(), snapshot.records.len());
        assert!(snapshot.stretches(None, None) <= self.windows());
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

    /// Runs one operation, checking everything that can be. Whether it
    /// succeeds is one of those things, and of no interest here.
    pub fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Protect { start, size } => {
                let _ = self.protect(start, size);
            }
            Operation::ProtectRegion => {
                let _ = self.protect(address(RECORD), RECORD_PAGES * GRANULE);
            }
            Operation::Unprotect { start, size } => {
                let _ = self.unprotect(start, size);
            }
            Operation::ReleaseListed { index } => {
                if let Some(record) = self.record(index) {
                    let _ = self.release(&record);
                }
            }
            Operation::Name { start, size } => {
                let _ = self.name(start, size);
            }
            Operation::Forget { start, size } => {
                let _ = self.forget(start, size);
            }
            Operation::Scrub { start, size } => {
                let _ = self.scrub(start, size);
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
            Operation::DeviceWrites { page } => {
                self.ledger.platform_mut().device_writes(page % PAGES);
            }
            Operation::TaWrites => self.ledger.platform_mut().ta_writes(),
            Operation::TaDies => self.dies(),
            Operation::Switch { application } => {
                self.switch(application);
            }
            Operation::Reopen => self.reopen(),
            Operation::Fail { faults } => self.set_faults(faults),
        }
    }

    /// Runs the operations that these bytes spell, on a machine that their first
    /// byte chooses, and recovers.
    pub fn run(bytes: &[u8]) {
        let Some((&first, rest)) = bytes.split_first() else {
            return;
        };
        let mut world = match first % 12 {
            windows @ 1..=8 => Self::with_windows(windows.into()),
            _ => Self::default(),
        };
        for operation in Operation::decode(rest) {
            world.apply(operation);
        }
        world.recover();
    }

    /// One of the ledger's records.
    fn record(&self, index: usize) -> Option<LedgerRecord> {
        self.ledger.records().nth(index % self.ledger.len().max(1))
    }

    /// Ends as a system must be able to: nothing fails any more, the TAs start
    /// anew, and everything that LIST shows can be released, parts first.
    pub fn recover(&mut self) {
        self.set_faults(Faults::None);
        for application in 0..APPLICATIONS {
            self.switch(application).dies();
        }
        let mut records: Vec<_> = self.ledger.records().collect();
        records.sort_by_key(|record| record.kind != RangeKind::Part.raw());
        for record in records {
            assert_eq!(self.release(&record), Ok(()));
        }
        assert!(self.ledger.is_empty());
        assert_eq!(self.ledger.len(), 0);
    }
}
