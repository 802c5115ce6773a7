// SPDX-License-Identifier: GPL-2.0

//! A region of reserved memory as the backend of a heap.

use kernel::{
    device::Device,
    new_mutex,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock,
        SpinLockGuard, //
    },
    time::Msecs, //
};
use ringfence_core::{
    attachment::{
        CpuView,
        PhysRange, //
    },
    dma_buf::{
        self,
        DmaBuf, //
    },
    registry::{
        self,
        Abilities,
        Backend,
        Heap,
        HeapInfo,
        RangeLine,
        Request,
        Retry, //
    },
    reserved_mem::Region, //
};
use ringfence_range_alloc::{
    AllocError,
    Geometry,
    Group,
    Placement,
    RangeAllocator,
    Record,
    MAX_ALIGN, //
};

use crate::{
    buffer::Buffer,
    command::Protection as Unit,
    devicetree::{
        Protection,
        Settings, //
    },
    open,
    ranges::{
        NodeReservation,
        Ranges,
        Wish, //
    },
    region,
    reservation::Reservation,
    scrubber,
    secure_world::{
        Refusal,
        SecureWorld, //
    }, //
};

/// Ranges that can be allocated at once, at most: it bounds the memory for their
/// records.
const MAX_LIVE: u64 = 1 << 14;

/// Ranges that are listed under one hold of the lock.
const LINES_AT_ONCE: usize = 32;

/// A carveout.
#[pin_data]
pub(crate) struct Carveout {
    region: Arc<Region>,
    heap: Arc<Heap>,
    settings: Settings,
    /// Unit of allocation in bytes, to which starts and sizes are aligned.
    granule: u64,
    /// Of a protected carveout.
    secure_world: Option<Arc<SecureWorld>>,
    bound: Atomic<bool>,
    /// Held while a window of a dirty range is zeroed, and while dirty memory is
    /// taken: nobody takes what is being zeroed for nobody.
    #[pin]
    scrubbing: Mutex<()>,
    #[pin]
    ranges: SpinLock<Ranges>,
}

impl Carveout {
    /// Makes an empty carveout out of `region`, of which all memory is dirty unless
    /// it is `clean`, or will be zeroed by the secure world anyhow.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the region can't be divided as the settings want, with the
    /// reason in the log; `ENOMEM`.
    pub(crate) fn new(
        device: &Device,
        region: Region,
        settings: Settings,
        firewall_granule: u64,
        secure_world: Option<Arc<SecureWorld>>,
        clean: bool,
    ) -> Result<Arc<Self>> {
        // Inside a region that is fenced as a whole the firewall draws no lines.
        let firewall_granule = match &settings.protection {
            Some(protection) if protection.unit == Unit::Region => 0,
            _ => firewall_granule,
        };
        let granule = settings
            .alignment
            .max(settings.chunk.unwrap_or(0))
            .max(firewall_granule)
            .max(PAGE_SIZE as u64);
        let PhysRange { start, size } = region.range();
        let geometry = Geometry {
            base: start,
            size,
            granule,
        };
        // CAST: The bound is small.
        let max_live = (size / granule).clamp(1, MAX_LIVE) as usize;
        let explain = |error| {
            dev_err!(
                device,
                "{:#x} bytes at {:#x} can't be divided into units of {:#x}: {:?}\n",
                size,
                start,
                granule,
                error
            );
            EINVAL
        };
        let needed = geometry.metadata_size(max_live).map_err(explain)?;
        let records = KVVec::from_elem(Record::default(), needed.records, GFP_KERNEL)?;
        let groups = KVVec::from_elem(Group::default(), needed.groups, GFP_KERNEL)?;
        let allocator =
            RangeAllocator::new(geometry, max_live, records, groups).map_err(explain)?;
        let mut ranges = Ranges::new(region.range(), granule, allocator, max_live)?;
        match &settings.protection {
            None if !clean => ranges.soil_all()?,
            Some(protection) if protection.unit == Unit::Region => ranges.fence_as_a_whole(),
            _ => {}
        }

        let heap = Heap::named(region.name())?;
        let region = Arc::new(region, GFP_KERNEL)?;
        Arc::pin_init(
            try_pin_init!(Self {
                region,
                heap,
                settings,
                granule,
                secure_world,
                bound: Atomic::new(false),
                scrubbing <- new_mutex!(()),
                ranges <- new_spinlock!(ranges),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn protection(&self) -> Option<&Protection> {
        self.settings.protection.as_ref()
    }

    pub(crate) fn is_protected(&self) -> bool {
        self.settings.protection.is_some()
    }

    /// Whether it is fenced as a whole, as long as a buffer lives in it.
    pub(crate) fn is_fenced_as_a_whole(&self) -> bool {
        self.protection()
            .is_some_and(|protection| protection.unit == Unit::Region)
    }

    pub(crate) fn range(&self) -> PhysRange {
        self.region.range()
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(crate) fn contains(&self, start: u64, size: u64) -> bool {
        let own = self.region.range();
        start >= own.start
            && start
                .checked_add(size)
                .is_some_and(|end| end <= own.start + own.size)
    }

    pub(crate) fn is_region_of(&self, device: &Device) -> bool {
        self.region.is_of(device)
    }

    /// Whether nothing is allocated.
    pub(crate) fn is_idle(&self) -> bool {
        self.ranges.lock().is_idle()
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.bound.load(Relaxed)
    }

    /// Lets one heap device use the carveout.
    ///
    /// # Errors
    ///
    /// `EBUSY` while another does.
    pub(crate) fn bind(this: &Arc<Self>) -> Result<Binding> {
        if this.bound.xchg(true, Full) {
            return Err(EBUSY);
        }
        Ok(Binding {
            carveout: this.clone(),
        })
    }

    /// The lock of what changes, for the scrubber.
    pub(crate) fn ranges(&self) -> &SpinLock<Ranges> {
        &self.ranges
    }

    /// What changes, locked, with a node for one more range.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn ranges_for_one_more(&self) -> Result<SpinLockGuard<'_, Ranges>> {
        let mut ranges = self.ranges.lock();
        if !ranges.has_spare() {
            drop(ranges);
            // Memory comes before the lock.
            let node = NodeReservation::new(GFP_KERNEL)?;
            ranges = self.ranges.lock();
            // There is no room when others have brought more than there was before.
            drop(ranges.keep(node));
        }
        Ok(ranges)
    }

    /// The lock of dirty ranges, for the scrubber.
    pub(crate) fn scrubbing(&self) -> &Mutex<()> {
        &self.scrubbing
    }

    /// What holds for every buffer.
    fn properties(&self) -> u32 {
        let mut properties = 0;
        if self.settings.chunk.is_none() {
            properties |= registry::CONTIGUOUS;
        }
        if self.settings.cpu_access {
            properties |= registry::CPU_ACCESS;
        }
        if self.is_protected() {
            properties |= registry::PROTECTED;
        }
        properties
    }

    fn wish(&self, request: &Request) -> Wish {
        Wish {
            // CAST: Widening.
            size: request.size as u64,
            alignment: request.alignment.max(self.granule),
            placement: if request.top_down {
                Placement::Top
            } else {
                Placement::Bottom
            },
        }
    }

    /// Zeroes a range that is nobody's else: one that is open, or one behind the
    /// fence of a region, which the secure world zeroes.
    pub(crate) fn zero(&self, range: PhysRange) -> Result {
        if let Some(secure_world) = &self.secure_world {
            return secure_world.scrub(range);
        }
        let view = if self.settings.cpu_access {
            CpuView::Cached
        } else {
            CpuView::Nothing
        };
        self.region.scrub(range, view)
    }
}

/// A heap device's use of its carveout, until it is dropped.
pub(crate) struct Binding {
    carveout: Arc<Carveout>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.carveout.bound.store(false, Relaxed);
        // The heap is offline already: nobody would come back to it.
        if let Some(secure_world) = &self.carveout.secure_world {
            if self.carveout.is_fenced_as_a_whole() {
                region::open_idle(&self.carveout, secure_world, true);
            }
        }
    }
}

/// Whose fault it is, as an error number.
pub(crate) fn errno(error: AllocError) -> Error {
    match error {
        AllocError::NoSpace | AllocError::NoRecord => ENOMEM,
        // Larger than the region.
        AllocError::OutOfBounds => ENOMEM,
        AllocError::Occupied => EBUSY,
        _ => EINVAL,
    }
}

/// How often an allocation is tried over when the trusted application is
/// restarted under it.
const TRIES: usize = 2;

#[vtable]
impl Backend for Carveout {
    fn allocate(this: &Arc<Self>, request: &Request) -> Result<DmaBuf> {
        let wish = this.wish(request);
        let buffer = match &this.secure_world {
            None => return open::allocate(this, request, wish),
            Some(secure_world) if this.is_fenced_as_a_whole() => {
                region::allocate(this, secure_world, wish, request.no_wait)?
            }
            Some(secure_world) => protected(this, secure_world, wish)?,
        };
        let buffer = KBox::new(buffer, GFP_KERNEL)?;
        dma_buf::export(&this.heap, buffer, request.size, request.fd_flags)
    }

    fn info(&self) -> HeapInfo {
        let figures = self.ranges.lock().figures();
        let online = self
            .secure_world
            .as_ref()
            .is_none_or(|secure_world| secure_world.is_online());
        let mut flags = self.properties();
        if self.is_fenced_as_a_whole() {
            flags |= registry::WHOLE_REGION;
        }
        if online {
            flags |= registry::ONLINE;
        }
        HeapInfo {
            flags,
            size: figures.size,
            free: figures.clean + figures.dirty,
            clean: figures.clean,
            dirty: figures.dirty,
            largest_free: figures.largest_free,
            quarantined: figures.kept_back,
            protected_bytes: figures.fenced,
            buffers: figures.buffers,
            use_case: self
                .protection()
                .map_or(0, |protection| protection.use_case.raw()),
            // CAST: At most 1 GiB.
            alignment: self.granule as u32,
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            properties: self.properties(),
            granule: self.granule,
            max_alignment: match self.settings.chunk {
                Some(_) => self.granule,
                None => MAX_ALIGN,
            },
            top_down: true,
            // The secure world zeroes what it fences.
            no_wait: !self.is_protected(),
        }
    }

    fn ranges(&self) -> Result<KVVec<RangeLine>> {
        let mut lines = KVVec::new();
        let mut next = 0;
        loop {
            // Memory comes before the lock, and the lock is held for a few ranges at a time.
            lines.reserve(LINES_AT_ONCE, GFP_KERNEL)?;
            let ranges = self.ranges.lock();
            for _ in 0..LINES_AT_ONCE {
                let Some(line) = ranges.line_from(next) else {
                    return Ok(lines);
                };
                next = line.start + line.size;
                lines.push_within_capacity(line).map_err(|_| ENOMEM)?;
            }
        }
    }

    fn retry(this: &Arc<Self>, why: Retry) {
        if let Some(secure_world) = &this.secure_world {
            if this.is_fenced_as_a_whole() {
                region::open_idle(this, secure_world, why == Retry::Request);
            }
            secure_world.retry(this, why);
        }
    }

    fn background(&self) -> Option<Msecs> {
        scrubber::work(self)
    }
}

fn protected(
    carveout: &Arc<Carveout>,
    secure_world: &Arc<SecureWorld>,
    wish: Wish,
) -> Result<Buffer> {
    for _ in 0..TRIES {
        let reservation = Reservation::clean(carveout, wish)?.ok_or(ENOMEM)?;
        match SecureWorld::protect(secure_world, reservation) {
            Ok(fence) => return Ok(Buffer::fenced(carveout.clone(), fence, wish.size)),
            // The range was settled; there may be a better one by now.
            Err(Refusal::Restarted) => {}
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    Err(EIO)
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_carveout_errors)]
mod tests {
    use super::*;

    #[test]
    fn running_out_is_not_the_callers_fault() {
        assert_eq!(errno(AllocError::NoSpace), ENOMEM);
        assert_eq!(errno(AllocError::NoRecord), ENOMEM);
        assert_eq!(errno(AllocError::OutOfBounds), ENOMEM);
        assert_eq!(errno(AllocError::ZeroSize), EINVAL);
    }
}
