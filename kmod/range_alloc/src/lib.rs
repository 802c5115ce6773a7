// SPDX-License-Identifier: GPL-2.0

//! Ranges of a region of physical memory, handed out in bounded time.
//!
//! [`RangeAllocator`] divides a region of up to 64 GiB into contiguous ranges, aligned by their
//! *physical* address. The region itself is never touched: it may be fenced, or have no mapping.
//! All metadata lives in two slices that the caller provides once; afterwards nothing is
//! allocated, nothing recurses and nothing panics.
//!
//! # Promises
//!
//! - Time: [`alloc`](RangeAllocator::alloc) and [`free`](RangeAllocator::free) run a bounded
//!   number of instructions, whatever the size, the occupancy and the region.
//! - Fit: a request aligned to 4 KiB, 64 KiB or 2 MiB (or to the granule, where that is larger)
//!   fails only if no free run has room for it; and it takes the free block with the least usable
//!   length that fits. Other alignments may fail early, but not while a free run has room for the
//!   request whatever the run's address, nor while one fits at the next larger of these three.
//!   In an empty region any request that fits succeeds.
//! - Refusal: bad input gets a typed error, and a refused call has changed nothing.
//!
//! # The bound
//!
//! A free block is in three lists, one for each alignment class. [`alloc`](RangeAllocator::alloc)
//! takes one block out and puts up to two back; [`free`](RangeAllocator::free) takes up to two
//! out and puts one back: nine list updates each, of 15 to 40 instructions, all without a loop. The
//! search looks at three words in the class of the granule; in the others it looks at two places
//! for each of two candidates. That is all there is, so neither the region, nor the occupancy, nor
//! the size can make a call longer. `instruction_bounds.json` has the limits in instructions that
//! the tests hold the crate to, for every granule count up to 2^18 and the three alignments.
//!
//! # Beyond 2^18 granules
//!
//! Keys are exact up to 2^18 granules: 1 GiB of 4 KiB. A larger request is served just as exactly,
//! by a walk over the free blocks that are at least as large as that, of which a region has at
//! most 64. Among them it takes any, not the smallest.
//!
//! # Examples
//!
//! ```
//! use ringfence_range_alloc::{Geometry, Group, Placement, RangeAllocator, Record, Request};
//!
//! let geometry = Geometry { base: 0x8000_0000, size: 64 << 20, granule: 4096 };
//! let needed = geometry.metadata_size(128)?;
//! let records = vec![Record::default(); needed.records];
//! let groups = vec![Group::default(); needed.groups];
//! let mut ranges = RangeAllocator::new(geometry, 128, records, groups)?;
//!
//! let range = ranges.alloc(Request {
//!     size: 8 << 20,
//!     align: 2 << 20,
//!     placement: Placement::Bottom,
//! })?;
//! assert_eq!((range.start, range.size), (0x8000_0000, 8 << 20));
//! ranges.free(range.handle)?;
//! assert_eq!(ranges.stats().largest_free, 64 << 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![deny(unsafe_code)]
#![deny(missing_docs)]

mod blocks;
mod error;
mod geometry;
mod index;
#[cfg(any(test, kani))]
mod proofs;
#[cfg(test)]
mod tests;

pub use self::{
    blocks::Record,
    error::{
        AllocError,
        FreeError,
        GeometryError, //
    },
    geometry::{
        Geometry,
        MetadataSize,
        MAX_ALIGN,
        MAX_GRANULES,
        MIN_GRANULE, //
    },
    index::Group,
};

use core::ops::DerefMut;

use self::blocks::Blocks;

/// What to allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes; rounded up to a multiple of the granule.
    pub size: u64,
    /// Alignment of the physical address in bytes: a power of two up to [`MAX_ALIGN`]. A range is
    /// always aligned to the granule.
    pub align: u64,
    /// Which end of the free block to take.
    pub placement: Placement,
}

/// The end of a free block that a range is taken from.
///
/// Ranges from the same end of an empty region are packed; those from the other end stay apart
/// from them for as long as the region has room between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The lowest aligned address.
    #[default]
    Bottom,
    /// The highest aligned address.
    Top,
}

/// The name of a live range, which only the allocator can make.
///
/// It stops to be valid when the range is freed, also if the same memory is allocated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    record: u32,
    generation: u32,
    start: u32,
}

/// A live range, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// What [`RangeAllocator::free`] takes.
    pub handle: Handle,
    /// Physical address.
    pub start: u64,
    /// Length, a multiple of the granule.
    pub size: u64,
}

/// A part of the region, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Physical address.
    pub start: u64,
    /// Length, a multiple of the granule.
    pub size: u64,
}

/// A live range, or the whole free run between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Physical address in bytes.
    pub start: u64,
    /// Length in bytes, a multiple of the granule.
    pub size: u64,
    /// What it is.
    pub state: BlockState,
}

/// Whether a block is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Free.
    Free,
    /// Allocated, with its handle.
    Live(Handle),
}

/// Figures of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in the region.
    pub size: u64,
    /// Bytes that are not allocated.
    pub free: u64,
    /// Bytes of the longest free run.
    pub largest_free: u64,
    /// Number of live ranges.
    pub live: usize,
    /// Number of free runs.
    pub free_blocks: usize,
}

/// An allocator of ranges of one region.
///
/// `R` and `G` own, or borrow, the metadata: `Vec`, `Box<[_]>`, `&mut [_]` or the kernel's
/// `KVVec`.
#[derive(Debug)]
pub struct RangeAllocator<R, G> {
    blocks: Blocks,
    records: R,
    groups: G,
}

impl<R, G> RangeAllocator<R, G>
where
    R: DerefMut<Target = [Record]>,
    G: DerefMut<Target = [Group]>,
{
    /// Makes an allocator of a region that is free as a whole.
    ///
    /// At most `max_live` ranges can be live at once. The slices are as long as
    /// [`Geometry::metadata_size`] says; their content does not matter.
    pub fn new(
        geometry: Geometry,
        max_live: usize,
        mut records: R,
        mut groups: G,
    ) -> Result<Self, GeometryError> {
        Ok(Self {
            blocks: Blocks::new(geometry, max_live, &mut records, &mut groups)?,
            records,
            groups,
        })
    }

    /// Allocates a range: the best fit, in bounded time.
    pub fn alloc(&mut self, request: Request) -> Result<Range, AllocError> {
        self.blocks
            .alloc(&mut self.records, &mut self.groups, request)
    }

    /// Allocates exactly the `size` bytes at the physical address `start`.
    ///
    /// For recovery: takes as many steps as there are blocks.
    pub fn alloc_at(&mut self, start: u64, size: u64) -> Result<Range, AllocError> {
        self.blocks
            .alloc_at(&mut self.records, &mut self.groups, start, size)
    }

    /// Frees a range, in bounded time.
    pub fn free(&mut self, handle: Handle) -> Result<Extent, FreeError> {
        self.blocks
            .free(&mut self.records, &mut self.groups, handle)
    }

    /// Returns the figures of the region, in bounded time.
    pub fn stats(&self) -> Stats {
        self.blocks.stats(&self.records, &self.groups)
    }

    /// Returns all blocks in address order; together they are the region.
    pub fn ranges(&self) -> impl Iterator<Item = Block> + '_ {
        blocks::in_order(&self.records).map(|(number, record)| self.blocks.describe(number, record))
    }
}
