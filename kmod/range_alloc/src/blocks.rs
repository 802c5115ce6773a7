// SPDX-License-Identifier: GPL-2.0

//! The blocks of a region: free and live ones, in address order, without a gap.
//!
//! Positions are granule numbers that keep the low bits of the physical address, so aligning a
//! position aligns the address.

use super::{
    error::{
        AllocError,
        FreeError,
        GeometryError, //
    },
    geometry::{
        Geometry,
        MAX_ALIGN, //
    },
    index::{
        Group,
        Index,
        Links,
        LAST_SLOT, //
    },
    Block,
    BlockState,
    Extent,
    Handle,
    Placement,
    Range,
    Request,
    Stats, //
};

/// Number of no record: past the end of every slice, so that looking it up finds nothing.
pub(super) const NONE: u32 = u32::MAX;

/// A block of the region, or a spare record; opaque to the caller who provides the memory.
#[derive(Clone, Debug)]
pub struct Record {
    /// Position of the first granule.
    pub(super) start: u32,
    /// Position after the last granule.
    pub(super) end: u32,
    /// The block that ends where this one starts.
    before: u32,
    /// The block that starts where this one ends; of a spare record, the next spare one.
    pub(super) after: u32,
    /// Counts allocations and frees: odd while the block is live.
    generation: u32,
    /// The free block's place in the index.
    pub(super) links: Links,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            start: 0,
            end: 0,
            before: NONE,
            after: NONE,
            generation: 0,
            links: Links::NONE,
        }
    }
}

impl Record {
    /// Returns the length in granules.
    pub(super) fn len(&self) -> u32 {
        self.end.wrapping_sub(self.start)
    }

    /// Whether the block is live.
    pub(super) fn is_live(&self) -> bool {
        self.generation & 1 != 0
    }
}

/// All of an allocator except its slices.
///
/// # Invariants
///
/// - The blocks, from record 0 on by `after`, tile the region in address order, and `before` is
///   the way back. No two neighbours are both free.
/// - The free blocks are in the index, and nothing else is.
/// - Each record is either a block or in the list of spare ones. While fewer than `max_live`
///   ranges are live, two are spare, or the region has no block that needs one more.
#[derive(Debug)]
pub(super) struct Blocks {
    index: Index,
    /// Address of position 0.
    origin: u64,
    /// Logarithm of the granule.
    shift: u32,
    /// Position of the region.
    start: u32,
    /// Length of the region.
    granules: u32,
    /// First spare record.
    spare: u32,
    live: u32,
    max_live: u32,
    /// Granules that are not live.
    free: u32,
    /// Number of blocks, free and live.
    blocks: u32,
}

/// A free block, and where in it the range shall be.
struct Place {
    block: u32,
    start: u32,
    end: u32,
}

impl Blocks {
    /// Makes one free block of the whole region.
    pub(super) fn new(
        geometry: Geometry,
        max_live: usize,
        records: &mut [Record],
        groups: &mut [Group],
    ) -> Result<Self, GeometryError> {
        let granules = geometry.granules()?;
        let needed = geometry.metadata_size(max_live)?;
        if records.len() != needed.records || groups.len() != needed.groups {
            return Err(GeometryError::Metadata);
        }
        let shift = geometry.granule.trailing_zeros();
        let before = (geometry.base & MAX_ALIGN.wrapping_sub(1)) >> shift;
        let start = before as u32;
        let end = start.wrapping_add(granules);
        for (spare, record) in (1..NONE).zip(records.iter_mut()) {
            *record = Record {
                after: spare,
                ..Record::default()
            };
        }
        if let Some(last) = records.last_mut() {
            last.after = NONE;
        }
        let mut blocks = Self {
            index: Index::new(shift, groups),
            origin: geometry.base.wrapping_sub(before << shift),
            shift,
            start,
            granules,
            spare: 1,
            live: 0,
            max_live: u32::try_from(max_live).unwrap_or(u32::MAX),
            free: granules,
            blocks: 1,
        };
        if let Some(record) = records.first_mut() {
            (record.start, record.end, record.after) = (start, end, NONE);
        }
        blocks.index.insert(records, groups, 0, start, end);
        Ok(blocks)
    }

    /// Allocates the best fitting range.
    #[inline(always)]
    pub(super) fn alloc(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        request: Request,
    ) -> Result<Range, AllocError> {
        let Request {
            size,
            align,
            placement,
        } = request;
        let slot = size.wrapping_sub(1) >> (self.shift & 63);
        let within = align.wrapping_sub(1);
        if slot >= u64::from(self.granules) || within >= MAX_ALIGN || align & within != 0 {
            return Err(self.refusal(request));
        }
        if self.live >= self.max_live {
            return Err(AllocError::NoRecord);
        }
        let length = (slot as u32).wrapping_add(1);
        let mask = (within >> (self.shift & 63)) as u32;
        let mut block = self.index.find(groups, slot as u32, mask);
        if records.get(block as usize).is_none() {
            block = self.find_otherwise(records, groups, length, mask);
        }
        let record = records.get(block as usize).ok_or(AllocError::NoSpace)?;
        let start = match placement {
            Placement::Bottom => record.start.wrapping_add(mask) & !mask,
            Placement::Top => record.end.wrapping_sub(length) & !mask,
        };
        let end = start.wrapping_add(length);
        self.carve(records, groups, Place { block, start, end })
            .ok_or(AllocError::NoSpace)
    }

    /// Returns what is wrong with a request.
    #[cold]
    fn refusal(&self, request: Request) -> AllocError {
        if request.size == 0 {
            AllocError::ZeroSize
        } else if !request.align.is_power_of_two() || request.align > MAX_ALIGN {
            AllocError::Alignment
        } else {
            AllocError::OutOfBounds
        }
    }

    /// Allocates the range that the caller names, in as many steps as there are blocks.
    pub(super) fn alloc_at(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        start: u64,
        size: u64,
    ) -> Result<Range, AllocError> {
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        let offset = start.wrapping_sub(self.address(self.start));
        if start < self.address(self.start)
            || size > self.size()
            || offset > self.size().wrapping_sub(size)
        {
            return Err(AllocError::OutOfBounds);
        }
        if (offset | size) & self.bytes(1).wrapping_sub(1) != 0 {
            return Err(AllocError::Unaligned);
        }
        if self.live >= self.max_live {
            return Err(AllocError::NoRecord);
        }
        let start = self
            .start
            .wrapping_add((offset >> (self.shift & 63)) as u32);
        let end = start.wrapping_add((size >> (self.shift & 63)) as u32);
        let (block, record) = in_order(records)
            .find(|(_, record)| start < record.end)
            .ok_or(AllocError::OutOfBounds)?;
        if record.is_live() || end > record.end {
            return Err(AllocError::Occupied);
        }
        self.carve(records, groups, Place { block, start, end })
            .ok_or(AllocError::Occupied)
    }

    /// Frees a live range.
    #[inline(always)]
    pub(super) fn free(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        handle: Handle,
    ) -> Result<Extent, FreeError> {
        let record = records
            .get_mut(handle.record as usize)
            .ok_or(FreeError::Foreign)?;
        if record.generation != handle.generation {
            return Err(FreeError::Stale);
        }
        if record.start != handle.start {
            return Err(FreeError::Foreign);
        }
        record.generation = record.generation.wrapping_add(1);
        let (before, length) = (record.before, record.len());
        let (mut end, mut after) = (record.end, record.after);
        self.live = self.live.wrapping_sub(1);
        self.free = self.free.wrapping_add(length);

        let mut block = handle.record;
        let mut start = handle.start;
        if let Some(next) = free_block(records, after) {
            let absorbed = after;
            (end, after) = (next.end, next.after);
            self.absorb(records, groups, absorbed, absorbed);
        }
        if let Some(previous) = free_block(records, before) {
            start = previous.start;
            self.absorb(records, groups, before, block);
            block = before;
        }
        if let Some(record) = records.get_mut(block as usize) {
            (record.end, record.after) = (end, after);
        }
        if let Some(next) = records.get_mut(after as usize) {
            next.before = block;
        }
        self.index.insert(records, groups, block, start, end);
        Ok(self.extent(handle.start, length))
    }

    /// Takes a free block out of the index, because it becomes part of its neighbour, and gives
    /// the record that is no longer needed back.
    #[inline(always)]
    fn absorb(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        free_block: u32,
        needless: u32,
    ) {
        self.index.remove(records, groups, free_block);
        self.blocks = self.blocks.wrapping_sub(1);
        if let Some(record) = records.get_mut(needless as usize) {
            record.after = self.spare;
        }
        self.spare = needless;
    }

    /// Splits a free block into what is left of a place, the place, which becomes live, and what is
    /// right of it.
    #[inline(always)]
    fn carve(
        &mut self,
        records: &mut [Record],
        groups: &mut [Group],
        place: Place,
    ) -> Option<Range> {
        let Place { block, start, end } = place;
        let record = records.get(block as usize)?;
        let (left, right, mut after) = (record.start, record.end, record.after);
        self.index.remove(records, groups, block);

        // INVARIANT: While fewer than `max_live` ranges are live, there are spare records.
        let mut live = block;
        if left < start {
            live = self.spare;
            let record = records.get_mut(live as usize)?;
            self.spare = record.after;
            self.blocks = self.blocks.wrapping_add(1);
            record.before = block;
            if let Some(record) = records.get_mut(block as usize) {
                (record.end, record.after) = (start, live);
            }
            self.index.insert(records, groups, block, left, start);
        }
        if end < right {
            let rest = self.spare;
            let record = records.get_mut(rest as usize)?;
            self.spare = record.after;
            self.blocks = self.blocks.wrapping_add(1);
            (record.start, record.end, record.after) = (end, right, after);
            if let Some(next) = records.get_mut(after as usize) {
                next.before = rest;
            }
            after = rest;
            self.index.insert(records, groups, rest, end, right);
        }
        if let Some(next) = records.get_mut(after as usize) {
            next.before = live;
        }
        let record = records.get_mut(live as usize)?;
        (record.start, record.end, record.after) = (start, end, after);
        record.generation = record.generation.wrapping_add(1);
        let handle = Handle {
            record: live,
            generation: record.generation,
            start,
        };
        let length = end.wrapping_sub(start);
        self.live = self.live.wrapping_add(1);
        self.free = self.free.wrapping_sub(length);
        Some(Range {
            handle,
            start: self.address(start),
            size: self.bytes(length),
        })
    }

    /// Finds a free block for a request that no index is made for; returns [`NONE`] without.
    ///
    /// Beyond the largest key the blocks of the last slot are tried one by one. An alignment that
    /// no class has is searched for in the class below, with as much more length as always makes
    /// room for it; then in the class above; and the last resort is a block of the largest size,
    /// which is worth a look while a region is empty.
    #[cold]
    #[inline(never)]
    fn find_otherwise(&self, records: &[Record], groups: &[Group], length: u32, mask: u32) -> u32 {
        let fits = |block: &u32| fits(records, *block, length, mask);
        let masks = self.index.masks();
        let slot = length.wrapping_sub(1);
        if slot > LAST_SLOT {
            return self
                .index
                .largest(records, groups)
                .find(fits)
                .unwrap_or(NONE);
        }
        if masks.contains(&mask) {
            return NONE;
        }
        let below = masks.into_iter().filter(|&class| class < mask).max();
        let below = below.unwrap_or(0);
        let padded = slot.wrapping_add(mask.wrapping_sub(below));
        let above = masks.into_iter().find(|&class| class > mask);
        for (slot, class) in [(padded, below), (slot, above.unwrap_or(NONE))] {
            let found = self.index.find(groups, slot, class);
            if found != NONE {
                return found;
            }
        }
        self.index
            .largest(records, groups)
            .chain(self.index.large(groups))
            .find(fits)
            .unwrap_or(NONE)
    }

    /// Returns the figures of the whole region.
    pub(super) fn stats(&self, records: &[Record], groups: &[Group]) -> Stats {
        Stats {
            size: self.size(),
            free: self.bytes(self.free),
            largest_free: self.bytes(self.longest(records, groups)),
            live: self.live as usize,
            free_blocks: self.blocks.wrapping_sub(self.live) as usize,
        }
    }

    /// Returns the length of the longest free block, in granules.
    fn longest(&self, records: &[Record], groups: &[Group]) -> u32 {
        let length = |block: u32| records.get(block as usize).map_or(0, Record::len);
        self.index
            .largest(records, groups)
            .chain(self.index.large(groups))
            .map(length)
            .fold(0, u32::max)
    }

    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Returns what a block is, for those who look.
    pub(super) fn describe(&self, number: u32, record: &Record) -> Block {
        let Extent { start, size } = self.extent(record.start, record.len());
        let state = if record.is_live() {
            BlockState::Live(Handle {
                record: number,
                generation: record.generation,
                start: record.start,
            })
        } else {
            BlockState::Free
        };
        Block { start, size, state }
    }

    fn extent(&self, start: u32, length: u32) -> Extent {
        Extent {
            start: self.address(start),
            size: self.bytes(length),
        }
    }

    fn address(&self, position: u32) -> u64 {
        self.origin.wrapping_add(self.bytes(position))
    }

    fn bytes(&self, granules: u32) -> u64 {
        u64::from(granules) << (self.shift & 63)
    }

    fn size(&self) -> u64 {
        self.bytes(self.granules)
    }
}

/// Returns the record of a number if it is a free block.
#[inline(always)]
fn free_block(records: &[Record], number: u32) -> Option<&Record> {
    records
        .get(number as usize)
        .filter(|record| !record.is_live())
}

/// Whether a block has room for `length` granules aligned to `mask` + 1.
fn fits(records: &[Record], block: u32, length: u32, mask: u32) -> bool {
    records.get(block as usize).is_some_and(|record| {
        let aligned = record.start.wrapping_add(mask) & !mask;
        record.end.checked_sub(aligned) >= Some(length)
    })
}

/// Returns all blocks with their numbers, in address order.
///
/// Record 0 is always the first one: a block that is split or extended keeps its record for the
/// part with the lowest address.
pub(super) fn in_order(records: &[Record]) -> impl Iterator<Item = (u32, &Record)> {
    let numbered = |number: u32| Some((number, records.get(number as usize)?));
    core::iter::successors(numbered(0), move |(_, record)| numbered(record.after))
}
