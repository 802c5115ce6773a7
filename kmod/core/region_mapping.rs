// SPDX-License-Identifier: GPL-2.0

//! Parts of a region in the kernel's address space, through the CPU's caches.

use core::ptr::NonNull;

use crate::{
    attachment::PhysRange,
    bindings,
    scatter_list::Turn, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// Whether this kernel can bring what is in the CPU's caches to where devices see
/// it that do not look there.
pub(crate) fn can_maintain_caches() -> bool {
    // SAFETY: A constant.
    unsafe { bindings::ringfence_has_cache_maintenance() }
}

/// How a mapping was made.
enum Kind {
    /// By `memremap`, with the largest blocks that fit.
    Remapped,
    /// By `vmap`, page by page.
    Gathered,
}

/// Memory that the kernel maps nowhere else, one part behind the other, until this
/// is dropped.
///
/// # Invariants
///
/// `size` bytes are mapped at `address`, by what `kind` says.
pub(crate) struct RegionMapping {
    address: NonNull<c_void>,
    size: usize,
    kind: Kind,
}

impl RegionMapping {
    /// Maps all of `parts`, which lie on pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also where several parts have no `struct page`; `EINVAL` for no
    /// parts.
    ///
    /// # Safety
    ///
    /// The parts must be memory that the caller has to itself, without a mapping of other
    /// attributes, for as long as the value lives.
    pub(crate) unsafe fn new(parts: &[PhysRange]) -> Result<Self> {
        let total = parts.iter().map(|part| part.size).sum::<u64>();
        let size = usize::try_from(total).map_err(|_| ENOMEM)?;
        let (address, kind) = match parts {
            [] => return Err(EINVAL),
            [part] => {
                // SAFETY: By the function's contract. Memory that is not of the system is mapped
                // anew.
                let address = unsafe {
                    kernel::bindings::memremap(
                        part.start,
                        size,
                        kernel::bindings::MEMREMAP_WB as c_ulong,
                    )
                };
                (address, Kind::Remapped)
            }
            // SAFETY: By the function's contract.
            _ => (unsafe { gather(parts, size) }?, Kind::Gathered),
        };
        // INVARIANT: It was mapped just now.
        Ok(Self {
            address: NonNull::new(address).ok_or(ENOMEM)?,
            size,
            kind,
        })
    }

    /// Where the first byte is.
    pub(crate) fn address(&self) -> *mut c_void {
        self.address.as_ptr()
    }

    /// Where `length` bytes from `offset` on are.
    fn part(&self, offset: usize, length: usize) -> Result<*mut c_void> {
        let end = offset.checked_add(length).ok_or(EINVAL)?;
        if end > self.size {
            return Err(EINVAL);
        }
        // SAFETY: Inside the mapping, by the check.
        Ok(unsafe { self.address.cast::<u8>().add(offset) }
            .as_ptr()
            .cast())
    }

    /// Makes `length` bytes from `offset` on ready for whoever uses them next: writes
    /// the caches' content back for devices, drops it for the CPU.
    ///
    /// Dropped is only what the memory has as well, or what somebody wrote without a
    /// turn of its own: memory that is given out is zeros behind the caches too.
    ///
    /// # Errors
    ///
    /// `EINVAL` when that is not inside the mapping.
    pub(crate) fn prepare(&self, offset: usize, length: usize, turn: Turn) -> Result {
        let part = self.part(offset, length)?;
        // SAFETY: So many bytes are mapped there.
        unsafe {
            match turn {
                Turn::Cpu => bindings::ringfence_invalidate(part, length),
                Turn::Device => bindings::ringfence_write_back(part, length),
            }
        }
        Ok(())
    }

    /// Writes zeros over all of it, and brings them to memory.
    pub(crate) fn zero(&self) {
        // SAFETY: By the type invariants so many bytes are mapped.
        unsafe {
            core::ptr::write_bytes(self.address.as_ptr().cast::<u8>(), 0, self.size);
        }
        self.write_back();
    }

    /// Brings all that is in the caches to memory.
    pub(crate) fn write_back(&self) {
        // SAFETY: By the type invariants so many bytes are mapped.
        unsafe { bindings::ringfence_write_back(self.address.as_ptr(), self.size) };
    }
}

impl Drop for RegionMapping {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this is how it was mapped.
        unsafe {
            match self.kind {
                Kind::Remapped => kernel::bindings::memunmap(self.address.as_ptr()),
                Kind::Gathered => bindings::vunmap(self.address.as_ptr()),
            }
        }
    }
}

/// Maps the pages of `parts` one behind the other; null when that fails.
///
/// # Safety
///
/// As for [`RegionMapping::new`].
unsafe fn gather(parts: &[PhysRange], size: usize) -> Result<*mut c_void> {
    let count = size.div_ceil(PAGE_SIZE);
    let mut pages = KVVec::with_capacity(count, GFP_KERNEL)?;
    for part in parts {
        for address in (part.start..part.start + part.size).step_by(PAGE_SIZE) {
            // SAFETY: Any address may be asked for.
            let page = unsafe { bindings::ringfence_page_at(address) };
            if page.is_null() {
                return Err(ENOMEM);
            }
            pages.push_within_capacity(page).map_err(|_| ENOMEM)?;
        }
    }
    let count = u32::try_from(count).map_err(|_| ENOMEM)?;
    // SAFETY: These describe so many pages of memory, and are only used to find their addresses. By
    // the function's contract the memory stays the caller's.
    Ok(unsafe { bindings::ringfence_vmap(pages.as_mut_ptr(), count) })
}
