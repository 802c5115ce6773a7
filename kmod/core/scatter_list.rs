// SPDX-License-Identifier: GPL-2.0

//! The pages of a buffer, as one device sees them.

use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    ptr, //
};

use crate::{
    attachment::Direction,
    bindings,
    inject,
    pages::Run, //
};
use kernel::{
    bindings::{
        scatterlist,
        sg_table, //
    },
    device::Device,
    error::to_result,
    page::PAGE_SHIFT,
    prelude::*,
    types::Opaque, //
};

/// The longest entry of a scatter list, in pages: its length in bytes is an
/// `unsigned int`, and every entry should start at a well aligned address.
const MAX_ENTRY: usize = 0x8000_0000 >> PAGE_SHIFT;

/// Who is about to use the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The CPU: it must see what devices have written.
    Cpu,
    /// Devices: they must see what the CPU has written.
    Device,
}

/// Pages as a scatter list, which may be mapped for the device.
///
/// The entries are an array in one piece, so that the nth is found at once; a
/// reader that follows `sg_next` does not see the difference.
///
/// # Invariants
///
/// - `table` describes `more`, or `one` if that is empty. Their CPU side never
///   changes, and they stay where they are.
/// - While `mapped` is a direction the list is mapped that way for the device.
pub(crate) struct ScatterList {
    table: Opaque<sg_table>,
    one: UnsafeCell<scatterlist>,
    more: KVVec<scatterlist>,
    mapped: Cell<Option<Direction>>,
}

/// Cuts a run into the lengths of entries, in pages.
fn lengths(run: &Run) -> impl Iterator<Item = (usize, usize)> {
    let pages = run.pages();
    (0..pages)
        .step_by(MAX_ENTRY)
        .map(move |first| (first, (pages - first).min(MAX_ENTRY)))
}

impl ScatterList {
    /// Makes a list of all pages, which is not mapped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(runs: &[Run]) -> Result<KBox<Self>> {
        let count = runs
            .iter()
            .map(|run| run.pages().div_ceil(MAX_ENTRY))
            .sum::<usize>();
        let nents = u32::try_from(count).map_err(|_| ENOMEM)?;
        let mut more = KVVec::<scatterlist>::new();
        if count > 1 {
            more.reserve(count, GFP_KERNEL)?;
        }
        let mut this = KBox::new(
            Self {
                table: Opaque::zeroed(),
                one: UnsafeCell::new(pin_init::zeroed()),
                more,
                mapped: Cell::new(None),
            },
            GFP_KERNEL,
        )?;
        let entries = if count > 1 {
            this.more.as_mut_ptr()
        } else {
            this.one.get()
        };
        // SAFETY: There is room for so many entries, all of which this initialises.
        unsafe {
            kernel::bindings::sg_init_table(entries, nents);
            if count > 1 {
                this.more.inc_len(count);
            }
        }
        let parts = runs
            .iter()
            .flat_map(|run| lengths(run).map(move |part| (run, part)));
        for (index, (run, (first, pages))) in parts.enumerate() {
            // SAFETY: There are as many parts as entries, and a part is inside of its run. This is
            // what `sg_set_page` does.
            // CAST: The low bits are free in a page's address and hold what `sg_init_table` put there;
            // a part has no more than `MAX_ENTRY` pages.
            unsafe {
                let entry = entries.add(index);
                (*entry).page_link |= run.nth(first) as usize;
                (*entry).length = (pages << PAGE_SHIFT) as c_uint;
            }
        }
        let table = this.table.get();
        // SAFETY: The table is ours. INVARIANT: It describes the entries, which move neither with the
        // vector nor with the box.
        unsafe {
            (*table).sgl = entries;
            (*table).nents = nents;
            (*table).orig_nents = nents;
        }
        Ok(this)
    }

    fn entries(&self) -> &[scatterlist] {
        if self.more.is_empty() {
            // SAFETY: The entry is written to by the DMA layer only, when the list is mapped and
            // unmapped, which callers exclude.
            core::slice::from_ref(unsafe { &*self.one.get() })
        } else {
            &self.more
        }
    }

    /// The table that importers use.
    pub(crate) fn table(&self) -> *mut sg_table {
        self.table.get()
    }

    /// Maps the list for `device`.
    ///
    /// # Errors
    ///
    /// Those of the DMA layer.
    ///
    /// # Safety
    ///
    /// `device` must be that for which the list was made. The caller must hold what makes calls of
    /// this, [`Self::unmap`], [`Self::sync`] and [`Self::sync_range`] exclude each other. The list
    /// must be unmapped before it, or its pages, are freed.
    pub(crate) unsafe fn map(&self, device: &Device, direction: Direction) -> Result {
        inject::check(inject::Point::Map)?;
        // SAFETY: The device is live, and the table describes pages.
        to_result(unsafe {
            kernel::bindings::dma_map_sgtable(raw(device), self.table(), direction.0, 0)
        })?;
        // INVARIANT: It was mapped just now.
        self.mapped.set(Some(direction));
        Ok(())
    }

    /// Undoes [`Self::map`].
    ///
    /// # Safety
    ///
    /// As for [`Self::map`], which must have succeeded with these arguments.
    pub(crate) unsafe fn unmap(&self, device: &Device, direction: Direction) {
        self.mapped.set(None);
        // SAFETY: By the function's contract the list is mapped that way.
        unsafe {
            kernel::bindings::dma_unmap_sgtable(raw(device), self.table(), direction.0, 0);
        }
    }

    /// The direction in which the list, if it is mapped, is to be synced when the CPU accesses the
    /// memory in the direction `wanted`: a device that only reads or only writes needs no more than
    /// that.
    fn sync_direction(&self, wanted: Direction) -> Option<Direction> {
        let mapped = self.mapped.get()?;
        Some(if mapped == Direction::BOTH {
            wanted
        } else {
            mapped
        })
    }

    /// Makes the memory ready for whoever uses it next, unless it is not mapped.
    ///
    /// # Safety
    ///
    /// As for [`Self::map`].
    pub(crate) unsafe fn sync(&self, device: &Device, direction: Direction, turn: Turn) {
        let Some(direction) = self.sync_direction(direction) else {
            return;
        };
        // SAFETY: By the type invariants the list is mapped, for `device`.
        unsafe {
            match turn {
                Turn::Cpu => {
                    bindings::ringfence_sync_table_for_cpu(raw(device), self.table(), direction.0)
                }
                Turn::Device => bindings::ringfence_sync_table_for_device(
                    raw(device),
                    self.table(),
                    direction.0,
                ),
            }
        }
    }

    /// Does the same for `length` bytes from `offset` on, as far as the list goes.
    ///
    /// # Safety
    ///
    /// As for [`Self::map`].
    pub(crate) unsafe fn sync_range(
        &self,
        device: &Device,
        mut offset: usize,
        mut length: usize,
        direction: Direction,
        turn: Turn,
    ) {
        let Some(direction) = self.sync_direction(direction) else {
            return;
        };
        let Some((mut index, start)) = self.entry_at(offset) else {
            return;
        };
        let mut inside = offset - start;
        while length > 0 {
            let Some(entry) = self.entries().get(index) else {
                return;
            };
            // CAST: To the same size or wider.
            let mut left = (entry.length as usize - inside).min(length);
            // An IOMMU may have cut the addresses elsewhere than between entries.
            while left > 0 {
                let Some((address, room)) = self.address_at(index, inside, offset) else {
                    return;
                };
                let part = left.min(room);
                // SAFETY: By the type invariants the list is mapped, for `device`, and the part is
                // within one entry of it and one piece of the device's addresses.
                unsafe {
                    match turn {
                        Turn::Cpu => bindings::ringfence_sync_for_cpu(
                            raw(device),
                            address,
                            part,
                            direction.0,
                        ),
                        Turn::Device => bindings::ringfence_sync_for_device(
                            raw(device),
                            address,
                            part,
                            direction.0,
                        ),
                    }
                }
                inside += part;
                offset += part;
                length -= part;
                left -= part;
            }
            index += 1;
            inside = 0;
        }
    }

    /// The entry in which byte `offset` lies, and the offset at which the entry begins.
    fn entry_at(&self, offset: usize) -> Option<(usize, usize)> {
        let mut start = 0;
        for (index, entry) in self.entries().iter().enumerate() {
            // CAST: To the same size or wider.
            let length = entry.length as usize;
            if offset - start < length {
                return Some((index, start));
            }
            start += length;
        }
        None
    }

    /// The device's address of byte `inside` of the entry, which is byte `offset` of the list, and
    /// how many bytes follow there without a gap.
    fn address_at(&self, index: usize, inside: usize, offset: usize) -> Option<(u64, usize)> {
        // SAFETY: The table is ours.
        let (nents, orig_nents) = unsafe { ((*self.table()).nents, (*self.table()).orig_nents) };
        let piece = |entry: &scatterlist| {
            let entry = ptr::from_ref(entry).cast_mut();
            // SAFETY: It is an entry of our mapped list.
            unsafe {
                (
                    kernel::bindings::sg_dma_address(entry),
                    kernel::bindings::sg_dma_len(entry) as usize,
                )
            }
        };
        if nents == orig_nents {
            let (address, length) = piece(self.entries().get(index)?);
            return Some((address + inside as u64, length.checked_sub(inside)?));
        }
        // An IOMMU has joined entries: go by its pieces from the start.
        let mut start = 0;
        for entry in self.entries().iter().take(nents as usize) {
            let (address, length) = piece(entry);
            if offset - start < length {
                let within = offset - start;
                return Some((address + within as u64, length - within));
            }
            start += length;
        }
        None
    }
}

/// The device as C sees it.
fn raw(device: &Device) -> *mut kernel::bindings::device {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    ptr::from_ref(device).cast_mut().cast()
}
