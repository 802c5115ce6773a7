// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the ledger asks of the machine.

use core::num::NonZeroU32;

use crate::extent::{Extent, Step, GRANULE};

/// The machine did not do what it was asked, and all is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What the hardware that keeps the normal world out can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Unit in which memory is fenced, in bytes: a multiple of [`GRANULE`].
    pub granule: u64,
    /// How many separate stretches can be fenced at once, adjacent ranges
    /// counting as one; `None` when there is no limit but the ledger's.
    pub windows: Option<NonZeroU32>,
    /// How much is fenced or opened in one step.
    pub step: Step,
}

impl Abilities {
    /// Those of a granule protection table: each granule on its own, and a
    /// step for each block, as every granule's entry must be written.
    pub const TABLE: Self = Self {
        granule: GRANULE,
        windows: None,
        step: Step::Block,
    };
}

/// The hardware that keeps the normal world out of memory, and how it is told.
///
/// Both operations are done in full or not at all.
pub trait Barrier {
    /// What it can do, which never changes.
    fn abilities(&self) -> Abilities;

    /// Takes an open extent from the normal world.
    ///
    /// # Errors
    ///
    /// [`Refused`]: it is as open as before.
    fn fence(&mut self, extent: Extent) -> Result<(), Refused>;

    /// Gives a fenced extent back to the normal world.
    ///
    /// # Errors
    ///
    /// [`Refused`]: it is as fenced as before.
    fn open(&mut self, extent: Extent) -> Result<(), Refused>;
}

/// The machine under the ledger: OP-TEE and a [`Barrier`], or a simulation.
///
/// A `piece` is one of [`Extent::pieces`] by the barrier's step, and a `block`
/// one of [`Extent::blocks`]. The ledger asks only what makes sense: it fences
/// what is open, opens and scrubs what is fenced. Every operation is done in
/// full or not at all. Any answer of the firmware other than its one for
/// success is [`Refused`].
pub trait Platform {
    /// What the windows of one range are cut from. As long as a window of it
    /// is mapped, in whichever way that ends, the platform knows.
    type Object;

    /// What its barrier can do. It changes at most while nothing is fenced.
    fn abilities(&self) -> Abilities;

    /// Takes a piece from the normal world.
    fn fence(&mut self, piece: Extent) -> Result<(), Refused>;

    /// Gives a piece back to the normal world.
    fn open(&mut self, piece: Extent) -> Result<(), Refused>;

    /// Zeroes a fenced block.
    fn scrub(&mut self, block: Extent) -> Result<(), Refused>;

    /// Makes an object of a fenced range. Dropping it ends it.
    fn object(&mut self, range: Extent) -> Result<Self::Object, Refused>;

    /// Whether any window of the object is mapped.
    fn is_mapped(&self, object: &Self::Object) -> bool;

    /// Maps a window of the object, `offset` bytes into it, read and write into
    /// the caller's address space, and returns its virtual address.
    fn map(&mut self, object: &Self::Object, offset: u64, size: u64) -> Result<u64, Refused>;

    /// The physical address that the caller sees at `va`, when one mapped
    /// window covers all `size` bytes from there.
    fn physical(&mut self, va: u64, size: u64) -> Option<u64>;

    /// Takes a window of the object from the caller's address space.
    fn unmap(&mut self, object: &Self::Object, va: u64, size: u64) -> Result<(), Refused>;
}
