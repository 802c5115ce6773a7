// SPDX-License-Identifier: MIT OR Apache-2.0

//! The firewall as the policy sees it, and the windows it maps.

use core::ptr::NonNull;

use ringfence_proto::firewall::LedgerRecord;

use crate::refusal::Refusal;
use crate::windows::{Range, Window};

/// What the firewall says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirewallInfo {
    /// Unit of protection in bytes.
    pub granule: u32,
    /// Largest window in bytes.
    pub window: u32,
    /// Version of its protocol.
    pub protocol: u32,
    /// Carveouts that it knows.
    pub regions: u32,
    /// Separate stretches that it can fence at once; 0 for no limit.
    pub windows: u32,
}

/// What the firewall's work has cost, in ticks of the physical counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Calls of the firmware.
    pub calls: u32,
    /// Blocks that were zeroed.
    pub scrubs: u32,
    /// Ticks in the firmware.
    pub firmware: u64,
    /// Ticks for zeroing blocks, their windows included.
    pub scrubbing: u64,
    /// Ticks of these in the bare loop.
    pub zeroing: u64,
}

/// The pseudo-TA that keeps the ledger of protected ranges.
///
/// # Safety
///
/// What [`map`](Self::map) returns must point to as many bytes as were asked
/// for, readable and writable until [`unmap`](Self::unmap) is called with
/// them, and overlapping nothing else that the program uses.
pub unsafe trait Firewall {
    /// What it says about itself.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when it cannot be reached.
    fn info(&mut self) -> Result<FirewallInfo, Refusal>;

    /// Scrubs a range and fences it off; returns the numbers of its use case and
    /// of its kind.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn protect(&mut self, range: Range) -> Result<(u32, u32), Refusal>;

    /// Scrubs a range of the ledger and opens it to the normal world.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn unprotect(&mut self, range: Range) -> Result<(), Refusal>;

    /// Makes a part of a region known that is fenced as a whole; returns the
    /// number of its use case.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn name(&mut self, part: Range) -> Result<u32, Refusal>;

    /// Scrubs a known part of a region, and forgets it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn forget(&mut self, part: Range) -> Result<(), Refusal>;

    /// Scrubs a stretch of a fenced region in which no part is known.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn scrub(&mut self, stretch: Range) -> Result<(), Refusal>;

    /// Maps `size` bytes at physical address `start`, both page-aligned and
    /// inside one protected range.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal>;

    /// Takes back what [`map`](Self::map) returned for the same size.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    ///
    /// # Safety
    ///
    /// Nothing may touch the bytes any more.
    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal>;

    /// Hands every record of the ledger to `each`.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result; `each` was not called then.
    fn list(&mut self, each: &mut dyn FnMut(LedgerRecord)) -> Result<(), Refusal>;

    /// What its work has cost since it was last asked, for measurements.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`], also when it is not a test build.
    #[cfg(feature = "test-commands")]
    fn meter(&mut self) -> Result<Costs, Refusal>;

    /// Makes the `nth` next step of a kind fail in the firewall, for tests.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`], also when it is not a test build.
    #[cfg(feature = "test-commands")]
    fn inject(&mut self, point: u32, nth: u32) -> Result<(), Refusal>;
}

/// A window of a protected range while it is mapped here.
///
/// Dropping it unmaps it: no window outlives the command that made it, however
/// the command ends.
///
/// # Invariants
///
/// `address` is what the firewall returned for `window.size`, and is mapped.
pub struct Mapping<'f, F: Firewall> {
    firewall: &'f mut F,
    address: NonNull<u8>,
    window: Window,
}

impl<'f, F: Firewall> Mapping<'f, F> {
    /// Maps a window.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    pub fn new(firewall: &'f mut F, window: Window) -> Result<Self, Refusal> {
        let address = firewall.map(window.start, window.size)?;
        // INVARIANT: just mapped.
        Ok(Self {
            firewall,
            address,
            window,
        })
    }

    /// The command's bytes in the window; not those beside them.
    ///
    /// A device that the kernel lets attach to the buffer could change them
    /// meanwhile, so that they are reached through a pointer only. They are
    /// valid as long as the mapping.
    pub fn bytes(&mut self) -> Result<NonNull<[u8]>, Refusal> {
        let skip = usize::try_from(self.window.skip).map_err(|_| Refusal::OutOfBounds)?;
        let length = usize::try_from(self.window.length).map_err(|_| Refusal::OutOfBounds)?;
        // SAFETY: a window's bytes lie within it (`skip + length <= size`), and
        // by the type invariant `size` bytes are mapped at `address`.
        let first = unsafe { self.address.add(skip) };
        Ok(NonNull::slice_from_raw_parts(first, length))
    }
}

/// A window that stays mapped when the command that made it has ended.
///
/// # Invariants
///
/// `address` is what the firewall returned for `size`, and is mapped.
#[derive(Debug)]
pub struct Held {
    address: NonNull<u8>,
    size: u64,
}

impl Held {
    /// Unmaps it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result; it stays mapped then.
    pub fn let_go(self, firewall: &mut impl Firewall) -> Result<(), Refusal> {
        // SAFETY: by the type invariant it is mapped, and nobody has a pointer
        // to its bytes.
        unsafe { firewall.unmap(self.address, self.size) }
    }
}

impl<F: Firewall> Mapping<'_, F> {
    /// Leaves the window mapped.
    pub fn hold(self) -> Held {
        let this = core::mem::ManuallyDrop::new(self);
        // INVARIANT: that of the mapping, whose drop does not run.
        Held {
            address: this.address,
            size: this.window.size,
        }
    }
}

impl<F: Firewall> Drop for Mapping<'_, F> {
    /// # Panics
    ///
    /// If the firewall does not unmap its own window. The panic kills the TA,
    /// and the window goes with the TA's address space; going on would leave
    /// the range mapped and impossible to release.
    fn drop(&mut self) {
        // SAFETY: by the type invariant it is mapped, and no pointer from
        // `bytes` is used after the mapping.
        let outcome = unsafe { self.firewall.unmap(self.address, self.window.size) };
        if let Err(refusal) = outcome {
            panic!("window cannot be unmapped: {refusal}");
        }
    }
}
