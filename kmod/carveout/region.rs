// SPDX-License-Identifier: GPL-2.0

//! Carveouts that are fenced as a whole (`ringfence,protection = "region"`).
//!
//! The first allocation has all of the carveout fenced, and the module parameter
//! `region_idle` after the last release has it opened again; the secure world
//! zeroes it both times. In between an allocation is like one of a carveout without
//! protection: it costs no call of the secure world.
//!
//! Only who wants a buffer's handle has it *named*: made known to the secure world,
//! which opens no other part of the region to content commands, and zeroes a part
//! before it forgets it. The release of a named buffer waits for that. Any other
//! buffer's memory, to which devices may have written, is dirty after the release,
//! and the [scrubber](crate::scrubber) has the secure world zero it before somebody
//! else gets it.
//!
//! The secure world does not know buffers without a name. That nobody gets one
//! which a device has filled and which was not zeroed is up to Linux, as it is up
//! to Linux which device writes where. What was decrypted has a name.

use kernel::{
    prelude::*,
    sync::{
        Arc,
        SetOnce, //
    },
    time::Msecs, //
};
use ringfence_core::{
    attachment::PhysRange,
    registry::Heap, //
};

use crate::{
    buffer::Buffer,
    carveout::Carveout,
    command::{
        RangeKind,
        RangeRecord,
        RangeState, //
    },
    ledger::{
        code,
        errno,
        is_plain_refusal,
        is_restart,
        HandleCell,
        Ledger, //
    },
    module_parameters,
    ranges::{
        Opening,
        Wish, //
    },
    reservation::Reservation,
    scrubber,
    secure_world::SecureWorld,
    STATE, //
};
use ringfence_core::tee::Failure;

/// How often an allocation is tried over when the region is opened under it.
const TRIES: usize = 4;

/// Milliseconds without a buffer after which a region is opened.
fn delay() -> Msecs {
    *module_parameters::region_idle.value_ref()
}

/// Allocates a buffer.
///
/// # Errors
///
/// `ENOMEM` when nothing fits; `EAGAIN` when the caller must not wait and no clean
/// memory fits behind the fence; `ENODEV` without the trusted application; `ENOSPC`
/// when the firewall has no window for the region; `EIO` when the secure world
/// refuses, or could not open the region before; `EINTR` when a fatal signal is
/// pending.
pub(crate) fn allocate(
    carveout: &Arc<Carveout>,
    secure_world: &Arc<SecureWorld>,
    wish: Wish,
    no_wait: bool,
) -> Result<Buffer> {
    if !secure_world.is_online() {
        return Err(ENODEV);
    }
    if wish.size > carveout.range().size {
        return Err(ENOMEM);
    }
    for _ in 0..TRIES {
        let reservation = match Reservation::clean(carveout, wish)? {
            Some(reservation) => reservation,
            None if no_wait => return Err(EAGAIN),
            None => match fence_and_clean(carveout, secure_world, wish) {
                Err(error) if error == EAGAIN => continue,
                reservation => reservation?,
            },
        };
        let enclosed = Enclosed::new(reservation, secure_world.clone());
        return Ok(Buffer::enclosed(carveout.clone(), enclosed, wish.size));
    }
    Err(EBUSY)
}

/// Allocates when the region is not fenced, or has no clean run that fits.
fn fence_and_clean(
    carveout: &Arc<Carveout>,
    secure_world: &SecureWorld,
    wish: Wish,
) -> Result<Reservation> {
    if !carveout.ranges().lock().can_allocate() {
        secure_world.fence(carveout)?;
        if let Some(reservation) = Reservation::clean(carveout, wish)? {
            return Ok(reservation);
        }
    }
    scrubber::clean_now(carveout, wish)
}

/// Sees to it that a region is opened by and by, in which nothing is allocated any
/// more. A region whose heap is gone is opened when that comes back, or by the next
/// instance of this module.
pub(crate) fn has_become_idle(carveout: &Carveout) {
    Heap::retry_after(carveout.heap(), delay());
}

/// Opens a region in which nothing is allocated, at once or when its time has come.
pub(crate) fn open_idle(carveout: &Carveout, secure_world: &SecureWorld, at_once: bool) {
    let delay = if at_once { 0 } else { delay() };
    if let Some(left) = secure_world.open_idle(carveout, delay) {
        Heap::retry_after(carveout.heap(), left);
    }
}

/// A buffer in a fenced region, which is given back when this is dropped.
pub(crate) struct Enclosed {
    /// Gone only in the end.
    reservation: Option<Reservation>,
    secure_world: Arc<SecureWorld>,
    /// Once the buffer has a name.
    cell: SetOnce<Arc<HandleCell>>,
}

impl Enclosed {
    fn new(mut reservation: Reservation, secure_world: Arc<SecureWorld>) -> Self {
        reservation.enclose();
        Self {
            reservation: Some(reservation),
            secure_world,
            cell: SetOnce::new(),
        }
    }

    fn reservation(&self) -> Result<&Reservation> {
        self.reservation.as_ref().ok_or(EIO)
    }

    /// # Errors
    ///
    /// `EIO` when the secure world does not know the region any more.
    pub(crate) fn range(&self) -> Result<PhysRange> {
        let reservation = self.reservation()?;
        let range = reservation.range();
        let is_lost = reservation.carveout().ranges().lock().is_lost(range.start);
        match is_lost {
            true => Err(EIO),
            false => Ok(range),
        }
    }

    /// The handle by which the secure world knows the buffer now; it gets one if it
    /// has none.
    ///
    /// # Errors
    ///
    /// `ENODEV` without the trusted application; `EIO` when it refuses, or does not
    /// know the region any more; `ENOMEM`.
    pub(crate) fn confirmed_handle(&self) -> Result<u64> {
        self.range()?;
        self.secure_world.with_ledger(|ledger| {
            match self.cell.as_ref() {
                // While the application is away its last handle is all there is to say.
                Some(_) => {
                    let _ = ledger.confirm();
                }
                None => {
                    let cell = Arc::new(HandleCell::new(), GFP_KERNEL)?;
                    ledger.name(self.reservation()?, &cell)?;
                    self.cell.populate(cell);
                }
            }
            self.cell.as_ref().and_then(|cell| cell.get()).ok_or(EIO)
        })
    }
}

impl Drop for Enclosed {
    fn drop(&mut self) {
        if self.cell.as_ref().is_none() {
            // Its own drop makes the memory dirty.
            return;
        }
        if let Some(reservation) = self.reservation.take() {
            self.secure_world
                .with_ledger(|ledger| ledger.release_part(reservation));
        }
    }
}

impl Ledger {
    /// Has all of a carveout fenced, if it is not. The caller holds the lock of its
    /// dirty ranges.
    ///
    /// # Errors
    ///
    /// See [`allocate`].
    pub(crate) fn fence_region(&mut self, carveout: &Carveout) -> Result {
        let mut restarted = false;
        loop {
            let application = self.connect()?;
            {
                let ranges = carveout.ranges().lock();
                if ranges.can_allocate() {
                    return Ok(());
                }
                if !ranges.can_be_fenced() {
                    return Err(EIO);
                }
            }
            let failure = match application.protect(carveout.range()) {
                Ok(handle) => {
                    let cleaned = carveout.ranges().lock().fenced(handle);
                    // Outside of the lock.
                    drop(cleaned);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let recovered = self.recover(failure).is_ok();
            if restarted || !recovered || !is_restart(failure) {
                return Err(errno(failure));
            }
            restarted = true;
        }
    }

    /// Opens a region if nothing was allocated in it in the last `delay`
    /// milliseconds; answers how many are left otherwise. The caller holds the lock
    /// of its dirty ranges.
    pub(crate) fn open_region(&mut self, carveout: &Carveout, delay: Msecs) -> Option<Msecs> {
        // Before anything is begun: a new session may tell another handle.
        self.connect().ok()?;
        let opening = carveout.ranges().lock().begin_opening(delay);
        let handle = match opening {
            Opening::No => return None,
            Opening::Later(left) => return Some(left),
            Opening::Now(handle) => handle,
        };
        let outcome = self.connect().map_err(Failure::from);
        let failure = match outcome.and_then(|application| application.unprotect(handle)) {
            Ok(()) => {
                let cleaned = carveout.ranges().lock().opened();
                drop(cleaned);
                return None;
            }
            Err(failure) => failure,
        };
        if self.recover(failure).is_err() {
            // The list, when it can be had, tells how the region stands.
            carveout.ranges().lock().renamed(handle);
        }
        None
    }

    /// Makes the secure world's list and the carveouts' fences agree; with `all`,
    /// also tries regions again that the firewall has in quarantine.
    pub(crate) fn resync_regions(
        &mut self,
        records: &[RangeRecord],
        all: bool,
    ) -> Result<(), Failure> {
        let Some(state) = STATE.get() else {
            return Ok(());
        };
        let mut carveouts = KVec::new();
        for carveout in state.carveouts.lock().iter() {
            if carveout.is_fenced_as_a_whole() {
                carveouts
                    .push(carveout.clone(), GFP_KERNEL)
                    .map_err(Error::from)?;
            }
        }
        for carveout in &carveouts {
            let record = records.iter().find(|record| {
                record.kind == RangeKind::Region.raw()
                    && carveout.contains(record.start, record.size)
            });
            match record {
                Some(record) => self.resync_region(carveout, record, all)?,
                None => forget_region(carveout),
            }
        }
        Ok(())
    }

    /// Settles what the list says about a region.
    fn resync_region(
        &mut self,
        carveout: &Arc<Carveout>,
        record: &RangeRecord,
        all: bool,
    ) -> Result<(), Failure> {
        let whole = carveout.range();
        let is_sound = record.state == RangeState::Protected.raw()
            && (record.start, record.size) == (whole.start, whole.size);
        let (is_wanted, is_idle, was_stuck) = {
            let mut ranges = carveout.ranges().lock();
            let wanted = ranges.is_meant_to_be_fenced();
            match (wanted, is_sound) {
                (true, false) => ranges.stuck(record.handle),
                _ => ranges.renamed(record.handle),
            }
            (wanted, ranges.is_fenced_and_idle(), ranges.is_stuck())
        };
        match (is_wanted, is_sound) {
            (true, true) => {
                if is_idle {
                    has_become_idle(carveout);
                }
                return Ok(());
            }
            (true, false) => {
                say_stuck(carveout, record.state);
                return Ok(());
            }
            // In quarantine until somebody asks.
            (false, false) if was_stuck && !all => return Ok(()),
            (false, _) => {}
        }
        // Fenced without a reason: by an earlier life, or because it could not be opened.
        let application = self.application().ok_or(ENODEV)?;
        match application.unprotect(record.handle) {
            Ok(()) => {
                let cleaned = carveout.ranges().lock().opened();
                drop(cleaned);
                pr_info!("{}: opened the region\n", carveout.heap().name());
                Ok(())
            }
            Err(failure) if !is_plain_refusal(failure) => Err(failure),
            Err(failure) => {
                carveout.ranges().lock().stuck(record.handle);
                if !was_stuck {
                    say_stuck(carveout, code(failure));
                }
                Ok(())
            }
        }
    }
}

/// Settles that the list does not have a region.
fn forget_region(carveout: &Carveout) {
    let (was_fenced, cleaned) = {
        let mut ranges = carveout.ranges().lock();
        if ranges.is_fenced() {
            ranges.lost();
            (true, None)
        } else if ranges.is_meant_to_be_fenced() || ranges.is_stuck() {
            // It was opened, and zeroed before that.
            (false, Some(ranges.opened()))
        } else {
            (false, None)
        }
    };
    drop(cleaned);
    if was_fenced {
        pr_err!(
            "{}: the secure world has lost the region\n",
            carveout.heap().name()
        );
    }
}

fn say_stuck(carveout: &Carveout, code: u32) {
    pr_err!(
        "{}: the region could not be opened ({:#x}): quarantined\n",
        carveout.heap().name(),
        code
    );
}
