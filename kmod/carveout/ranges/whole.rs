// SPDX-License-Identifier: GPL-2.0

//! The fence around all of a carveout, where the devicetree wants one
//! (`ringfence,protection = "region"`).
//!
//! | fence | for the secure world | allocations | left by |
//! |---|---|---|---|
//! | none | buffers are fenced one by one, or not at all | as ever | - |
//! | open | open | fence it first | [`Ranges::fenced`] |
//! | fenced | fenced, and zeroed when it was | as ever | [`Ranges::begin_opening`] |
//! | opening | about to be opened | wait for the end of it | [`Ranges::opened`], or a failure |
//! | stuck | fenced, and could not be opened | `EIO` | a retry that opens it |
//! | lost | unknown, though buffers live | `EIO` | the last release |
//!
//! The secure world zeroes all of the carveout when it fences it and when it opens
//! it: no memory is dirty then.

use super::{
    Figures,
    RangeState,
    Ranges,
    Tracked, //
};
use kernel::{
    rbtree::RBTree,
    time::{
        Instant,
        Monotonic,
        Msecs, //
    }, //
};

/// See the [module's documentation](self).
pub(super) enum Fence {
    None,
    Open,
    Fenced {
        /// The secure world's name of the region.
        handle: u64,
        /// Since when nothing has been allocated, if that is so.
        idle: Instant<Monotonic>,
    },
    Opening,
    Stuck {
        handle: u64,
    },
    Lost,
}

/// Whether a region is to be opened.
pub(crate) enum Opening {
    /// It is not fenced, or in use.
    No,
    /// Not before so many milliseconds.
    Later(Msecs),
    /// Now, by this handle.
    Now(u64),
}

/// Dirty ranges that have become clean: memory to give back outside of the lock.
pub(crate) type Cleaned = RBTree<u64, Tracked>;

impl Figures {
    /// The same for a carveout behind a fence of its own.
    pub(super) fn behind(mut self, fence: &Fence) -> Self {
        match fence {
            Fence::None => {}
            Fence::Open | Fence::Lost => self.fenced = 0,
            Fence::Fenced { .. } | Fence::Opening => self.fenced = self.size,
            Fence::Stuck { .. } => {
                self.fenced = self.size;
                self.kept_back = self.size;
                (self.clean, self.dirty, self.largest_free) = (0, 0, 0);
            }
        }
        self
    }
}

impl Ranges {
    /// Makes all of a new carveout one region, which is open so far.
    pub(crate) fn fence_as_a_whole(&mut self) {
        self.fence = Fence::Open;
    }

    /// Whether memory may be handed out, and zeroed.
    pub(crate) fn can_allocate(&self) -> bool {
        matches!(self.fence, Fence::None | Fence::Fenced { .. })
    }

    /// Whether the region is open, and all is well.
    pub(crate) fn can_be_fenced(&self) -> bool {
        matches!(self.fence, Fence::Open)
    }

    /// The region's handle, while it is fenced.
    pub(crate) fn whole_handle(&self) -> Option<u64> {
        match self.fence {
            Fence::Fenced { handle, .. } | Fence::Stuck { handle } => Some(handle),
            _ => None,
        }
    }

    /// Whether the region could not be opened when that was tried.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self.fence, Fence::Stuck { .. })
    }

    /// Takes note that the secure world has zeroed and fenced the region. The
    /// caller keeps dirty memory from being zeroed meanwhile.
    pub(crate) fn fenced(&mut self, handle: u64) -> Cleaned {
        self.fence = Fence::Fenced {
            handle,
            idle: Instant::now(),
        };
        self.clean_all()
    }

    /// Takes note of the name by which the secure world knows the region now, which
    /// is still, or again, in use.
    pub(crate) fn renamed(&mut self, new: u64) {
        match &mut self.fence {
            Fence::Fenced { handle, .. } | Fence::Stuck { handle } => *handle = new,
            fence @ Fence::Opening => {
                *fence = Fence::Fenced {
                    handle: new,
                    idle: Instant::now(),
                };
            }
            Fence::None | Fence::Open | Fence::Lost => {}
        }
    }

    /// Whether the region is fenced, or as good as fenced, for Linux.
    pub(crate) fn is_meant_to_be_fenced(&self) -> bool {
        matches!(self.fence, Fence::Fenced { .. } | Fence::Opening)
    }

    /// Whether the region is fenced for Linux.
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self.fence, Fence::Fenced { .. })
    }

    /// Begins to open the region, if nothing was allocated in the last `delay`
    /// milliseconds.
    pub(crate) fn begin_opening(&mut self, delay: Msecs) -> Opening {
        let Fence::Fenced { handle, idle } = self.fence else {
            return Opening::No;
        };
        if !self.is_idle() {
            return Opening::No;
        }
        let idle = idle.elapsed().as_millis();
        match i64::from(delay) - idle {
            // CAST: Positive, and no more than the delay.
            left @ 1.. => Opening::Later(left as Msecs),
            _ => {
                self.fence = Fence::Opening;
                Opening::Now(handle)
            }
        }
    }

    /// Whether the region is fenced and nothing is allocated in it.
    pub(crate) fn is_fenced_and_idle(&self) -> bool {
        matches!(self.fence, Fence::Fenced { .. }) && self.is_idle()
    }

    /// Takes note that the secure world has zeroed and opened the region.
    pub(crate) fn opened(&mut self) -> Cleaned {
        self.fence = Fence::Open;
        self.clean_all()
    }

    /// Takes note that the region can't be opened now.
    pub(crate) fn stuck(&mut self, handle: u64) {
        self.fence = Fence::Stuck { handle };
    }

    /// Takes note that the secure world does not know the region.
    pub(crate) fn lost(&mut self) {
        if self.is_idle() {
            self.fence = Fence::Open;
            return;
        }
        self.fence = Fence::Lost;
        for tracked in self.tracked.values_mut() {
            if tracked.state == RangeState::Protected {
                tracked.state = RangeState::Lost;
                self.fenced = self.fenced.saturating_sub(tracked.size);
            }
        }
    }

    /// Whether a buffer's content is not sure to be fenced.
    pub(crate) fn is_lost(&self, start: u64) -> bool {
        self.tracked
            .get(&start)
            .is_none_or(|tracked| tracked.state == RangeState::Lost)
    }

    /// A range was given back: the clock of an idle region begins to run.
    pub(super) fn note_release(&mut self) {
        if !self.tracked.is_empty() {
            return;
        }
        match &mut self.fence {
            Fence::Fenced { idle, .. } => *idle = Instant::now(),
            fence @ Fence::Lost => *fence = Fence::Open,
            _ => {}
        }
    }

    /// Makes all dirty memory clean.
    fn clean_all(&mut self) -> Cleaned {
        let dirty = core::mem::replace(&mut self.dirty, RBTree::new());
        self.dirty_bytes = 0;
        for (&start, range) in &dirty {
            self.free(start, range.handle);
        }
        dirty
    }
}
