// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger: which ranges are fenced, and the rules by which they come and
//! go.
//!
//! A carveout is fenced in one of two ways, which its declaration says:
//!
//! | protection | what PROTECT fences | what can be mapped |
//! |---|---|---|
//! | buffer | any range of it | the range |
//! | region | all of it, at once | parts of it, once NAME has made them known |
//!
//! | entry | meaning | leaves by |
//! |---|---|---|
//! | protected | fenced, scrubbed, can be mapped | UNPROTECT: scrubbed, opened, forgotten |
//! | protected part | named, can be mapped | FORGET: scrubbed, forgotten, still fenced |
//! | quarantined | fenced, maybe not scrubbed, can't be mapped | the same |
//!
//! PROTECT fences piece by piece, then scrubs. UNPROTECT scrubs, then opens
//! piece by piece. Whatever goes wrong on the way, the ledger goes back to the
//! state before, and where a second failure makes that impossible it
//! quarantines what is still fenced, no more and no less.
//!
//! A range is mapped into the address space of one caller at a time. As long as
//! any of it is, it is busy for every other caller, and can't be opened: what a
//! caller sees there nobody else in the secure world changes. Of the
//! [callers](crate::caller) the decoder reaches what is for secure video only.
//!
//! A barrier with few windows covers ranges that touch each other with one. The
//! ledger [plans](crate::windows) before it does anything: a command that would
//! take one window more than there are is refused, and nothing has happened.

use crate::caller::{Caller, CallerId};
use crate::extent::{Extent, BLOCK, GRANULE};
use crate::platform::{Abilities, Platform, Refused};
use crate::windows;
use heapless::Vec;
use ringfence_proto::command::{result, Protection, RangeKind, RangeState, UseCase};
use ringfence_proto::firewall::{LedgerRecord, MAX_RANGES};

/// Carveouts that can be declared.
pub const MAX_REGIONS: usize = 16;

/// Bytes that one window can map, so that the translation tables that OP-TEE
/// has for a TA suffice.
pub const MAX_WINDOW: u64 = 2 * BLOCK;

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Zero, misaligned, wrapping around, too large a window, or not all of a
    /// carveout that is fenced as a whole.
    Malformed,
    /// Not inside one declared carveout.
    OutOfBounds,
    /// Part of it is in the ledger already.
    Overlap,
    /// Not exactly a range of the ledger, or not inside a protected one.
    NotFound,
    /// Part of it is mapped, when it is to be opened; or by another caller, when it
    /// is to be mapped.
    Mapped,
    /// The caller may not, or not there.
    Denied,
    /// There are too many callers of this role already.
    Crowded,
    /// Parts of it are named.
    Named,
    /// The ledger holds [`MAX_RANGES`] ranges and parts.
    Full,
    /// The barrier has no window left.
    NoWindow,
    /// The firmware or OP-TEE failed. The range is as before, or quarantined.
    Platform,
}

impl Error {
    /// The result code that names the error to the TA.
    pub const fn code(self) -> u32 {
        match self {
            Self::Malformed => result::BAD_PARAMETERS,
            Self::OutOfBounds | Self::Denied => result::ACCESS_DENIED,
            Self::Overlap | Self::Named => result::ACCESS_CONFLICT,
            Self::NotFound => result::ITEM_NOT_FOUND,
            Self::Mapped => result::BUSY,
            Self::Full | Self::Crowded => result::OUT_OF_MEMORY,
            Self::NoWindow => result::NO_WINDOW,
            Self::Platform => result::GENERIC,
        }
    }
}

impl From<Refused> for Error {
    fn from(_: Refused) -> Self {
        Self::Platform
    }
}

/// Why a carveout can't be declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// Zero, wrapping around, or no multiple of the barrier's granule.
    Malformed,
    /// Overlaps a carveout that is declared already.
    Overlap,
    /// There are [`MAX_REGIONS`] already.
    Full,
}

/// A declared carveout.
struct Region {
    extent: Extent,
    use_case: UseCase,
    protection: Protection,
}

/// A fenced range, or a named part of one.
struct Entry<O> {
    extent: Extent,
    use_case: UseCase,
    state: RangeState,
    /// Present from the first MAP on, until nothing is mapped any more.
    held: Option<Held<O>>,
}

/// What the windows of a range are cut from.
///
/// # Invariants
///
/// As long as a window of the object is mapped, it is mapped into the address
/// space of the owner.
struct Held<O> {
    object: O,
    owner: CallerId,
}

impl<O> Entry<O> {
    fn record(&self, kind: RangeKind) -> LedgerRecord {
        LedgerRecord {
            start: self.extent.start(),
            size: self.extent.size(),
            use_case: self.use_case.raw(),
            state: self.state.raw(),
            kind: kind.raw(),
        }
    }
}

/// Index of the first entry that ends above `address`: the one that covers it,
/// or else the next.
fn lower_bound<O>(entries: &[Entry<O>], address: u64) -> usize {
    entries.partition_point(|entry| entry.extent.end() <= address)
}

/// Whether a sorted list has an entry that overlaps `extent`.
fn overlapped<O>(entries: &[Entry<O>], extent: &Extent) -> bool {
    entries
        .get(lower_bound(entries, extent.start()))
        .is_some_and(|entry| entry.extent.overlaps(extent))
}

/// The one ledger of fenced ranges.
///
/// # Invariants
/// - `regions` are disjoint, and aligned to the barrier's granule.
/// - `entries` are sorted by address, disjoint, and each lies in one region.
/// - `parts` are sorted by address, disjoint, and each lies in an entry of a
///   region that is fenced as a whole.
/// - Together they are at most [`MAX_RANGES`].
/// - Between two calls a granule of a region is fenced exactly when an entry
///   covers it, and the entries take no more windows than there are.
pub struct Ledger<P: Platform> {
    platform: P,
    regions: Vec<Region, MAX_REGIONS>,
    entries: Vec<Entry<P::Object>, MAX_RANGES>,
    parts: Vec<Entry<P::Object>, MAX_RANGES>,
}

impl<P: Platform> Ledger<P> {
    /// A ledger without carveouts: it refuses everything.
    pub const fn new(platform: P) -> Self {
        // INVARIANT: nothing is declared.
        Self {
            platform,
            regions: Vec::new(),
            entries: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Declares a carveout, all of it open to the normal world so far.
    pub fn declare(
        &mut self,
        start: u64,
        size: u64,
        use_case: UseCase,
        protection: Protection,
    ) -> Result<(), RegionError> {
        let extent = Extent::new(start, size)
            .filter(|extent| extent.is_aligned(self.platform.abilities().granule))
            .ok_or(RegionError::Malformed)?;
        if self.regions.iter().any(|r| r.extent.overlaps(&extent)) {
            return Err(RegionError::Overlap);
        }
        // INVARIANT: disjoint from the others, and no entry lies in it yet.
        self.regions
            .push(Region {
                extent,
                use_case,
                protection,
            })
            .map_err(|_| RegionError::Full)
    }

    /// Number of declared carveouts.
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// What the barrier under the ledger can do.
    pub fn abilities(&self) -> Abilities {
        self.platform.abilities()
    }

    /// The platform under the ledger.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The platform under the ledger.
    pub fn platform_mut(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Every fenced range in address order, then every named part.
    pub fn records(&self) -> impl Iterator<Item = LedgerRecord> + '_ {
        let entries = self
            .entries
            .iter()
            .map(|entry| entry.record(self.kind_of(&entry.extent)));
        let parts = self.parts.iter().map(|part| part.record(RangeKind::Part));
        entries.chain(parts)
    }

    /// Number of fenced ranges and named parts.
    pub fn len(&self) -> usize {
        self.entries.len() + self.parts.len()
    }

    /// Whether nothing is fenced.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of quarantined ranges and parts.
    pub fn quarantined(&self) -> usize {
        self.entries
            .iter()
            .chain(&self.parts)
            .filter(|entry| entry.state == RangeState::Quarantined)
            .count()
    }

    /// The extent that a command names, in the barrier's granules.
    fn extent(&self, start: u64, size: u64) -> Result<Extent, Error> {
        Extent::new(start, size)
            .filter(|extent| extent.is_aligned(self.platform.abilities().granule))
            .ok_or(Error::Malformed)
    }

    /// What a fenced range is to the TA.
    pub fn kind_of(&self, range: &Extent) -> RangeKind {
        match self.region_of(range) {
            Some(region) if region.protection == Protection::Region => RangeKind::Region,
            _ => RangeKind::Range,
        }
    }

    fn region_of(&self, extent: &Extent) -> Option<&Region> {
        self.regions
            .iter()
            .find(|region| region.extent.contains(extent))
    }

    /// Fences a range and zeroes it; returns the use case of its carveout.
    pub fn protect(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let extent = self.extent(start, size)?;
        let region = self.region_of(&extent).ok_or(Error::OutOfBounds)?;
        if region.protection == Protection::Region && region.extent != extent {
            return Err(Error::Malformed);
        }
        let use_case = region.use_case;
        let index = lower_bound(&self.entries, extent.start());
        if overlapped(&self.entries, &extent) {
            return Err(Error::Overlap);
        }
        if self.len() >= MAX_RANGES {
            return Err(Error::Full);
        }
        let fenced = self.entries.iter().map(|entry| entry.extent);
        if !windows::suffice(self.abilities().windows, windows::with(fenced, extent)) {
            return Err(Error::NoWindow);
        }

        let outcome = self
            .fence(extent)
            .and_then(|()| self.scrub_blocks(extent).map_err(|Refused| Some(extent)));
        let (extent, state) = match outcome {
            Ok(()) => (extent, RangeState::Protected),
            // Not even the first piece was fenced.
            Err(None) => return Err(Error::Platform),
            Err(Some(fenced)) => match self.release(fenced) {
                Ok(()) => return Err(Error::Platform),
                Err(fenced) => (fenced, RangeState::Quarantined),
            },
        };
        let entry = Entry {
            extent,
            use_case,
            state,
            held: None,
        };
        // INVARIANT: the entry is what is fenced now; it overlaps no other,
        // and `index` is its place. There is room, as was seen above.
        if self.entries.insert(index, entry).is_err() {
            unreachable!("the ledger was not full");
        }
        match state {
            RangeState::Protected => Ok(use_case),
            RangeState::Quarantined => Err(Error::Platform),
        }
    }

    /// Zeroes a fenced range and opens it.
    pub fn unprotect(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let extent = self.extent(start, size)?;
        let index = lower_bound(&self.entries, start);
        let entry = self
            .entries
            .get_mut(index)
            .filter(|entry| entry.extent == extent)
            .ok_or(Error::NotFound)?;
        if overlapped(&self.parts, &extent) {
            return Err(Error::Named);
        }
        if let Some(held) = &entry.held {
            if self.platform.is_mapped(&held.object) {
                return Err(Error::Mapped);
            }
        }
        entry.held = None;
        // To open a range between two that it touches takes a window more.
        let fenced = self.entries.iter().map(|entry| entry.extent);
        if !windows::suffice(self.abilities().windows, windows::without(fenced, extent)) {
            return Err(Error::NoWindow);
        }

        match self.release(extent) {
            Ok(()) => {
                // INVARIANT: none of it is fenced any more.
                self.entries.remove(index);
                Ok(())
            }
            Err(fenced) => {
                let entry = &mut self.entries[index];
                // INVARIANT: what is still fenced is the end of what was.
                entry.extent = fenced;
                entry.state = RangeState::Quarantined;
                Err(Error::Platform)
            }
        }
    }

    /// Checks that `extent` lies in a carveout that is fenced as a whole, now;
    /// returns the carveout's use case.
    fn inside_region(&self, extent: &Extent) -> Result<UseCase, Error> {
        let region = self.region_of(extent).ok_or(Error::OutOfBounds)?;
        let index = lower_bound(&self.entries, extent.start());
        let entry = self.entries.get(index).ok_or(Error::NotFound)?;
        if region.protection != Protection::Region
            || entry.state != RangeState::Protected
            || !entry.extent.contains(extent)
        {
            return Err(Error::NotFound);
        }
        Ok(region.use_case)
    }

    /// Makes a part of a fenced region known, which can be mapped from then on;
    /// returns the use case. Its content stays as it is.
    pub fn name(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let extent = Extent::new(start, size).ok_or(Error::Malformed)?;
        let use_case = self.inside_region(&extent)?;
        if overlapped(&self.parts, &extent) {
            return Err(Error::Overlap);
        }
        if self.len() >= MAX_RANGES {
            return Err(Error::Full);
        }
        let index = lower_bound(&self.parts, start);
        let part = Entry {
            extent,
            use_case,
            state: RangeState::Protected,
            held: None,
        };
        // INVARIANT: it overlaps no other, `index` is its place, and its region
        // is fenced. There is room, as was seen above.
        if self.parts.insert(index, part).is_err() {
            unreachable!("the ledger was not full");
        }
        Ok(use_case)
    }

    /// Zeroes a named part, and forgets it. It stays fenced with its region.
    pub fn forget(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let extent = Extent::new(start, size).ok_or(Error::Malformed)?;
        let index = lower_bound(&self.parts, start);
        let part = self
            .parts
            .get_mut(index)
            .filter(|part| part.extent == extent)
            .ok_or(Error::NotFound)?;
        if let Some(held) = &part.held {
            if self.platform.is_mapped(&held.object) {
                return Err(Error::Mapped);
            }
        }
        part.held = None;
        match self.scrub_blocks(extent) {
            Ok(()) => {
                self.parts.remove(index);
                Ok(())
            }
            Err(Refused) => {
                self.parts[index].state = RangeState::Quarantined;
                Err(Error::Platform)
            }
        }
    }

    /// Zeroes a stretch of a fenced region that has no name.
    pub fn scrub(&mut self, start: u64, size: u64) -> Result<(), Error> {
        let extent = Extent::new(start, size).ok_or(Error::Malformed)?;
        self.inside_region(&extent)?;
        if overlapped(&self.parts, &extent) {
            return Err(Error::Overlap);
        }
        self.scrub_blocks(extent)?;
        Ok(())
    }

    /// The entry whose content `extent` is: a range that is fenced on its own,
    /// or a named part.
    fn content(&mut self, extent: &Extent) -> Option<(&mut P, &mut Entry<P::Object>)> {
        let entries = match self.region_of(extent)?.protection {
            Protection::Buffer => &mut self.entries,
            Protection::Region => &mut self.parts,
        };
        let index = lower_bound(entries, extent.start());
        let entry = entries
            .get_mut(index)
            .filter(|entry| entry.extent.contains(extent))?;
        Some((&mut self.platform, entry))
    }

    /// Maps part of one protected range into the caller's address space;
    /// returns its virtual address.
    pub fn map(&mut self, caller: Caller, start: u64, size: u64) -> Result<u64, Error> {
        let window = Extent::new(start, size).ok_or(Error::Malformed)?;
        if size > MAX_WINDOW {
            return Err(Error::Malformed);
        }
        let (platform, entry) = self
            .content(&window)
            .filter(|(_, entry)| entry.state == RangeState::Protected)
            .ok_or(Error::NotFound)?;
        if !caller.role.may_map(entry.use_case) {
            return Err(Error::Denied);
        }
        if let Some(held) = &entry.held {
            if held.owner != caller.id {
                if platform.is_mapped(&held.object) {
                    return Err(Error::Mapped);
                }
                // The owner is gone, and its windows with it.
                entry.held = None;
            }
        }
        let held = match &mut entry.held {
            Some(held) => held,
            // INVARIANT: nothing of the object is mapped yet.
            none => none.insert(Held {
                object: platform.object(entry.extent)?,
                owner: caller.id,
            }),
        };
        // INVARIANT: the platform maps into the caller's address space, and the
        // caller is the owner.
        let offset = window.start() - entry.extent.start();
        let va = platform.map(&held.object, offset, size)?;
        Ok(va)
    }

    /// Takes a window from the caller's address space, all of it or a part.
    pub fn unmap(&mut self, caller: Caller, va: u64, size: u64) -> Result<(), Error> {
        // A virtual window is made of the same granules as a physical one.
        Extent::new(va, size).ok_or(Error::Malformed)?;
        let start = self.platform.physical(va, size).ok_or(Error::NotFound)?;
        let window = Extent::new(start, size).ok_or(Error::NotFound)?;
        let (platform, entry) = self.content(&window).ok_or(Error::NotFound)?;
        let held = entry
            .held
            .as_ref()
            .filter(|held| held.owner == caller.id)
            .ok_or(Error::NotFound)?;
        platform.unmap(&held.object, va, size)?;
        if !platform.is_mapped(&held.object) {
            entry.held = None;
        }
        Ok(())
    }

    /// Fences an open extent. On failure returns what is fenced: its first
    /// pieces.
    fn fence(&mut self, extent: Extent) -> Result<(), Option<Extent>> {
        for piece in extent.pieces(self.abilities().step) {
            if self.platform.fence(piece).is_err() {
                return Err(extent.before(&piece));
            }
        }
        Ok(())
    }

    fn scrub_blocks(&mut self, extent: Extent) -> Result<(), Refused> {
        extent
            .blocks()
            .try_for_each(|block| self.platform.scrub(block))
    }

    /// Zeroes a fenced, unmapped extent, then opens it: the only way to the
    /// normal world. On failure returns what is still fenced: all of it,
    /// unless fencing the first pieces again fails too.
    fn release(&mut self, extent: Extent) -> Result<(), Extent> {
        let step = self.abilities().step;
        self.scrub_blocks(extent).map_err(|Refused| extent)?;
        let Some(stuck) = extent
            .pieces(step)
            .find(|&piece| self.platform.open(piece).is_err())
        else {
            return Ok(());
        };
        let Some(opened) = extent.before(&stuck) else {
            return Err(extent);
        };
        let mut fenced = stuck;
        for piece in opened.pieces(step).rev() {
            if self.platform.fence(piece).is_err() {
                break;
            }
            fenced = piece;
        }
        Err(extent.suffix(&fenced))
    }
}

const _: () = assert!(MAX_WINDOW.is_multiple_of(GRANULE) && BLOCK.is_multiple_of(GRANULE));
