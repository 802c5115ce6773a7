// SPDX-License-Identifier: GPL-2.0

//! A region of reserved memory, its allocator, and who has which range.

use kernel::{
    device::Device,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};
use ringfence_core::{
    attachment::PhysRange,
    dma_buf::{
        self,
        DmaBuf, //
    },
    inject::{
        self,
        Point, //
    },
    registry::{
        self,
        Backend,
        Heap,
        HeapInfo,
        RangeLine,
        Request,
        Retry, //
    },
    reserved_mem::Region,
    task::Origin, //
};
use ringfence_range_alloc::{
    AllocError,
    Geometry,
    Group,
    Handle,
    Placement,
    RangeAllocator,
    Record,
    Request as RangeRequest, //
};

use crate::{
    buffer::Buffer,
    devicetree::{
        Protection,
        Settings, //
    },
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

/// How an allocated range stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeState {
    /// On its way to become a buffer.
    Preparing,
    /// A buffer, open to the normal world.
    Open,
    /// A buffer, fenced off.
    Protected,
    /// A buffer of which the secure world does not know any more.
    Lost,
    /// No buffer any more; it waits until the secure world opens it.
    Waiting,
    /// No buffer any more; the secure world could not open it.
    Quarantined,
}

impl RangeState {
    fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Open => "open",
            Self::Protected => "protected",
            Self::Lost => "lost",
            Self::Waiting => "waiting",
            Self::Quarantined => "quarantined",
        }
    }

    fn is_buffer(self) -> bool {
        matches!(self, Self::Open | Self::Protected | Self::Lost)
    }

    fn is_kept_back(self) -> bool {
        matches!(self, Self::Waiting | Self::Quarantined)
    }

    fn is_fenced(self) -> bool {
        matches!(self, Self::Protected | Self::Waiting | Self::Quarantined)
    }
}

/// An allocated range.
struct Tracked {
    handle: Handle,
    size: u64,
    state: RangeState,
    origin: Origin,
}

/// What changes, under one short lock.
struct Ranges {
    allocator: RangeAllocator<KVVec<Record>, KVVec<Group>>,
    /// By physical address.
    tracked: RBTree<u64, Tracked>,
    buffers: u32,
    kept_back: u64,
    fenced: u64,
}

impl Ranges {
    /// Counts `size` bytes in, or out of, what `state` counts as.
    fn count(&mut self, state: RangeState, size: u64, sign: Sign) {
        let apply = |total: u64, part: u64| match sign {
            Sign::Plus => total.saturating_add(part),
            Sign::Minus => total.saturating_sub(part),
        };
        if state.is_buffer() {
            // CAST: There are at most `MAX_LIVE` buffers.
            self.buffers = apply(self.buffers.into(), 1) as u32;
        }
        if state.is_kept_back() {
            self.kept_back = apply(self.kept_back, size);
        }
        if state.is_fenced() {
            self.fenced = apply(self.fenced, size);
        }
    }
}

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

/// A carveout.
#[pin_data]
pub(crate) struct Carveout {
    region: Region,
    heap: Arc<Heap>,
    settings: Settings,
    /// Unit of allocation in bytes, to which starts and sizes are aligned.
    granule: u64,
    /// Of a protected carveout.
    secure_world: Option<Arc<SecureWorld>>,
    bound: Atomic<bool>,
    #[pin]
    ranges: SpinLock<Ranges>,
}

impl Carveout {
    /// Makes an empty carveout out of `region`.
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
    ) -> Result<Arc<Self>> {
        let granule = settings
            .alignment
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

        let heap = Heap::named(region.name())?;
        Arc::pin_init(
            try_pin_init!(Self {
                region,
                heap,
                settings,
                granule,
                secure_world,
                bound: Atomic::new(false),
                ranges <- new_spinlock!(Ranges {
                    allocator,
                    tracked: RBTree::new(),
                    buffers: 0,
                    kept_back: 0,
                    fenced: 0,
                }),
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

    pub(crate) fn range(&self) -> PhysRange {
        self.region.range()
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
        self.ranges.lock().tracked.is_empty()
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

    fn remove(&self, start: u64) {
        let node = {
            let mut ranges = self.ranges.lock();
            if let Some(tracked) = ranges.tracked.get(&start) {
                let (handle, size, state) = (tracked.handle, tracked.size, tracked.state);
                ranges.count(state, size, Sign::Minus);
                if let Err(error) = ranges.allocator.free(handle) {
                    pr_err!("range {:#x} can't be freed: {:?}\n", start, error);
                }
            }
            ranges.tracked.remove_node(&start)
        };
        // Its memory is given back outside of the lock.
        drop(node);
    }
}

/// A heap device's use of its carveout, until it is dropped.
pub(crate) struct Binding {
    carveout: Arc<Carveout>,
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.carveout.bound.store(false, Relaxed);
    }
}

/// An allocated range, which is free again when this is dropped.
pub(crate) struct Reservation {
    carveout: Arc<Carveout>,
    range: PhysRange,
}

impl Reservation {
    /// Allocates `size` bytes, rounded up, for the current process.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when no free run fits.
    fn new(carveout: &Arc<Carveout>, size: u64) -> Result<Self> {
        Self::insert(
            carveout,
            Origin::current(),
            RangeState::Preparing,
            |ranges| {
                inject::check(Point::Range)?;
                let range = ranges
                    .allocator
                    .alloc(RangeRequest {
                        size,
                        align: carveout.granule,
                        placement: Placement::Bottom,
                    })
                    .map_err(errno)?;
                Ok((range.handle, range.start, range.size))
            },
        )
    }

    /// Takes a range that the secure world keeps fenced from an earlier life.
    ///
    /// # Errors
    ///
    /// `EBUSY` when it, or a part of it, is allocated.
    pub(crate) fn at(carveout: &Arc<Carveout>, start: u64, size: u64) -> Result<Self> {
        Self::insert(carveout, Origin::kernel(), RangeState::Waiting, |ranges| {
            let range = ranges.allocator.alloc_at(start, size).map_err(errno)?;
            Ok((range.handle, range.start, range.size))
        })
    }

    fn insert(
        carveout: &Arc<Carveout>,
        origin: Origin,
        state: RangeState,
        allocate: impl FnOnce(&mut Ranges) -> Result<(Handle, u64, u64)>,
    ) -> Result<Self> {
        inject::check(Point::Record)?;
        // Memory comes before the lock.
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut guard = carveout.ranges.lock();
        let ranges = &mut *guard;
        let (handle, start, size) = allocate(ranges)?;
        ranges.tracked.insert(node.into_node(
            start,
            Tracked {
                handle,
                size,
                state,
                origin,
            },
        ));
        ranges.count(state, size, Sign::Plus);
        drop(guard);
        Ok(Self {
            carveout: carveout.clone(),
            range: PhysRange { start, size },
        })
    }

    pub(crate) fn carveout(&self) -> &Arc<Carveout> {
        &self.carveout
    }

    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    /// Shows and counts the range as `state` from now on.
    pub(crate) fn set_state(&self, state: RangeState) {
        let mut guard = self.carveout.ranges.lock();
        let ranges = &mut *guard;
        let Some(tracked) = ranges.tracked.get_mut(&self.range.start) else {
            return;
        };
        let old = core::mem::replace(&mut tracked.state, state);
        ranges.count(old, self.range.size, Sign::Minus);
        ranges.count(state, self.range.size, Sign::Plus);
    }

    /// Zeroes the range, which must be open.
    fn scrub(&self) -> Result {
        self.carveout.region.scrub(self.range)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.carveout.remove(self.range.start);
    }
}

/// Whose fault it is, as an error number.
fn errno(error: AllocError) -> Error {
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
        let buffer = match &this.secure_world {
            Some(secure_world) => protected(this, secure_world, request.size as u64)?,
            None => open(this, request.size as u64)?,
        };
        let buffer = KBox::new(buffer, GFP_KERNEL)?;
        dma_buf::export(&this.heap, buffer, request.size, request.fd_flags)
    }

    fn info(&self) -> HeapInfo {
        let (stats, buffers, quarantined, protected_bytes) = {
            let ranges = self.ranges.lock();
            (
                ranges.allocator.stats(),
                ranges.buffers,
                ranges.kept_back,
                ranges.fenced,
            )
        };
        let online = self
            .secure_world
            .as_ref()
            .is_none_or(|secure_world| secure_world.is_online());
        let mut flags = registry::CONTIGUOUS;
        if self.is_protected() {
            flags |= registry::PROTECTED;
        }
        if online {
            flags |= registry::ONLINE;
        }
        HeapInfo {
            flags,
            size: stats.size,
            free: stats.free,
            largest_free: stats.largest_free,
            quarantined,
            protected_bytes,
            buffers,
            use_case: self
                .protection()
                .map_or(0, |protection| protection.use_case.raw()),
            // CAST: At most 1 GiB.
            alignment: self.granule as u32,
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
                let Some(cursor) = ranges.tracked.cursor_lower_bound(&next) else {
                    return Ok(lines);
                };
                let (&start, tracked) = cursor.current();
                let line = RangeLine {
                    start,
                    size: tracked.size,
                    state: tracked.state.name(),
                    origin: tracked.origin,
                };
                if lines.push_within_capacity(line).is_err() {
                    break;
                }
                next = start + tracked.size;
            }
        }
    }

    fn retry(this: &Arc<Self>, why: Retry) {
        if let Some(secure_world) = &this.secure_world {
            secure_world.retry(why);
        }
    }
}

fn open(carveout: &Arc<Carveout>, size: u64) -> Result<Buffer> {
    let reservation = Reservation::new(carveout, size)?;
    // Outside of the lock: whatever was there before is gone before anybody sees the range.
    reservation.scrub()?;
    reservation.set_state(RangeState::Open);
    Ok(Buffer::open(reservation, size))
}

fn protected(
    carveout: &Arc<Carveout>,
    secure_world: &Arc<SecureWorld>,
    size: u64,
) -> Result<Buffer> {
    for _ in 0..TRIES {
        let reservation = Reservation::new(carveout, size)?;
        match SecureWorld::protect(secure_world, reservation) {
            Ok(fence) => return Ok(Buffer::fenced(carveout.clone(), fence, size)),
            // The range was settled; there may be a better one by now.
            Err(Refusal::Restarted) => {}
            Err(Refusal::Failed(error)) => return Err(error),
        }
    }
    Err(EIO)
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_carveout_states)]
mod tests {
    use super::*;

    const ALL: [RangeState; 6] = [
        RangeState::Preparing,
        RangeState::Open,
        RangeState::Protected,
        RangeState::Lost,
        RangeState::Waiting,
        RangeState::Quarantined,
    ];

    #[test]
    fn what_is_kept_back_is_fenced_and_no_buffer() {
        for state in ALL.into_iter().filter(|state| state.is_kept_back()) {
            assert!(state.is_fenced());
            assert!(!state.is_buffer());
        }
    }

    #[test]
    fn a_lost_or_open_buffer_does_not_count_as_fenced() {
        assert!(!RangeState::Lost.is_fenced());
        assert!(!RangeState::Open.is_fenced());
        assert!(RangeState::Protected.is_fenced());
    }

    #[test]
    fn running_out_is_not_the_callers_fault() {
        assert_eq!(errno(AllocError::NoSpace), ENOMEM);
        assert_eq!(errno(AllocError::NoRecord), ENOMEM);
        assert_eq!(errno(AllocError::OutOfBounds), ENOMEM);
        assert_eq!(errno(AllocError::ZeroSize), EINVAL);
    }
}
