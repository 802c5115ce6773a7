// SPDX-License-Identifier: GPL-2.0

//! Reserved memory that Linux does not map.

use crate::{
    attachment::{
        CpuView,
        PhysRange, //
    },
    bindings,
    firmware_node::Node,
    region_mapping::RegionMapping,
    task, //
};
use kernel::{
    bindings::resource,
    device::{
        property::FwNode,
        Device, //
    },
    error::to_result,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            mb,
            Write, //
        }, //
    }, //
};

/// Bytes that are mapped at a time for zeroing: one block mapping.
pub const WINDOW: u64 = 0x20_0000;

/// Why a device's `memory-region` can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionError {
    /// There is no `memory-region`, or the kernel did not reserve what it points
    /// to (an empty region, for one).
    Missing,
    /// The region is not marked `no-map`.
    Mapped,
    /// The region is marked `reusable`: the page allocator uses it.
    Reusable,
    /// The region is empty, or does not begin and end on pages.
    Misaligned,
    /// Somebody else uses the region, or a part of it.
    Busy,
    /// No memory for the description.
    NoMemory,
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no memory-region that was reserved at boot",
            Self::Mapped => "the memory-region is not no-map",
            Self::Reusable => "the memory-region is reusable",
            Self::Misaligned => "the memory-region is empty or does not lie on pages",
            Self::Busy => "the memory-region, or a part of it, is in use",
            Self::NoMemory => "out of memory",
        })
    }
}

impl From<RegionError> for Error {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Busy => EBUSY,
            RegionError::NoMemory => ENOMEM,
            _ => EINVAL,
        }
    }
}

/// A `no-map` region that belongs to its owner alone.
///
/// # Invariants
///
/// - The kernel has no mapping of the range, and does not use it, but through its
///   owner.
/// - The range is requested as a memory resource, under `name`.
/// - `start` and `size` are multiples of the page size.
/// - Unless `caches_used`, there was no cached mapping of any of it.
pub struct Region {
    node: Node,
    name: CString,
    range: PhysRange,
    caches_used: Atomic<bool>,
}

impl Region {
    /// Claims the region to which `memory-region` of `device` points.
    ///
    /// # Errors
    ///
    /// See [`RegionError`].
    pub fn claim(device: &Device) -> Result<Self, RegionError> {
        let node = region_node(device).ok_or(RegionError::Missing)?;
        if node.property_read_bool(c"reusable") {
            return Err(RegionError::Reusable);
        }
        if !node.property_read_bool(c"no-map") {
            return Err(RegionError::Mapped);
        }
        let range = resource_of(device)?;
        let page = PAGE_SIZE as u64;
        if range.size == 0 || range.start % page != 0 || range.size % page != 0 {
            return Err(RegionError::Misaligned);
        }
        let last = range.start + (range.size - page);
        // The property says no-map; what counts is what the kernel made of it.
        if is_mapped(range.start) || is_mapped(last) {
            return Err(RegionError::Mapped);
        }
        let name = base_name(&node).ok_or(RegionError::NoMemory)?;
        // SAFETY: Nothing but bookkeeping. The name lives until the region is released.
        if !unsafe {
            bindings::ringfence_request_mem_region(range.start, range.size, name.as_char_ptr())
        } {
            return Err(RegionError::Busy);
        }
        // INVARIANT: Checked and requested above.
        Ok(Self {
            node,
            name,
            range,
            caches_used: Atomic::new(false),
        })
    }

    /// Tells whether `memory-region` of `device` points to this region.
    pub fn is_of(&self, device: &Device) -> bool {
        region_node(device).is_some_and(|node| node == self.node)
    }

    /// The region node's name, without its unit address.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// The physical range.
    pub fn range(&self) -> PhysRange {
        self.range
    }

    /// Tells whether `part` is some pages of the region.
    pub(crate) fn has_pages(&self, part: PhysRange) -> bool {
        let page = PAGE_SIZE as u64;
        let end = part.start.checked_add(part.size);
        part.size != 0
            && part.start % page == 0
            && part.size % page == 0
            && part.start >= self.range.start
            && end.is_some_and(|end| end <= self.range.start + self.range.size)
    }

    /// Takes note that the region is mapped for the CPU with its caches.
    pub(crate) fn use_caches(&self) {
        self.caches_used.store(true, Relaxed);
    }

    /// Zeroes a part of the region through temporary mappings, as the CPU sees the
    /// region.
    ///
    /// What the CPU does not see is written to around its caches, so that no line of
    /// the range stays behind in them. What it does see may have dirty lines there,
    /// which would overwrite such zeros when they leave. So that is zeroed in the
    /// caches, and written back from them.
    ///
    /// The memory must not be protected at the time: the CPU refuses the access, and
    /// that is the kernel's end.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `range` is not in the region or does not lie on pages;
    /// `EINTR` when a fatal signal is pending; `ENOMEM`.
    pub fn scrub(&self, range: PhysRange, view: CpuView) -> Result {
        if range.size != 0 && !self.has_pages(range) {
            return Err(EINVAL);
        }
        for window in windows(range) {
            task::pause()?;
            // SAFETY: The window is in the region, which by the type invariants is the owner's alone.
            unsafe {
                match view {
                    CpuView::Nothing => zero(window)?,
                    CpuView::Cached => {
                        self.use_caches();
                        RegionMapping::new(&[window])?.zero();
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.caches_used.load(Relaxed) {
            // The next owner may go around the caches.
            for window in windows(self.range) {
                // SAFETY: As in `scrub`.
                match unsafe { RegionMapping::new(&[window]) } {
                    Ok(mapping) => mapping.write_back(),
                    Err(_) => pr_warn!(
                        "{}: no memory to empty the caches, at {:#x}\n",
                        &*self.name,
                        window.start
                    ),
                }
            }
        }
        // SAFETY: By the type invariants the range is requested.
        unsafe { bindings::ringfence_release_mem_region(self.range.start, self.range.size) };
    }
}

fn is_mapped(address: u64) -> bool {
    // SAFETY: Any address may be asked for.
    unsafe { bindings::ringfence_is_mapped_memory(address) }
}

fn region_node(device: &Device) -> Option<Node> {
    Node::referenced_by(device.fwnode()?, c"memory-region", 0).ok()
}

fn resource_of(device: &Device) -> Result<PhysRange, RegionError> {
    // CAST: `Device` is a transparent wrapper of `struct device`.
    let raw = core::ptr::from_ref(device).cast::<kernel::bindings::device>();
    let mut resource: resource = pin_init::zeroed();
    // SAFETY: The device is live, and so is its node; `resource` is filled on success.
    to_result(unsafe {
        bindings::of_reserved_mem_region_to_resource((*raw).of_node, 0, &mut resource)
    })
    .map_err(|_| RegionError::Missing)?;
    // An empty region ends before it begins.
    let size = resource.end.wrapping_sub(resource.start).wrapping_add(1);
    Ok(PhysRange {
        start: resource.start,
        size,
    })
}

fn base_name(node: &FwNode) -> Option<CString> {
    let full = CString::try_from_fmt(fmt!("{}", node.display_name())).ok()?;
    let text = full.to_str().ok()?;
    let base = text.split('@').next().unwrap_or(text);
    CString::try_from_fmt(fmt!("{}", base)).ok()
}

/// The first part of a range, up to the next multiple of [`WINDOW`].
pub fn first_window(range: PhysRange) -> PhysRange {
    PhysRange {
        start: range.start,
        size: range.size.min(WINDOW - range.start % WINDOW),
    }
}

/// Cuts a range at every multiple of [`WINDOW`].
fn windows(range: PhysRange) -> impl Iterator<Item = PhysRange> {
    let mut left = range;
    core::iter::from_fn(move || {
        (left.size > 0).then(|| {
            let window = first_window(left);
            left.start += window.size;
            left.size -= window.size;
            window
        })
    })
}

/// # Safety
///
/// The range must be memory without a mapping, of which the caller is the only user.
unsafe fn zero(range: PhysRange) -> Result {
    // CAST: A window is small.
    let size = range.size as usize;
    // SAFETY: By the function's contract, a second mapping can't exist or be used.
    let address = unsafe {
        kernel::bindings::memremap(range.start, size, kernel::bindings::MEMREMAP_WC as c_ulong)
    };
    if address.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The mapping has `size` bytes, and nobody else knows it.
    unsafe { core::ptr::write_bytes(address.cast::<u8>(), 0, size) };
    // The zeros are in memory before anybody, also a device, writes over them.
    mb(Write);
    // SAFETY: The mapping was made above, and is not used any more.
    unsafe { kernel::bindings::memunmap(address) };
    Ok(())
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_reserved_mem)]
mod tests {
    use super::*;

    fn sizes(start: u64, size: u64) -> [u64; 4] {
        let mut sizes = [0; 4];
        for (slot, window) in sizes.iter_mut().zip(windows(PhysRange { start, size })) {
            *slot = window.size;
        }
        sizes
    }

    #[test]
    fn windows_lie_within_blocks() {
        assert_eq!(sizes(WINDOW, WINDOW), [WINDOW, 0, 0, 0]);
        assert_eq!(sizes(WINDOW - 0x1000, 0x2000), [0x1000, 0x1000, 0, 0]);
        assert_eq!(
            sizes(0x1000, 2 * WINDOW),
            [WINDOW - 0x1000, WINDOW, 0x1000, 0]
        );
    }

    #[test]
    fn the_last_window_of_the_address_space_ends_with_it() {
        let last = PhysRange {
            start: u64::MAX - 0xfff,
            size: 0xfff,
        };
        assert_eq!(first_window(last).size, last.size);
    }

    #[test]
    fn an_empty_range_has_no_window() {
        assert_eq!(sizes(0x1000, 0), [0; 4]);
    }
}
