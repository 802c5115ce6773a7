// SPDX-License-Identifier: GPL-2.0

//! A range of a carveout that somebody has, or that is dirty, and its place in a
//! tree.

use kernel::{
    prelude::*,
    rbtree::{
        RBTreeNode,
        RBTreeNodeReservation, //
    }, //
};
use ringfence_core::task::Origin;
use ringfence_range_alloc::{
    Handle,
    Range, //
};

/// How a range stands that the allocator has allocated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeState {
    /// On its way to become a buffer.
    Preparing,
    /// A buffer, open to the normal world.
    Open,
    /// More of an open buffer, which lies elsewhere.
    Further,
    /// A buffer, fenced off.
    Protected,
    /// A buffer of which the secure world does not know any more.
    Lost,
    /// No buffer any more; it waits until the secure world opens it.
    Waiting,
    /// No buffer any more; the secure world could not open it.
    Quarantined,
    /// Nobody's; it waits until it is zeroed, or is taken over as it is.
    Dirty,
}

impl RangeState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Open => "open",
            Self::Further => "further",
            Self::Protected => "protected",
            Self::Lost => "lost",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
            Self::Dirty => "dirty",
        }
    }

    pub(super) fn is_buffer(self) -> bool {
        matches!(self, Self::Open | Self::Protected | Self::Lost)
    }

    pub(super) fn is_kept_back(self) -> bool {
        matches!(self, Self::Waiting | Self::Quarantined)
    }

    pub(super) fn is_fenced(self) -> bool {
        matches!(self, Self::Protected | Self::Waiting | Self::Quarantined)
    }
}

/// A range that the allocator has allocated.
pub(crate) struct Tracked {
    pub(super) handle: Handle,
    /// Bytes.
    pub(super) size: u64,
    pub(super) state: RangeState,
    pub(super) origin: Origin,
    /// Bytes at the start of a dirty range that are zeroed already.
    pub(super) scrubbed: u64,
}

impl Tracked {
    pub(super) fn new(range: &Range, state: RangeState, origin: Origin) -> Self {
        Self {
            handle: range.handle,
            size: range.size,
            state,
            origin,
            scrubbed: 0,
        }
    }

    pub(super) fn dirty(range: &Range, scrubbed: u64) -> Self {
        Self {
            scrubbed,
            ..Self::new(range, RangeState::Dirty, Origin::kernel())
        }
    }
}

/// A range in a tree, by its physical address.
pub(super) type Node = RBTreeNode<u64, Tracked>;

/// Memory for one.
pub(crate) type NodeReservation = RBTreeNodeReservation<u64, Tracked>;

/// Memory for what [`Ranges::take`](super::Ranges::take) tracks.
pub(crate) struct Nodes {
    pub(super) place: NodeReservation,
    pub(super) left: NodeReservation,
    pub(super) right: NodeReservation,
}

impl Nodes {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            place: NodeReservation::new(GFP_KERNEL)?,
            left: NodeReservation::new(GFP_KERNEL)?,
            right: NodeReservation::new(GFP_KERNEL)?,
        })
    }
}
