// SPDX-License-Identifier: GPL-2.0

//! Areas of the contiguous memory allocator: memory that Linux uses for what it
//! can move, until somebody wants a run of it.

use core::ptr::NonNull;

use crate::{
    bindings,
    inject,
    pages::{
        Memory,
        Run, //
    },
    task, //
};
use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Binary logarithm of the alignment, in pages, beyond which the kernel's own users
/// of CMA do not align by size.
pub const MAX_ORDER: u32 = bindings::RINGFENCE_CMA_ALIGNMENT;

/// Pages that are zeroed between two looks for a fatal signal.
const STRIDE: usize = 256;

/// An area, which is never freed.
///
/// # Invariants
///
/// The pointer is an area that the kernel set up at boot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Area(NonNull<bindings::cma>);

// SAFETY: Areas live for ever, and do their own locking.
unsafe impl Send for Area {}
// SAFETY: As above.
unsafe impl Sync for Area {}

/// How full an area is, in bytes. All is 0 where the kernel does not tell modules,
/// for want of its own header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// All of it.
    pub size: u64,
    /// Not allocated; Linux may be using it meanwhile.
    pub free: u64,
    /// The longest run of this.
    pub largest_free: u64,
}

impl Area {
    /// The area of devices that have none of their own, if there is one.
    pub fn of_any_device() -> Option<Self> {
        // SAFETY: Without a device the function answers with the default area, or null.
        let raw = unsafe { bindings::ringfence_default_cma_area() };
        // INVARIANT: Areas are set up at boot only.
        NonNull::new(raw).map(Self)
    }

    /// The areas of the devicetree's reusable regions.
    pub fn of_regions() -> impl Iterator<Item = Self> {
        (0..).map_while(|index| {
            // SAFETY: Any index may be asked for; past the last area the answer is null.
            let raw = unsafe { bindings::dma_contiguous_get_area_by_idx(index) };
            // INVARIANT: As above.
            NonNull::new(raw).map(Self)
        })
    }

    /// Its name: that of a region's node, with its unit address.
    pub fn name(&self) -> &'static CStr {
        // SAFETY: By the type invariants the area is there for ever, and with it its name, which is
        // NUL-terminated and never changes.
        unsafe { CStr::from_char_ptr(bindings::cma_get_name(self.0.as_ptr())) }
    }

    /// How full it is. Finding the longest run takes a step for each run.
    pub fn figures(&self) -> Figures {
        let pages = |count: c_ulong| (count as u64) << PAGE_SHIFT;
        let (mut size, mut free, mut longest) = (0, 0, 0);
        // SAFETY: By the type invariants the area is live; the numbers are ours.
        unsafe {
            bindings::ringfence_cma_figures(self.0.as_ptr(), &mut size, &mut free, &mut longest)
        };
        Figures {
            size: pages(size),
            free: pages(free),
            largest_free: pages(longest),
        }
    }

    /// Allocates `pages` contiguous pages that start at a multiple of 2^`order`
    /// pages, and zeroes them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` when a fatal signal is pending.
    pub fn allocate(&self, pages: usize, order: u32) -> Result<Contiguous> {
        inject::check(inject::Point::Range)?;
        // SAFETY: By the type invariants the area is live. What fails is told by its errno.
        let first = unsafe { bindings::cma_alloc(self.0.as_ptr(), pages, order, true) };
        let first = NonNull::new(first).ok_or(ENOMEM)?;
        // SAFETY: The allocator has answered with so many pages, and was asked for at least one.
        let run = unsafe { Run::new(first, pages) };
        // INVARIANT: Just allocated; it is not handed out before it is zeroed.
        let memory = Contiguous { area: *self, run };
        memory.zero()?;
        Ok(memory)
    }
}

/// Pages of an area, which are given back when this is dropped.
///
/// # Invariants
///
/// The run was allocated from `area`, and this owns it.
pub struct Contiguous {
    area: Area,
    run: Run,
}

impl Contiguous {
    fn zero(&self) -> Result {
        for part in self.run.parts(STRIDE) {
            task::pause()?;
            // SAFETY: By the type invariants the pages are ours, and nobody has them yet.
            unsafe { part.zero() };
        }
        Ok(())
    }
}

impl Drop for Contiguous {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the run is of the area and ours, and this is its end.
        let known = unsafe {
            bindings::cma_release(self.area.0.as_ptr(), self.run.first(), self.run.pages())
        };
        if !known {
            pr_err!(
                "{} pages are not of area {}\n",
                self.run.pages(),
                self.area.name()
            );
        }
    }
}

// SAFETY: The run never changes, its pages belong to the value, are counted by reference, as CMA
// hands them out, and were zeroed before anybody got it.
unsafe impl Memory for Contiguous {
    fn runs(&self) -> &[Run] {
        core::slice::from_ref(&self.run)
    }
}
