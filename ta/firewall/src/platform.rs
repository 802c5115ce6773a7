// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the ledger asks of the machine.

use crate::extent::Extent;

/// The machine did not do what it was asked, and all is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The machine under the ledger: OP-TEE and the firmware, or a simulation.
///
/// A `block` is one piece of [`Extent::blocks`], and the ledger asks only what
/// makes sense: it fences what is open, opens and scrubs what is fenced.
/// Every operation is done in full or not at all. Any answer of the firmware
/// other than its one for success is [`Refused`].
pub trait Platform {
    /// What the windows of one range are cut from. As long as a window of it
    /// is mapped, in whichever way that ends, the platform knows.
    type Object;

    /// Takes a block from the normal world.
    fn fence(&mut self, block: Extent) -> Result<(), Refused>;

    /// Gives a block back to the normal world.
    fn open(&mut self, block: Extent) -> Result<(), Refused>;

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
