// SPDX-License-Identifier: GPL-2.0

//! An allocated range of a carveout, and what it holds when it is given back.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    attachment::PhysRange,
    inject::{
        self,
        Point, //
    },
    registry::Heap,
    task::Origin, //
};
use ringfence_range_alloc::AllocError;

use crate::{
    carveout::{
        errno,
        Carveout, //
    },
    ranges::{
        RangeState,
        Wish, //
    },
    region, //
};

/// What a range holds when it is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Zeros: it was so when it was allocated and nobody got it, or the secure
    /// world sees to it.
    Zeros,
    /// Anything.
    Unknown,
}

/// An allocated range, which is free again when this is dropped.
pub(crate) struct Reservation {
    carveout: Arc<Carveout>,
    range: PhysRange,
    content: Content,
}

impl Reservation {
    /// Allocates clean memory for the current process, if there is a run of it that
    /// fits, and no region has to be fenced first.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn clean(carveout: &Arc<Carveout>, wish: Wish) -> Result<Option<Self>> {
        Self::clean_as(carveout, wish, RangeState::Preparing)
    }

    /// As [`Self::clean`], but what is allocated shows and counts as `state` at once.
    pub(crate) fn clean_as(
        carveout: &Arc<Carveout>,
        wish: Wish,
        state: RangeState,
    ) -> Result<Option<Self>> {
        inject::check(Point::Record)?;
        inject::check(Point::Range)?;
        let allocated = {
            let mut ranges = carveout.ranges_for_one_more()?;
            if !ranges.can_allocate() {
                return Ok(None);
            }
            ranges.allocate(wish, state, Origin::current())
        };
        match allocated {
            Ok(range) => Ok(Some(Self {
                carveout: carveout.clone(),
                range,
                content: Content::Zeros,
            })),
            Err(AllocError::NoSpace | AllocError::NoRecord) => Ok(None),
            Err(error) => Err(errno(error)),
        }
    }

    /// Owns a range that was taken of dirty memory.
    pub(crate) fn unknown(carveout: &Arc<Carveout>, range: PhysRange) -> Self {
        Self {
            carveout: carveout.clone(),
            range,
            content: Content::Unknown,
        }
    }

    /// Takes a range that the secure world keeps fenced from an earlier life.
    ///
    /// # Errors
    ///
    /// `EBUSY` when it, or a part of it, is allocated.
    pub(crate) fn at(carveout: &Arc<Carveout>, start: u64, size: u64) -> Result<Self> {
        inject::check(Point::Record)?;
        let range = carveout
            .ranges_for_one_more()?
            .allocate_at(start, size)
            .map_err(errno)?;
        Ok(Self {
            carveout: carveout.clone(),
            range,
            content: Content::Zeros,
        })
    }

    pub(crate) fn carveout(&self) -> &Arc<Carveout> {
        &self.carveout
    }

    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    /// Shows and counts the range as `state` from now on.
    pub(crate) fn set_state(&self, state: RangeState) {
        self.carveout
            .ranges()
            .lock()
            .set_state(self.range.start, state);
    }

    /// Makes it a buffer in a fenced region, to which devices may write.
    pub(crate) fn enclose(&mut self) {
        self.content = Content::Unknown;
        self.set_state(RangeState::Protected);
    }

    /// Takes note that the secure world has zeroed it.
    pub(crate) fn is_zeroed(&mut self) {
        self.content = Content::Zeros;
    }

    /// Takes note that others may write to it from now on.
    pub(crate) fn give_out(&mut self) {
        self.content = Content::Unknown;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let is_idle = match self.content {
            Content::Zeros => {
                let (node, is_idle) = {
                    let mut ranges = self.carveout.ranges().lock();
                    let node = ranges.release(self.range.start);
                    (node, ranges.is_fenced_and_idle())
                };
                // Its memory is given back outside of the lock.
                drop(node);
                is_idle
            }
            Content::Unknown => {
                let is_idle = {
                    let mut ranges = self.carveout.ranges().lock();
                    ranges.soil(self.range.start);
                    ranges.is_fenced_and_idle()
                };
                Heap::wake(self.carveout.heap());
                is_idle
            }
        };
        if is_idle {
            region::has_become_idle(&self.carveout);
        }
    }
}
