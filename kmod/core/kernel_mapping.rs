// SPDX-License-Identifier: GPL-2.0

//! Pages that the kernel itself sees one behind the other.

use core::ptr::NonNull;

use crate::{
    bindings,
    pages::Run,
    scatter_list::Turn, //
};
use kernel::prelude::*;

/// A buffer's pages in the kernel's address space, until this is dropped.
///
/// # Invariants
///
/// All of the pages are mapped at the address, one behind the other; by `vmap` if
/// it is a mapping of its own.
pub(crate) enum KernelMapping {
    /// In the mapping of all memory, where a single run is anyhow.
    Linear(NonNull<c_void>),
    /// In a mapping of its own.
    Own(NonNull<c_void>),
}

impl KernelMapping {
    /// Maps all pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The pages must outlive the mapping.
    pub(crate) unsafe fn new(runs: &[Run]) -> Result<Self> {
        if let [run] = runs {
            // SAFETY: The run begins with a page.
            let address = unsafe { bindings::ringfence_linear_address(run.first()) };
            if let Some(address) = NonNull::new(address) {
                // INVARIANT: The pages of a run follow each other in that mapping.
                return Ok(Self::Linear(address));
            }
        }
        let count = runs.iter().map(Run::pages).sum();
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL)?;
        for run in runs {
            for index in 0..run.pages() {
                // SAFETY: The index is inside the run.
                let page = unsafe { run.nth(index) };
                pages.push_within_capacity(page).map_err(|_| ENOMEM)?;
            }
        }
        let count = u32::try_from(count).map_err(|_| ENOMEM)?;
        // SAFETY: These are so many pages, and by the function's contract they outlive the mapping.
        let address = unsafe { bindings::ringfence_vmap(pages.as_mut_ptr(), count) };
        // INVARIANT: They were mapped just now.
        NonNull::new(address).map(Self::Own).ok_or(ENOMEM)
    }

    /// Where the first byte is.
    pub(crate) fn address(&self) -> *mut c_void {
        match self {
            Self::Linear(address) | Self::Own(address) => address.as_ptr(),
        }
    }

    /// Makes `length` bytes from `offset` on ready for whoever uses them next, where
    /// caches tell addresses apart.
    ///
    /// # Safety
    ///
    /// The part must be inside the mapping.
    pub(crate) unsafe fn prepare(&self, offset: usize, length: usize, turn: Turn) {
        if let Self::Own(address) = self {
            // SAFETY: By the function's contract the part is mapped.
            unsafe {
                let part = address.cast::<u8>().add(offset).as_ptr().cast();
                match turn {
                    Turn::Cpu => bindings::ringfence_invalidate_vmap(part, length),
                    Turn::Device => bindings::ringfence_flush_vmap(part, length),
                }
            }
        }
    }
}

impl Drop for KernelMapping {
    fn drop(&mut self) {
        if let Self::Own(address) = self {
            // SAFETY: By the type invariants `vmap` has made the mapping.
            unsafe { bindings::vunmap(address.as_ptr()) };
        }
    }
}
