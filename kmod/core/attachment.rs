// SPDX-License-Identifier: GPL-2.0

//! Contiguous memory without pages, mapped for a device.
//!
//! Memory that Linux does not map has no usable `struct page`, so a scatter
//! list of pages can't describe it: bounce buffering would follow the page into
//! a linear mapping that does not exist. Instead the physical range is mapped as
//! such, and the scatter list has DMA addresses only. Several ranges follow each
//! other in the addresses of an IOMMU; a device without one can't have them.

use crate::{
    bindings,
    inject,
    registry::Heap, //
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

/// How the CPU sees memory that devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuView {
    /// Not at all.
    Nothing,
    /// Through cached mappings. Whoever makes these keeps them in step with devices.
    Cached,
}

impl CpuView {
    /// With `DMA_ATTR_SKIP_CPU_SYNC` the DMA layer does not look for a linear
    /// mapping. `DMA_ATTR_MMIO` rules out bouncing, but makes an IOMMU treat the
    /// memory as a device's, which a cached mapping must not meet.
    fn attributes(self) -> usize {
        let attributes = match self {
            Self::Nothing => bindings::DMA_ATTR_MMIO | bindings::DMA_ATTR_SKIP_CPU_SYNC,
            Self::Cached => bindings::DMA_ATTR_SKIP_CPU_SYNC,
        };
        // CAST: Attributes are an `unsigned long` in C.
        attributes as usize
    }
}

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
    /// The device reads, and the CPU writes.
    pub const TO_DEVICE: Self = Self(dma_data_direction::DMA_TO_DEVICE);
    /// The device writes, and the CPU reads.
    pub const FROM_DEVICE: Self = Self(dma_data_direction::DMA_FROM_DEVICE);
    /// Both read and write.
    pub const BOTH: Self = Self(dma_data_direction::DMA_BIDIRECTIONAL);

    /// The way that data moves between devices and a CPU whose access has these
    /// `DMA_BUF_SYNC_*` flags; `None` when it neither reads nor writes.
    pub(crate) fn of_sync(flags: u32) -> Option<Self> {
        match flags & bindings::DMA_BUF_SYNC_RW {
            bindings::DMA_BUF_SYNC_READ => Some(Self::FROM_DEVICE),
            bindings::DMA_BUF_SYNC_WRITE => Some(Self::TO_DEVICE),
            bindings::DMA_BUF_SYNC_RW => Some(Self::BOTH),
            _ => None,
        }
    }
}

/// Splits `size` bytes into the lengths of scatter list entries.
fn entries(size: usize) -> impl Iterator<Item = usize> {
    (0..size)
        .step_by(MAX_ENTRY)
        .map(move |offset| (size - offset).min(MAX_ENTRY))
}

/// Tells whether a device can have memory that consists of several ranges: whether
/// its DMA goes through an IOMMU that the kernel's DMA layer programs.
pub fn can_gather(device: &Device) -> bool {
    // SAFETY: The device is live.
    unsafe { bindings::ringfence_dma_is_translated(raw(device)) }
}

/// Lets a device have memory of `heap` that consists of several ranges.
///
/// # Errors
///
/// `EOPNOTSUPP` when it [can't](can_gather), which is logged once.
pub fn admit_scattered(device: &Device, heap: &Heap) -> Result {
    if can_gather(device) {
        return Ok(());
    }
    kernel::do_once_lite! {
        dev_err!(
            device,
            "needs contiguous memory, and has no IOMMU: buffers of {} are scattered\n",
            heap.name()
        );
    }
    Err(EOPNOTSUPP)
}

/// Where a device finds memory.
#[derive(Clone, Copy)]
enum Place {
    /// One range, at this address.
    Single(u64),
    /// Several ranges, one behind the other in addresses that were taken for them.
    Gathered(bindings::dma_iova_state),
}

impl Place {
    fn address(&self) -> u64 {
        match self {
            Self::Single(address) => *address,
            Self::Gathered(state) => state.addr,
        }
    }

    /// Maps `parts`, `size` bytes together.
    fn map(
        device: &Device,
        parts: &[PhysRange],
        size: usize,
        direction: Direction,
        attributes: usize,
    ) -> Result<Self> {
        match parts {
            [] => Err(EINVAL),
            [part] => {
                // SAFETY: The device is live, and the direction came from an importer.
                let address = unsafe {
                    bindings::dma_map_phys(raw(device), part.start, size, direction.0, attributes)
                };
                // SAFETY: The device is live.
                if unsafe { bindings::ringfence_dma_mapping_error(raw(device), address) } != 0 {
                    return Err(EIO);
                }
                Ok(Self::Single(address))
            }
            [first, ..] => {
                let mut state = bindings::dma_iova_state::default();
                // SAFETY: The device is live, and the state is filled.
                if !unsafe {
                    bindings::ringfence_iova_alloc(raw(device), &mut state, first.start, size)
                } {
                    return Err(EIO);
                }
                let linked = Self::link(device, &mut state, parts, size, direction, attributes);
                if let Err((done, error)) = linked {
                    // SAFETY: So many bytes were linked that way.
                    unsafe {
                        bindings::ringfence_iova_destroy(
                            raw(device),
                            &mut state,
                            done,
                            direction.0,
                            attributes,
                        )
                    };
                    return Err(error);
                }
                Ok(Self::Gathered(state))
            }
        }
    }

    /// Links `parts` to the addresses of `state`; or fails, and answers how many
    /// bytes it has linked.
    fn link(
        device: &Device,
        state: &mut bindings::dma_iova_state,
        parts: &[PhysRange],
        size: usize,
        direction: Direction,
        attributes: usize,
    ) -> Result<(), (usize, Error)> {
        let mut done = 0;
        for part in parts {
            let length = usize::try_from(part.size).map_or(size - done, |all| all.min(size - done));
            // SAFETY: The device is live, and the state has room for `size` bytes.
            to_result(unsafe {
                bindings::ringfence_iova_link(
                    raw(device),
                    state,
                    part.start,
                    done,
                    length,
                    direction.0,
                    attributes,
                )
            })
            .map_err(|error| (done, error))?;
            done += length;
        }
        // SAFETY: All of it is linked.
        to_result(unsafe { bindings::ringfence_iova_sync(raw(device), state, size) })
            .map_err(|error| (done, error))
    }

    /// # Safety
    ///
    /// This must be what [`Self::map`] made with these arguments, and not be used any more.
    unsafe fn unmap(self, device: &Device, size: usize, direction: Direction, attributes: usize) {
        // SAFETY: By the function's contract.
        unsafe {
            match self {
                Self::Single(address) => {
                    bindings::dma_unmap_phys(raw(device), address, size, direction.0, attributes);
                }
                Self::Gathered(mut state) => bindings::ringfence_iova_destroy(
                    raw(device),
                    &mut state,
                    size,
                    direction.0,
                    attributes,
                ),
            }
        }
    }
}

/// Memory that is mapped for one device, until it is dropped.
///
/// # Invariants
///
/// - `table` is an initialised table with `count` entries, whose `orig_nents`
///   is 0: importers see no CPU side.
/// - The memory is mapped for `device` at `place`, with `size`, `direction` and the
///   attributes of `view`.
pub struct Mapping {
    table: Opaque<sg_table>,
    count: u32,
    device: ARef<Device>,
    place: Place,
    size: usize,
    direction: Direction,
    view: CpuView,
}

// SAFETY: The device and the table may be used, unmapped and freed from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `range`, which the CPU does not see, for `device`.
    ///
    /// # Errors
    ///
    /// As [`Self::of_parts`].
    pub fn new(device: &Device, range: PhysRange, direction: Direction) -> Result<KBox<Self>> {
        Self::of_parts(device, &[range], range.size, CpuView::Nothing, direction)
    }

    /// Maps the first `size` bytes of `parts` for `device`, one behind the other.
    ///
    /// # Errors
    ///
    /// `EIO` when the device can't reach the memory, be it that its DMA mask is too
    /// small, that its DMA is forced through bounce buffers, or that there are
    /// several parts and no IOMMU; `ENOMEM`.
    pub fn of_parts(
        device: &Device,
        parts: &[PhysRange],
        size: u64,
        view: CpuView,
        direction: Direction,
    ) -> Result<KBox<Self>> {
        inject::check(inject::Point::Map)?;
        let size = usize::try_from(size).map_err(|_| EINVAL)?;
        let count = u32::try_from(entries(size).count()).map_err(|_| EINVAL)?;
        let first = parts.first().ok_or(EINVAL)?;
        let is_cached = view == CpuView::Cached;
        // SAFETY: The device is live.
        let reaches =
            unsafe { bindings::ringfence_dma_reaches(raw(device), first.start, size, is_cached) };
        if !reaches || parts.len() > 1 && !can_gather(device) {
            return Err(EIO);
        }

        let slot = KBox::<Self>::new_uninit(GFP_KERNEL)?;
        let table = Opaque::new(pin_init::zeroed::<sg_table>());
        // SAFETY: `table` is a zeroed `struct sg_table`; a failure leaves nothing allocated.
        to_result(unsafe {
            kernel::bindings::sg_alloc_table(table.get(), count, kernel::bindings::GFP_KERNEL)
        })?;
        let place = Place::map(device, parts, size, direction, view.attributes()).inspect_err(
            // SAFETY: The table was allocated above, and nobody else knows it.
            |_| unsafe { kernel::bindings::sg_free_table(table.get()) },
        )?;

        // SAFETY: The table was allocated above.
        let mut entry = unsafe { (*table.get()).sgl };
        let mut next = place.address();
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

        // INVARIANT: The table is filled, and the memory is mapped as the fields say.
        Ok(slot.write(Self {
            table,
            count,
            device: device.into(),
            place,
            size,
            direction,
            view,
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
        // SAFETY: By the type invariants the memory is mapped like that, and the mapping is undone
        // once, here.
        unsafe {
            self.place.unmap(
                &self.device,
                self.size,
                self.direction,
                self.view.attributes(),
            );
        }
        // SAFETY: By the type invariants the table has so many entries, which `sg_free_table` is to
        // go by.
        unsafe {
            (*table).orig_nents = self.count;
            kernel::bindings::sg_free_table(table);
        }
    }
}

/// The device as C sees it.
fn raw(device: &Device) -> *mut kernel::bindings::device {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    core::ptr::from_ref(device).cast_mut().cast()
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
