// SPDX-License-Identifier: GPL-2.0

//! The allocator beside a plain bitmap that tells what must happen.
//!
//! The tests and the fuzz target share it: a [`World`] applies an [`Op`] to both, and panics when
//! they disagree.

#[path = "../owned/mod.rs"]
mod owned;

use std::collections::VecDeque;

use owned::{ranges, Ranges};
use ringfence_range_alloc::{
    AllocError, Block, BlockState, FreeError, Geometry, Handle, Placement, Range, Request,
};

/// One call, with numbers that any values make sense for.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Allocates `granules`, less `short` bytes, at an alignment of `2^align` granules.
    Alloc {
        granules: u32,
        short: u16,
        align: u8,
        top: bool,
    },
    /// Allocates a range that is named by its place.
    AllocAt { start: u32, granules: u32 },
    /// Frees one of the live ranges.
    Free(u16),
    /// Frees a range once more.
    FreeAgain(u8),
}

/// Which granules are free, one bit each.
pub struct Bitmap {
    words: Vec<u64>,
    granules: usize,
}

impl Bitmap {
    fn new(granules: usize) -> Self {
        let mut free = Self {
            words: vec![0; granules.div_ceil(64)],
            granules,
        };
        free.set(0, granules, true);
        free
    }

    /// Makes `count` granules from `start` on free or not, and tells whether all were the other.
    fn set(&mut self, start: usize, count: usize, value: bool) -> bool {
        let (mut at, end, mut all) = (start, start + count, true);
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            let word = &mut self.words[at / 64];
            let expected = if value { 0 } else { mask };
            all &= *word & mask == expected;
            *word = if value { *word | mask } else { *word & !mask };
            at += bits;
        }
        all
    }

    /// Returns the next position from `at` on that is free, or is not.
    fn next(&self, at: usize, free: bool) -> usize {
        let mut at = at;
        while at < self.granules {
            let word = self.words[at / 64];
            let word = if free { word } else { !word } >> (at % 64);
            if word != 0 {
                return (at + word.trailing_zeros() as usize).min(self.granules);
            }
            at = (at / 64 + 1) * 64;
        }
        self.granules
    }

    /// Returns all free runs as (start, end).
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let run = |from: usize| {
            let start = self.next(from, true);
            (start < self.granules).then(|| (start, self.next(start, false)))
        };
        std::iter::successors(run(0), move |&(_, end)| run(end))
    }

    /// Returns the least usable length, at least `granules`, that a free run has when its start
    /// is aligned; `phase` is the position of the region's first granule.
    pub fn best(&self, granules: usize, align: usize, phase: usize) -> Option<usize> {
        self.runs()
            .filter_map(|(start, end)| {
                let aligned = (start + phase).next_multiple_of(align) - phase;
                end.checked_sub(aligned)
            })
            .filter(|&usable| usable >= granules)
            .min()
    }
}

/// What an [`Op`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused,
    Full,
}

/// Alignment classes in bytes, in which the search is exact.
const CLASSES: [u64; 3] = [4 << 10, 64 << 10, 2 << 20];

/// Keys, in granules, up to which the fit is the best one.
const EXACT: usize = 1 << 18;

/// An allocator and its oracle.
pub struct World {
    pub ranges: Ranges,
    pub free: Bitmap,
    pub live: Vec<Range>,
    dead: VecDeque<Handle>,
    pub geometry: Geometry,
    max_live: usize,
    /// Whether to look at the whole region around every call.
    pub thorough: bool,
}

impl World {
    pub fn new(geometry: Geometry, max_live: usize) -> Self {
        Self {
            ranges: ranges(geometry, max_live),
            free: Bitmap::new((geometry.size / geometry.granule) as usize),
            live: Vec::new(),
            dead: VecDeque::new(),
            geometry,
            max_live,
            thorough: true,
        }
    }

    pub fn apply(&mut self, op: Op) -> Outcome {
        let before = self.thorough.then(|| self.snapshot());
        let outcome = match op {
            Op::Alloc {
                granules,
                short,
                align,
                top,
            } => {
                let granule = self.geometry.granule;
                self.alloc(Request {
                    size: (u64::from(granules) * granule)
                        .saturating_sub(u64::from(short) % granule),
                    align: granule << (align % 32),
                    placement: if top {
                        Placement::Top
                    } else {
                        Placement::Bottom
                    },
                })
            }
            Op::AllocAt { start, granules } => self.alloc_at(start as usize, granules as usize),
            Op::Free(_) if self.live.is_empty() => Outcome::Refused,
            Op::Free(pick) => self.free(usize::from(pick) % self.live.len()),
            Op::FreeAgain(pick) => match self.dead.len() {
                0 => Outcome::Refused,
                count => {
                    let handle = self.dead[usize::from(pick) % count];
                    assert_eq!(self.ranges.free(handle), Err(FreeError::Stale));
                    Outcome::Refused
                }
            },
        };
        if let Some(before) = before {
            self.check();
            if outcome != Outcome::Done {
                assert_eq!(before, self.snapshot(), "a refused call changed something");
            }
        }
        outcome
    }

    pub fn alloc(&mut self, request: Request) -> Outcome {
        let granule = self.geometry.granule;
        let granules = request.size.div_ceil(granule) as usize;
        let align = (request.align / granule).max(1) as usize;
        let phase = (self.geometry.base / granule) as usize;
        let class = |class: u64| (class / granule).max(1) as usize;
        let exact = CLASSES.iter().any(|&c| class(c) == align);
        match self.ranges.alloc(request) {
            Ok(range) => {
                assert_eq!(range.size, granules as u64 * granule);
                assert_eq!(range.start % request.align.max(granule), 0, "not aligned");
                let start = self.index_of(range.start);
                if self.thorough && exact && granules <= EXACT {
                    let best = self.free.best(granules, align, phase).expect("no run fits");
                    let usable = |(start, end): (usize, usize)| {
                        end - ((start + phase).next_multiple_of(align) - phase)
                    };
                    let taken = self
                        .free
                        .runs()
                        .find(|&(_, end)| start < end)
                        .expect("taken from no free run");
                    assert_eq!(usable(taken).min(EXACT), best.min(EXACT), "not the best");
                }
                self.took(range);
                Outcome::Done
            }
            Err(AllocError::NoSpace) => {
                assert!(self.live.len() < self.max_live);
                assert!(granules > 0 && request.size <= self.geometry.size);
                if exact {
                    assert_eq!(self.free.best(granules, align, phase), None, "a run fits");
                } else {
                    // Neither a run that is long enough anywhere, nor one at the class above.
                    let below = CLASSES.iter().map(|&c| class(c)).filter(|&c| c < align);
                    let below = below.max().expect("the granule is a class");
                    let padded = granules + align - below;
                    assert_eq!(self.free.best(padded, below, phase), None, "a run fits");
                    let above = CLASSES.iter().map(|&c| class(c)).find(|&c| c > align);
                    if let Some(above) = above {
                        assert_eq!(self.free.best(granules, above, phase), None, "a run fits");
                    }
                }
                Outcome::Full
            }
            Err(AllocError::NoRecord) => {
                assert_eq!(self.live.len(), self.max_live);
                Outcome::Full
            }
            Err(AllocError::ZeroSize) => {
                assert_eq!(request.size, 0);
                Outcome::Refused
            }
            Err(AllocError::Alignment) => {
                assert!(!request.align.is_power_of_two() || request.align > 1 << 30);
                Outcome::Refused
            }
            Err(AllocError::OutOfBounds) => {
                assert!(request.size > self.geometry.size);
                Outcome::Refused
            }
            Err(other) => panic!("{other:?} for {request:?}"),
        }
    }

    fn alloc_at(&mut self, start: usize, granules: usize) -> Outcome {
        let granule = self.geometry.granule;
        let (address, size) = (
            self.geometry.base + start as u64 * granule,
            granules as u64 * granule,
        );
        let inside = start + granules <= self.free.granules;
        let mut runs = self.free.runs();
        let free = runs.any(|(first, end)| first <= start && start + granules <= end);
        drop(runs);
        match self.ranges.alloc_at(address, size) {
            Ok(range) => {
                assert_eq!((range.start, range.size), (address, size));
                self.took(range);
                return Outcome::Done;
            }
            Err(AllocError::Occupied) => assert!(inside && !free),
            Err(AllocError::OutOfBounds) => assert!(!inside),
            Err(AllocError::ZeroSize) => assert_eq!(granules, 0),
            Err(AllocError::NoRecord) => assert_eq!(self.live.len(), self.max_live),
            Err(other) => panic!("{other:?} at {start}, {granules} granules"),
        }
        Outcome::Refused
    }

    fn took(&mut self, range: Range) {
        let granule = self.geometry.granule;
        assert!(range.start >= self.geometry.base, "below the region");
        let (start, granules) = (self.index_of(range.start), range.size / granule);
        assert!(start + granules as usize <= self.free.granules, "above");
        assert!(self.free.set(start, granules as usize, false), "overlap");
        self.live.push(range);
    }

    pub fn free(&mut self, pick: usize) -> Outcome {
        let range = self.live.swap_remove(pick);
        let extent = self.ranges.free(range.handle).expect("a live range");
        assert_eq!((extent.start, extent.size), (range.start, range.size));
        let start = self.index_of(range.start);
        let granules = (range.size / self.geometry.granule) as usize;
        assert!(self.free.set(start, granules, true), "was not allocated");
        if self.dead.len() == 256 {
            self.dead.pop_front();
        }
        self.dead.push_back(range.handle);
        Outcome::Done
    }

    /// Frees everything, and checks that the first state is back.
    pub fn free_all(&mut self) {
        while let Some(last) = self.live.len().checked_sub(1) {
            self.free(last);
        }
        self.check();
        let fresh = World::new(self.geometry, self.max_live);
        assert_eq!(self.snapshot(), fresh.snapshot());
    }

    fn index_of(&self, address: u64) -> usize {
        ((address - self.geometry.base) / self.geometry.granule) as usize
    }

    fn snapshot(&self) -> (Vec<Block>, ringfence_range_alloc::Stats) {
        (self.ranges.ranges().collect(), self.ranges.stats())
    }

    /// Compares all blocks and figures with the bitmap.
    pub fn check(&self) {
        let mut at = self.geometry.base;
        let mut free_before = false;
        let mut live = self.live.clone();
        live.sort_by_key(|range| range.start);
        let mut live = live.into_iter();
        let mut runs = self.free.runs();
        let (mut free, mut free_blocks, mut largest) = (0, 0, 0);
        for block in self.ranges.ranges() {
            assert_eq!(block.start, at, "a gap or an overlap");
            at += block.size;
            match block.state {
                BlockState::Free => {
                    assert!(!free_before, "two free neighbours");
                    let (start, end) = runs.next().expect("free in the bitmap, too");
                    assert_eq!(start, self.index_of(block.start));
                    assert_eq!(end, self.index_of(at));
                    free += block.size;
                    free_blocks += 1;
                    largest = block.size.max(largest);
                }
                BlockState::Live(handle) => {
                    let range = live.next().expect("live here, too");
                    assert_eq!(
                        (range.handle, range.start, range.size),
                        (handle, block.start, block.size)
                    );
                }
            }
            free_before = block.state == BlockState::Free;
        }
        assert_eq!(at, self.geometry.base + self.geometry.size);
        assert!(live.next().is_none() && runs.next().is_none());
        let stats = self.ranges.stats();
        assert_eq!(stats.size, self.geometry.size);
        assert_eq!((stats.free, stats.largest_free), (free, largest));
        assert_eq!(
            (stats.live, stats.free_blocks),
            (self.live.len(), free_blocks)
        );
    }
}
