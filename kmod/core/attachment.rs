// SPDX-License-Identifier: GPL-2.0

//! Contiguous memory without pages, mapped for a device.
//!
//! Memory that Linux does not map has no usable `struct page`, so a scatter
//! list of pages can't describe it: bounce buffering would follow the page into
//! a linear mapping that does not exist. Instead the physical range is mapped
//! with `DMA_ATTR_MMIO`, and the scatter list has DMA addresses only.

use core::ptr::NonNull;

use crate::{
    bindings,
    inject, //
};
use kernel::{
    bindings::{
        dma_data_direction,
        sg_table, //
    },
    device::Device,
    error::to_result,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// The longest entry of a scatter list, in bytes: its length is an `unsigned
/// int`, and every entry should start at a well aligned address.
const MAX_ENTRY: usize = 0x8000_0000;

/// `DMA_ATTR_MMIO`: no pages, no bouncing; `DMA_ATTR_SKIP_CPU_SYNC`: the CPU
/// has no cached mapping to keep in step with.
const ATTRIBUTES: usize = (bindings::DMA_ATTR_MMIO | bindings::DMA_ATTR_SKIP_CPU_SYNC) as usize;

/// A run of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysRange {
    /// Address of the first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// Which way the device moves data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Direction(pub(crate) dma_data_direction);

impl Direction {
    /// The way that data moves between devices and a CPU whose access has these
    /// `DMA_BUF_SYNC_*` flags; `None` when it neither reads nor writes.
    pub(crate) fn of_sync(flags: u32) -> Option<Self> {
        match flags & bindings::DMA_BUF_SYNC_RW {
            bindings::DMA_BUF_SYNC_READ => Some(Self(dma_data_direction::DMA_FROM_DEVICE)),
            bindings::DMA_BUF_SYNC_WRITE => Some(Self(dma_data_direction::DMA_TO_DEVICE)),
            bindings::DMA_BUF_SYNC_RW => Some(Self(dma_data_direction::DMA_BIDIRECTIONAL)),
            _ => None,
        }
    }
}

impl Direction {
    /// The device reads, and the CPU writes.
    pub const TO_DEVICE: Self = Self(dma_data_direction::DMA_TO_DEVICE);
    /// The device writes, and the CPU reads.
    pub const FROM_DEVICE: Self = Self(dma_data_direction::DMA_FROM_DEVICE);
    /// Both read and write.
    pub const BOTH: Self = Self(dma_data_direction::DMA_BIDIRECTIONAL);
}

/// Splits `size` bytes into the lengths of scatter list entries.
fn entries(size: usize) -> impl Iterator<Item = usize> {
    (0..size)
        .step_by(MAX_ENTRY)
        .map(move |offset| (size - offset).min(MAX_ENTRY))
}

/// A range that is mapped for one device, until it is dropped.
///
/// # Invariants
///
/// - `table` is an initialised table with `count` entries, whose `orig_nents`
///   is 0: importers see no CPU side.
/// - The range is mapped for `device` at the address of the first entry, with
///   `size`, `direction` and [`ATTRIBUTES`].
pub struct Mapping {
    table: Opaque<sg_table>,
    count: u32,
    device: ARef<Device>,
    size: usize,
    direction: Direction,
}

// SAFETY: The device and the table may be used, unmapped and freed from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `range` for `device`.
    ///
    /// # Errors
    ///
    /// `EIO` when the device can't reach the range, be it that its DMA mask is
    /// too small or that its DMA is forced through bounce buffers; `ENOMEM`.
    pub fn new(device: &Device, range: PhysRange, direction: Direction) -> Result<KBox<Self>> {
        inject::check(inject::Point::Map)?;
        let size = usize::try_from(range.size).map_err(|_| EINVAL)?;
        let count = u32::try_from(entries(size).count()).map_err(|_| EINVAL)?;
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let raw = core::ptr::from_ref(device)
            .cast::<kernel::bindings::device>()
            .cast_mut();

        // SAFETY: `raw` is a live device.
        if !unsafe { bindings::ringfence_dma_reaches(raw, range.start, size) } {
            return Err(EIO);
        }

        let slot = KBox::<Self>::new_uninit(GFP_KERNEL)?;
        let table = Opaque::new(pin_init::zeroed::<sg_table>());
        // SAFETY: `table` is a zeroed `struct sg_table`; a failure leaves nothing allocated.
        to_result(unsafe {
            kernel::bindings::sg_alloc_table(table.get(), count, kernel::bindings::GFP_KERNEL)
        })?;

        // SAFETY: `raw` is a live device, and the direction came from an importer.
        let address =
            unsafe { bindings::dma_map_phys(raw, range.start, size, direction.0, ATTRIBUTES) };
        // SAFETY: `raw` is a live device.
        if unsafe { bindings::ringfence_dma_mapping_error(raw, address) } != 0 {
            // SAFETY: The table was allocated above, and nobody else knows it.
            unsafe { kernel::bindings::sg_free_table(table.get()) };
            return Err(EIO);
        }

        // SAFETY: The table was allocated above.
        let mut entry = unsafe { (*table.get()).sgl };
        let mut next = address;
        for length in entries(size) {
            // SAFETY: The table has as many entries as the iterator has items. CAST: an entry is
            // never longer than `MAX_ENTRY`.
            unsafe { bindings::ringfence_sg_set_dma(entry, next, length as c_uint) };
            next += length as u64;
            // SAFETY: As above; behind the last entry this is null, and not used.
            entry = unsafe { kernel::bindings::sg_next(entry) };
        }
        // SAFETY: The table was allocated above.
        unsafe { (*table.get()).orig_nents = 0 };

        // INVARIANT: The table is filled, and the range is mapped as the fields say.
        Ok(slot.write(Self {
            table,
            count,
            device: device.into(),
            size,
            direction,
        }))
    }

    /// Hands the mapping over to the importer, as the table that it uses.
    pub(crate) fn into_table(this: KBox<Self>) -> *mut sg_table {
        let raw = KBox::into_raw(this);
        // SAFETY: `raw` is a live `Mapping`. `Opaque` is a transparent wrapper.
        unsafe { Opaque::cast_into(&raw const (*raw).table) }
    }

    /// Takes the mapping back from the importer.
    ///
    /// # Safety
    ///
    /// `table` must come from [`Self::into_table`], and not be used any more.
    pub(crate) unsafe fn from_table(table: *mut sg_table) -> KBox<Self> {
        let field = Opaque::cast_from(table);
        // SAFETY: By the function's contract `table` is the field of a `Mapping` from `into_table`.
        let raw = unsafe { kernel::container_of!(field, Self, table) };
        // SAFETY: As above, the allocation is ours again.
        unsafe { KBox::from_raw(raw.cast_mut()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let table = self.table.get();
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let device: *mut kernel::bindings::device = NonNull::from(&*self.device).as_ptr().cast();
        // SAFETY: By the type invariants the table has entries, the first one with the address of
        // the mapping, and the mapping is undone once, here.
        unsafe {
            let address = bindings::ringfence_sg_dma_address((*table).sgl);
            bindings::dma_unmap_phys(device, address, self.size, self.direction.0, ATTRIBUTES);
            // What `sg_free_table` goes by.
            (*table).orig_nents = self.count;
            kernel::bindings::sg_free_table(table);
        }
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_attachment)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_below_4_gib() {
        let size = 2 * MAX_ENTRY + 4096;
        assert_eq!(entries(size).count(), 3);
        assert_eq!(entries(size).sum::<usize>(), size);
        assert_eq!(entries(size).last(), Some(4096));
    }

    #[test]
    fn a_small_range_is_one_entry() {
        assert_eq!(entries(4096).count(), 1);
        assert_eq!(entries(MAX_ENTRY).count(), 1);
    }
}
