// SPDX-License-Identifier: GPL-2.0

//! Parts of a region in a process's address space.
//!
//! Nothing is mapped before it is touched. A touch maps a block of
//! `RINGFENCE_BLOCK` bytes in one entry, where offset, address and memory are
//! aligned alike; elsewhere it maps the pages around it, as far as one table of
//! entries goes. That is what measures best: an area that is mapped at once can
//! only be made of pages.
//!
//! The frames are not reference-counted: the area has a reference to the dma-buf's
//! file, and that one to the memory.

use core::ptr;

use crate::{
    attachment::PhysRange,
    bindings, //
};
use kernel::{
    bindings::{
        vm_area_struct,
        vm_fault,
        vm_fault_t,
        vm_operations_struct, //
    },
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Bytes that one entry of a table of blocks, or a whole table of pages, maps.
const BLOCK: u64 = bindings::RINGFENCE_BLOCK as u64;

static OPERATIONS: vm_operations_struct = vm_operations_struct {
    fault: Some(fault),
    huge_fault: Some(huge_fault),
    ..pin_init::zeroed()
};

/// Makes an area show `parts`, one behind the other.
///
/// # Errors
///
/// `EINVAL` for a private area: writing to it would make copies.
///
/// # Safety
///
/// `area` must be new and inside of `parts`, and its owner's `mmap_lock` be held for writing. `parts`
/// must not move or change as long as the area's file is open.
pub(crate) unsafe fn prepare(area: *mut vm_area_struct, parts: &KVVec<PhysRange>) -> Result {
    // SAFETY: The area is new and its owner's lock is held.
    if !unsafe { bindings::ringfence_prepare_faults(area) } {
        return Err(EINVAL);
    }
    // SAFETY: The area is ours to set up.
    unsafe {
        (*area).vm_ops = &raw const OPERATIONS;
        (*area).vm_private_data = ptr::from_ref(parts).cast_mut().cast();
    }
    Ok(())
}

/// A fault in an area of ours.
struct Place<'a> {
    raw: *mut vm_fault,
    area: *mut vm_area_struct,
    parts: &'a KVVec<PhysRange>,
    /// Where the area begins and ends.
    start: u64,
    end: u64,
    /// What was touched.
    address: u64,
    /// Offset of the area's start in the memory.
    offset: u64,
}

impl<'a> Place<'a> {
    /// # Safety
    ///
    /// `fault` must be a fault in an area that [`prepare`] has set up.
    unsafe fn of(fault: *mut vm_fault) -> Self {
        // SAFETY: By the function's contract.
        unsafe {
            let what = &(*fault).__bindgen_anon_1;
            let area = what.vma;
            let bounds = &(*area).__bindgen_anon_1.__bindgen_anon_1;
            // CAST: To the same size or wider.
            Self {
                raw: fault,
                area,
                parts: &*(*area).vm_private_data.cast(),
                start: bounds.vm_start as u64,
                end: bounds.vm_end as u64,
                address: what.address as u64,
                offset: ((*area).vm_pgoff as u64) << PAGE_SHIFT,
            }
        }
    }

    /// The memory behind an address of the area, as far as it goes in one piece.
    fn memory(&self, address: u64) -> Option<PhysRange> {
        let mut skip = address.checked_sub(self.start)? + self.offset;
        for part in self.parts.iter() {
            if skip < part.size {
                return Some(PhysRange {
                    start: part.start + skip,
                    size: part.size - skip,
                });
            }
            skip -= part.size;
        }
        None
    }

    /// The start of the block around what was touched.
    fn block(&self) -> u64 {
        self.address - self.address % BLOCK
    }

    /// What a block's entry has to say, if the block can be one.
    fn block_memory(&self) -> Option<u64> {
        let block = self.block();
        if block < self.start || self.end - block < BLOCK {
            return None;
        }
        let memory = self.memory(block)?;
        (memory.start % BLOCK == 0 && memory.size >= BLOCK).then_some(memory.start)
    }

    /// Maps the page that was touched, and those around it in the same table.
    fn insert_pages(&self) -> vm_fault_t {
        let page = self.address - self.address % PAGE_SIZE as u64;
        let outcome = self.insert_page(page);
        if outcome != kernel::bindings::vm_fault_reason_VM_FAULT_NOPAGE {
            return outcome;
        }
        let first = self.block().max(self.start);
        let end = self.end.min(self.block().saturating_add(BLOCK));
        for other in (first..end).step_by(PAGE_SIZE) {
            // What can't be mapped ahead is when it is touched.
            if self.insert_page(other) != kernel::bindings::vm_fault_reason_VM_FAULT_NOPAGE {
                break;
            }
        }
        outcome
    }

    fn insert_page(&self, address: u64) -> vm_fault_t {
        let Some(memory) = self.memory(address) else {
            return kernel::bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        };
        // SAFETY: The address is in the area, which is held during a fault, and the memory behind it
        // outlives it. CAST: The address came from there.
        unsafe { bindings::ringfence_insert_frame(self.area, address as usize, memory.start) }
    }
}

/// # Safety
///
/// Called by the kernel only, for a fault in an area that [`prepare`] has set up.
unsafe extern "C" fn fault(fault: *mut vm_fault) -> vm_fault_t {
    // SAFETY: By the function's contract.
    unsafe { Place::of(fault) }.insert_pages()
}

/// # Safety
///
/// Called by the kernel only, for a fault in an area that [`prepare`] has set up, where an entry of
/// this order would fit.
unsafe extern "C" fn huge_fault(fault: *mut vm_fault, order: c_uint) -> vm_fault_t {
    // SAFETY: By the function's contract.
    let place = unsafe { Place::of(fault) };
    match place.block_memory() {
        Some(memory) if (PAGE_SIZE as u64) << order == BLOCK => {
            // SAFETY: The block lies in the area, and the memory behind it outlives it.
            unsafe { bindings::ringfence_insert_block(place.raw, memory) }
        }
        _ => kernel::bindings::vm_fault_reason_VM_FAULT_FALLBACK,
    }
}
