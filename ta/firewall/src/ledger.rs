// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger: which ranges are fenced, and the rules by which they come and
//! go.
//!
//! | entry | meaning | leaves by |
//! |---|---|---|
//! | protected | fenced, scrubbed, can be mapped | UNPROTECT: scrubbed, opened, forgotten |
//! | quarantined | fenced, maybe not scrubbed, can't be mapped | the same |
//!
//! PROTECT fences block by block, then scrubs. UNPROTECT scrubs, then opens
//! block by block. Whatever goes wrong on the way, the ledger goes back to the
//! state before, and where a second failure makes that impossible it
//! quarantines what is still fenced, no more and no less.

use crate::extent::{Extent, BLOCK, GRANULE};
use crate::platform::{Platform, Refused};
use heapless::Vec;
use ringfence_proto::command::{result, RangeState, UseCase};
use ringfence_proto::firewall::{LedgerRecord, MAX_RANGES};

/// Carveouts that can be declared.
pub const MAX_REGIONS: usize = 16;

/// Bytes that one window can map, so that the translation tables that OP-TEE
/// has for a TA suffice.
pub const MAX_WINDOW: u64 = 2 * BLOCK;

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Zero, misaligned, wrapping around, or too large a window.
    Malformed,
    /// Not inside one declared carveout.
    OutOfBounds,
    /// Part of it is in the ledger already.
    Overlap,
    /// Not exactly a range of the ledger, or not inside a protected one.
    NotFound,
    /// Part of it is mapped.
    Mapped,
    /// The ledger holds [`MAX_RANGES`] ranges.
    Full,
    /// The firmware or OP-TEE failed. The range is as before, or quarantined.
    Platform,
}

impl Error {
    /// The result code that names the error to the TA.
    pub const fn code(self) -> u32 {
        match self {
            Self::Malformed => result::BAD_PARAMETERS,
            Self::OutOfBounds => result::ACCESS_DENIED,
            Self::Overlap => result::ACCESS_CONFLICT,
            Self::NotFound => result::ITEM_NOT_FOUND,
            Self::Mapped => result::BUSY,
            Self::Full => result::OUT_OF_MEMORY,
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
    /// Zero, misaligned or wrapping around.
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
}

/// A fenced range.
struct Entry<O> {
    extent: Extent,
    use_case: UseCase,
    state: RangeState,
    /// Present from the first MAP on, until nothing is mapped any more.
    object: Option<O>,
}

/// The one ledger of fenced ranges.
///
/// # Invariants
/// - `entries` are sorted by address, disjoint, and each lies in one region.
/// - `regions` are disjoint.
/// - Between two calls a granule of a region is fenced exactly when an entry
///   covers it.
pub struct Ledger<P: Platform> {
    platform: P,
    regions: Vec<Region, MAX_REGIONS>,
    entries: Vec<Entry<P::Object>, MAX_RANGES>,
}

impl<P: Platform> Ledger<P> {
    /// A ledger without carveouts: it refuses everything.
    pub const fn new(platform: P) -> Self {
        // INVARIANT: nothing is declared.
        Self {
            platform,
            regions: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Declares a carveout, all of it open to the normal world so far.
    pub fn declare(&mut self, start: u64, size: u64, use_case: UseCase) -> Result<(), RegionError> {
        let extent = Extent::new(start, size).ok_or(RegionError::Malformed)?;
        if self.regions.iter().any(|r| r.extent.overlaps(&extent)) {
            return Err(RegionError::Overlap);
        }
        // INVARIANT: disjoint from the others, and no entry lies in it yet.
        self.regions
            .push(Region { extent, use_case })
            .map_err(|_| RegionError::Full)
    }

    /// Number of declared carveouts.
    pub fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The platform under the ledger.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// The platform under the ledger.
    pub fn platform_mut(&mut self) -> &mut P {
        &mut self.platform
    }

    /// Every fenced range, in address order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = LedgerRecord> + '_ {
        self.entries.iter().map(|entry| LedgerRecord {
            start: entry.extent.start(),
            size: entry.extent.size(),
            use_case: entry.use_case.raw(),
            state: entry.state.raw(),
        })
    }

    /// Number of quarantined ranges.
    pub fn quarantined(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.state == RangeState::Quarantined)
            .count()
    }

    /// Fences a range and zeroes it; returns the use case of its carveout.
    pub fn protect(&mut self, start: u64, size: u64) -> Result<UseCase, Error> {
        let extent = Extent::new(start, size).ok_or(Error::Malformed)?;
        let use_case = self
            .regions
            .iter()
            .find(|region| region.extent.contains(&extent))
            .ok_or(Error::OutOfBounds)?
            .use_case;
        let index = self.lower_bound(extent.start());
        if self
            .entries
            .get(index)
            .is_some_and(|entry| entry.extent.overlaps(&extent))
        {
            return Err(Error::Overlap);
        }
        if self.entries.is_full() {
            return Err(Error::Full);
        }

        let outcome = self
            .fence(extent)
            .and_then(|()| self.scrub(extent).map_err(|Refused| Some(extent)));
        let (extent, state) = match outcome {
            Ok(()) => (extent, RangeState::Protected),
            // Not even the first block was fenced.
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
            object: None,
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
        let extent = Extent::new(start, size).ok_or(Error::Malformed)?;
        let index = self.lower_bound(start);
        let entry = self
            .entries
            .get_mut(index)
            .filter(|entry| entry.extent == extent)
            .ok_or(Error::NotFound)?;
        if let Some(object) = &entry.object {
            if self.platform.is_mapped(object) {
                return Err(Error::Mapped);
            }
        }
        entry.object = None;

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

    /// Maps part of one protected range into the caller's address space;
    /// returns its virtual address.
    pub fn map(&mut self, start: u64, size: u64) -> Result<u64, Error> {
        let window = Extent::new(start, size).ok_or(Error::Malformed)?;
        if size > MAX_WINDOW {
            return Err(Error::Malformed);
        }
        let index = self.lower_bound(start);
        let entry = self
            .entries
            .get_mut(index)
            .filter(|entry| entry.extent.contains(&window))
            .filter(|entry| entry.state == RangeState::Protected)
            .ok_or(Error::NotFound)?;
        let object = match &mut entry.object {
            Some(object) => object,
            none => none.insert(self.platform.object(entry.extent)?),
        };
        let va = self
            .platform
            .map(object, window.start() - entry.extent.start(), size)?;
        Ok(va)
    }

    /// Takes a window from the caller's address space, all of it or a part.
    pub fn unmap(&mut self, va: u64, size: u64) -> Result<(), Error> {
        // A virtual window is made of the same granules as a physical one.
        Extent::new(va, size).ok_or(Error::Malformed)?;
        let start = self.platform.physical(va, size).ok_or(Error::NotFound)?;
        let window = Extent::new(start, size).ok_or(Error::NotFound)?;
        let index = self.lower_bound(start);
        let entry = self
            .entries
            .get_mut(index)
            .filter(|entry| entry.extent.contains(&window))
            .ok_or(Error::NotFound)?;
        let object = entry.object.as_ref().ok_or(Error::NotFound)?;
        self.platform.unmap(object, va, size)?;
        if !self.platform.is_mapped(object) {
            entry.object = None;
        }
        Ok(())
    }

    /// Index of the first entry that ends above `address`: the one that covers
    /// it, or else the next.
    fn lower_bound(&self, address: u64) -> usize {
        self.entries
            .partition_point(|entry| entry.extent.end() <= address)
    }

    /// Fences an open extent. On failure returns what is fenced: its first
    /// blocks.
    fn fence(&mut self, extent: Extent) -> Result<(), Option<Extent>> {
        for block in extent.blocks() {
            if self.platform.fence(block).is_err() {
                return Err(extent.before(&block));
            }
        }
        Ok(())
    }

    fn scrub(&mut self, extent: Extent) -> Result<(), Refused> {
        extent
            .blocks()
            .try_for_each(|block| self.platform.scrub(block))
    }

    /// Zeroes a fenced, unmapped extent, then opens it: the only way to the
    /// normal world. On failure returns what is still fenced: all of it,
    /// unless fencing the first blocks again fails too.
    fn release(&mut self, extent: Extent) -> Result<(), Extent> {
        self.scrub(extent).map_err(|Refused| extent)?;
        let Some(stuck) = extent
            .blocks()
            .find(|&block| self.platform.open(block).is_err())
        else {
            return Ok(());
        };
        let Some(opened) = extent.before(&stuck) else {
            return Err(extent);
        };
        let mut fenced = stuck;
        for block in opened.blocks().rev() {
            if self.platform.fence(block).is_err() {
                break;
            }
            fenced = block;
        }
        Err(extent.suffix(&fenced))
    }
}

const _: () = assert!(MAX_WINDOW.is_multiple_of(GRANULE) && BLOCK.is_multiple_of(GRANULE));
