// SPDX-License-Identifier: GPL-2.0

//! Who has which range of a carveout: what its lock protects.
//!
//! The allocator knows memory that is allocated and memory that is free, and what
//! it has free is clean. Memory that nobody has, but of unknown content, is
//! *dirty*: allocated for the allocator, and free for everybody else. A range
//! moves between the trees of allocated and of dirty ranges with its node, so
//! that giving it back needs no memory. A node that is left over serves the next
//! range: a carveout that has been in use for a while allocates without the
//! kernel's slab allocator, whose caches now and then have to be filled in the
//! middle of somebody's call.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};
use ringfence_core::{
    attachment::PhysRange,
    registry::RangeLine,
    reserved_mem,
    task::Origin, //
};
use ringfence_range_alloc::{
    AllocError,
    Group,
    Handle,
    Placement,
    Range,
    RangeAllocator,
    Record,
    Request, //
};

use crate::place::{
    self,
    Fit,
    Place,
    Use, //
};

#[cfg(RINGFENCE_TEST)]
mod tests;
mod tracked;
mod whole;

use tracked::{
    Node,
    Tracked, //
};
pub(crate) use tracked::{
    NodeReservation,
    Nodes,
    RangeState, //
};
use whole::Fence;
pub(crate) use whole::Opening;

/// Dirty ranges of which a region consists at first, at most.
const FIRST_PIECES: u64 = 256;

/// Nodes that are kept for the next ranges, at most.
const MAX_SPARE: usize = 512;

/// A range that was made free of dirty memory, and what of it is to be zeroed.
pub(crate) struct Taken {
    pub(crate) range: PhysRange,
    pub(crate) to_scrub: Option<PhysRange>,
}

/// What is to be allocated.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes: a power of two, at least the granule.
    pub(crate) alignment: u64,
    pub(crate) placement: Placement,
}

/// Bytes and buffers, as they are now.
pub(crate) struct Figures {
    pub(crate) size: u64,
    /// Bytes that are free and zeroed.
    pub(crate) clean: u64,
    /// Bytes that are free and of unknown content.
    pub(crate) dirty: u64,
    /// Bytes of the longest run of clean and dirty memory.
    pub(crate) largest_free: u64,
    pub(crate) kept_back: u64,
    pub(crate) fenced: u64,
    pub(crate) buffers: u32,
}

/// What changes in a carveout, under one short lock.
pub(crate) struct Ranges {
    region: PhysRange,
    granule: u64,
    /// What it has free is clean.
    allocator: RangeAllocator<KVVec<Record>, KVVec<Group>>,
    max_live: usize,
    /// Allocated ranges, by physical address.
    tracked: RBTree<u64, Tracked>,
    /// Dirty ranges, by physical address.
    dirty: RBTree<u64, Tracked>,
    /// Nodes of neither.
    spare: KVVec<NodeReservation>,
    dirty_bytes: u64,
    buffers: u32,
    kept_back: u64,
    fenced: u64,
    /// Around all of the carveout, if there is one.
    fence: Fence,
}

impl Ranges {
    /// Everything is free and clean.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        region: PhysRange,
        granule: u64,
        allocator: RangeAllocator<KVVec<Record>, KVVec<Group>>,
        max_live: usize,
    ) -> Result<Self> {
        Ok(Self {
            region,
            granule,
            allocator,
            max_live,
            tracked: RBTree::new(),
            dirty: RBTree::new(),
            spare: KVVec::with_capacity(max_live.min(MAX_SPARE), GFP_KERNEL)?,
            dirty_bytes: 0,
            buffers: 0,
            kept_back: 0,
            fenced: 0,
            fence: Fence::None,
        })
    }

    /// Whether there is a node for the next range.
    pub(crate) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Keeps a node for the next range. One more than are kept is for the caller to
    /// drop, outside of the lock.
    pub(crate) fn keep(&mut self, node: NodeReservation) -> Option<NodeReservation> {
        if self.spare.len() == self.spare.capacity() {
            return Some(node);
        }
        // There is room.
        let _ = self.spare.push_within_capacity(node);
        None
    }

    /// Makes all of a new carveout dirty, in pieces that become clean one by one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn soil_all(&mut self) -> Result {
        let mut left = self.region.size;
        let piece = first_piece(self.region.size, self.granule, self.max_live);
        while left > 0 {
            let range = self
                .allocator
                .alloc(Request {
                    size: piece.min(left),
                    align: self.granule,
                    placement: Placement::Bottom,
                })
                .map_err(|_| EINVAL)?;
            let tracked = Tracked::dirty(&range, 0);
            self.dirty
                .try_create_and_insert(range.start, tracked, GFP_KERNEL)?;
            self.dirty_bytes += range.size;
            left = left.saturating_sub(range.size);
        }
        Ok(())
    }

    /// Whether nothing is allocated.
    pub(crate) fn is_idle(&self) -> bool {
        self.tracked.is_empty()
    }

    /// Takes clean memory, in a time that does not depend on how much, and shows and
    /// counts it as `state`.
    ///
    /// # Errors
    ///
    /// `NoSpace`, `NoRecord`; `NoRecord` also without a [node](Self::has_spare).
    pub(crate) fn allocate(
        &mut self,
        wish: Wish,
        state: RangeState,
        origin: Origin,
    ) -> Result<PhysRange, AllocError> {
        let node = self.spare.pop().ok_or(AllocError::NoRecord)?;
        let allocated = self.allocator.alloc(Request {
            size: wish.size,
            align: wish.alignment,
            placement: wish.placement,
        });
        self.track_if(node, allocated, state, origin)
    }

    /// Takes this very range, which must be free and clean.
    ///
    /// # Errors
    ///
    /// `Occupied`, `NoRecord`; `NoRecord` also without a [node](Self::has_spare).
    pub(crate) fn allocate_at(&mut self, start: u64, size: u64) -> Result<PhysRange, AllocError> {
        let node = self.spare.pop().ok_or(AllocError::NoRecord)?;
        let allocated = self.allocator.alloc_at(start, size);
        self.track_if(node, allocated, RangeState::Waiting, Origin::kernel())
    }

    /// Tracks a range if there is one.
    fn track_if(
        &mut self,
        node: NodeReservation,
        allocated: Result<Range, AllocError>,
        state: RangeState,
        origin: Origin,
    ) -> Result<PhysRange, AllocError> {
        match allocated {
            Ok(range) => Ok(self.track(node, &range, state, origin)),
            Err(error) => {
                // There is room where it came from.
                drop(self.keep(node));
                Err(error)
            }
        }
    }

    /// Whether there is dirty memory, without which no run of `size` bytes can be found
    /// that the allocator does not find.
    pub(crate) fn has_dirty(&self, size: u64) -> bool {
        self.dirty_bytes > 0 && size <= self.allocator.stats().free + self.dirty_bytes
    }

    /// Takes memory of which a part is dirty.
    ///
    /// The place is the [`place::cheapest`]: a step for each allocated and each dirty
    /// range finds it. The caller holds the lock that keeps windows of dirty ranges
    /// from being zeroed meanwhile.
    ///
    /// # Errors
    ///
    /// `NoSpace` when nothing fits, even if all were clean; `NoRecord` when there
    /// are too many ranges.
    pub(crate) fn take(
        &mut self,
        nodes: Nodes,
        wish: Wish,
        origin: Origin,
    ) -> Result<Taken, AllocError> {
        let place = self.find(wish)?;
        let removed = place.dirty.map_or(0, |dirt| dirt.ranges);
        let live = self.allocator.stats().live;
        if live.saturating_sub(removed) + place.records() > self.max_live {
            return Err(AllocError::NoRecord);
        }

        let (left, right) = self.clear(&place);
        // All of this is free now, and there are records enough: nothing can fail.
        if let Some(left) = left {
            self.keep_dirty(nodes.left, left)?;
        }
        if let Some(right) = right {
            self.keep_dirty(nodes.right, right)?;
        }
        let range = self
            .allocator
            .alloc_at(place.start, place.end - place.start)?;
        Ok(Taken {
            range: self.track(nodes.place, &range, RangeState::Preparing, origin),
            to_scrub: place.to_scrub(),
        })
    }

    /// The cheapest place in clean and dirty memory together.
    ///
    /// # Errors
    ///
    /// `NoSpace` when nothing fits, even if all were clean.
    pub(crate) fn find(&self, wish: Wish) -> Result<Place, AllocError> {
        let size = wish
            .size
            .checked_next_multiple_of(self.granule)
            .ok_or(AllocError::OutOfBounds)?;
        let ranges = || {
            in_order(&self.tracked, &self.dirty).map(|(&start, tracked)| {
                let used = match tracked.state {
                    RangeState::Dirty => Use::Dirty,
                    _ => Use::Taken,
                };
                (
                    PhysRange {
                        start,
                        size: tracked.size,
                    },
                    used,
                )
            })
        };
        let fit = Fit {
            size,
            alignment: wish.alignment,
            placement: wish.placement,
        };
        place::cheapest(self.region, ranges(), ranges(), fit).ok_or(AllocError::NoSpace)
    }

    /// Makes the dirty ranges in a place free for the allocator, and answers what
    /// of them lies outside, on the left and on the right.
    fn clear(&mut self, place: &Place) -> (Option<Rest>, Option<Rest>) {
        let (mut left, mut right) = (None, None);
        let mut next = place.dirty.map(|dirt| dirt.first);
        while let Some(start) = next {
            let Some(node) = self.dirty.remove_node(&start) else {
                break;
            };
            let (_, range) = node.to_key_value();
            self.dirty_bytes = self.dirty_bytes.saturating_sub(range.size);
            self.free(start, range.handle);
            let end = start + range.size;
            let clean_end = start + range.scrubbed;
            if start < place.start {
                left = Some(Rest {
                    start,
                    size: place.start - start,
                    scrubbed: clean_end.min(place.start) - start,
                });
            }
            if end > place.end {
                right = Some(Rest {
                    start: place.end,
                    size: end - place.end,
                    scrubbed: clean_end.saturating_sub(place.end),
                });
            }
            next = self
                .dirty
                .cursor_lower_bound(&place.start)
                .map(|cursor| *cursor.current().0)
                .filter(|&start| start < place.end);
        }
        (left, right)
    }

    fn keep_dirty(&mut self, node: NodeReservation, rest: Rest) -> Result<(), AllocError> {
        let range = self.allocator.alloc_at(rest.start, rest.size)?;
        let tracked = Tracked::dirty(&range, rest.scrubbed);
        self.dirty.insert(node.into_node(range.start, tracked));
        self.dirty_bytes += range.size;
        Ok(())
    }

    fn track(
        &mut self,
        node: NodeReservation,
        range: &Range,
        state: RangeState,
        origin: Origin,
    ) -> PhysRange {
        let tracked = Tracked::new(range, state, origin);
        self.tracked.insert(node.into_node(range.start, tracked));
        self.count(state, range.size, Sign::Plus);
        PhysRange {
            start: range.start,
            size: range.size,
        }
    }

    /// Shows and counts an allocated range as `state` from now on.
    pub(crate) fn set_state(&mut self, start: u64, state: RangeState) {
        let Some(tracked) = self.tracked.get_mut(&start) else {
            return;
        };
        let size = tracked.size;
        let old = core::mem::replace(&mut tracked.state, state);
        self.count(old, size, Sign::Minus);
        self.count(state, size, Sign::Plus);
    }

    /// Gives back an allocated range that is clean. A node that is not kept is for the
    /// caller to drop, outside of the lock.
    pub(crate) fn release(&mut self, start: u64) -> Option<NodeReservation> {
        let handle = self.tracked.get(&start)?.handle;
        let node = self.untrack(start)?;
        self.free(start, handle);
        self.note_release();
        self.keep(node.into_reservation())
    }

    /// Makes an allocated range dirty.
    pub(crate) fn soil(&mut self, start: u64) {
        let Some(node) = self.untrack(start) else {
            return;
        };
        self.dirty.insert(node);
        if let Some(range) = self.dirty.get_mut(&start) {
            range.state = RangeState::Dirty;
            range.origin = Origin::kernel();
            range.scrubbed = 0;
            self.dirty_bytes += range.size;
        }
        self.note_release();
    }

    fn untrack(&mut self, start: u64) -> Option<Node> {
        let tracked = self.tracked.get(&start)?;
        let (size, state) = (tracked.size, tracked.state);
        self.count(state, size, Sign::Minus);
        self.tracked.remove_node(&start)
    }

    /// What to zero next, and where the dirty range begins in which it begins: the
    /// first dirty memory that there is, up to `most` bytes of it without a gap, or
    /// a window of one range.
    pub(crate) fn next_dirty(&self, most: Option<u64>) -> Option<(u64, PhysRange)> {
        if !self.can_allocate() {
            return None;
        }
        let mut ranges = self.dirty.iter();
        let (&start, range) = ranges.next()?;
        let first = PhysRange {
            start: start + range.scrubbed,
            size: range.size - range.scrubbed,
        };
        let Some(most) = most else {
            return Some((start, reserved_mem::first_window(first)));
        };
        let mut end = first.start + first.size;
        for (&next, range) in ranges {
            if next != end || end - first.start >= most {
                break;
            }
            end += range.size;
        }
        let run = PhysRange {
            start: first.start,
            size: most.min(end - first.start),
        };
        Some((start, run))
    }

    /// Takes note that the dirty range at `start` is zeroed up to `end`, which may
    /// lie behind it; answers the range's own end. When all of it is zeroed the
    /// range becomes clean; a node that is not kept then is for the caller to drop,
    /// outside of the lock.
    pub(crate) fn scrubbed(
        &mut self,
        start: u64,
        end: u64,
    ) -> Option<(u64, Option<NodeReservation>)> {
        let range = self.dirty.get_mut(&start)?;
        let own_end = start + range.size;
        range.scrubbed = end.min(own_end) - start;
        if range.scrubbed < range.size {
            return Some((own_end, None));
        }
        let (handle, size) = (range.handle, range.size);
        self.dirty_bytes = self.dirty_bytes.saturating_sub(size);
        self.free(start, handle);
        let node = self.dirty.remove_node(&start);
        let left_over = node.and_then(|node| self.keep(node.into_reservation()));
        Some((own_end, left_over))
    }

    fn free(&mut self, start: u64, handle: Handle) {
        if let Err(error) = self.allocator.free(handle) {
            pr_err!("range {:#x} can't be freed: {:?}\n", start, error);
        }
    }

    /// The figures. With dirty memory about, the longest run takes a step for each
    /// allocated range.
    pub(crate) fn figures(&self) -> Figures {
        let stats = self.allocator.stats();
        let largest_free = if self.dirty_bytes == 0 {
            stats.largest_free
        } else {
            let taken = self.tracked.iter().map(|(&start, tracked)| PhysRange {
                start,
                size: tracked.size,
            });
            place::longest_run(self.region, taken)
        };
        Figures {
            size: stats.size,
            clean: stats.free,
            dirty: self.dirty_bytes,
            largest_free,
            kept_back: self.kept_back,
            fenced: self.fenced,
            buffers: self.buffers,
        }
        .behind(&self.fence)
    }

    /// The first range at or behind `address` that is not free and clean.
    pub(crate) fn line_from(&self, address: u64) -> Option<RangeLine> {
        let tracked = self.tracked.cursor_lower_bound(&address);
        let dirty = self.dirty.cursor_lower_bound(&address);
        let (&start, range) = [&tracked, &dirty]
            .into_iter()
            .filter_map(|cursor| Some(cursor.as_ref()?.current()))
            .min_by_key(|&(&start, _)| start)?;
        Some(RangeLine {
            start,
            size: range.size,
            state: range.state.name(),
            origin: range.origin,
        })
    }

    /// Counts `size` bytes in, or out of, what `state` counts as.
    fn count(&mut self, state: RangeState, size: u64, sign: Sign) {
        let apply = |total: u64, part: u64| match sign {
            Sign::Plus => total.saturating_add(part),
            Sign::Minus => total.saturating_sub(part),
        };
        if state.is_buffer() {
            // CAST: There are at most `max_live` buffers.
            self.buffers = apply(self.buffers.into(), 1) as u32;
        }
        if state.is_kept_back() {
            self.kept_back = apply(self.kept_back, size);
        }
        if state.is_fenced() {
            self.fenced = apply(self.fenced, size);
        }
    }
}

/// What is left of a dirty range beside a place.
struct Rest {
    start: u64,
    size: u64,
    scrubbed: u64,
}

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

/// The ranges of two trees, in order of address.
fn in_order<'a>(
    one: &'a RBTree<u64, Tracked>,
    other: &'a RBTree<u64, Tracked>,
) -> impl Iterator<Item = (&'a u64, &'a Tracked)> {
    let mut one = one.iter().peekable();
    let mut other = other.iter().peekable();
    core::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some((left, _)), Some((right, _))) if left < right => one.next(),
        (_, Some(_)) => other.next(),
        (_, None) => one.next(),
    })
}

/// Bytes of the pieces of which a region consists that was never scrubbed: few
/// enough to leave most records to buffers.
fn first_piece(size: u64, granule: u64, max_live: usize) -> u64 {
    // CAST: Widening.
    let pieces = FIRST_PIECES.min((max_live as u64 / 4).max(1));
    size.div_ceil(pieces)
        .max(reserved_mem::WINDOW)
        .next_multiple_of(granule.max(reserved_mem::WINDOW))
}
