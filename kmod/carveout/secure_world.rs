// SPDX-License-Identifier: GPL-2.0

//! The way to the trusted application that fences ranges off.
//!
//! The application comes and goes as a device on the TEE bus. While it is away
//! the protected heaps are offline, and the ranges of buffers that are released
//! meanwhile wait in the ledger. Commands are sent one at a time, with a mutex
//! held from the command to the end of its bookkeeping: the application has a
//! single instance, so the secure world would not do two at once either, and so
//! [recovery](crate::ledger) never sees a command half-way.

use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::Msecs, //
};
use ringfence_core::{
    attachment::PhysRange,
    registry::Retry,
    tee_bus, //
};

use crate::{
    application::Abilities,
    carveout::Carveout,
    command,
    ledger::{
        HandleCell,
        Ledger, //
    },
    reservation::Reservation, //
};

/// Why a range was not fenced off. It is the ledger's business from then on.
pub(crate) enum Refusal {
    /// The trusted application was restarted, and works again: try once more.
    Restarted,
    /// Give up.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The trusted application, as long as it is there, and its ledger.
#[pin_data]
pub(crate) struct SecureWorld {
    #[pin]
    ledger: Mutex<Ledger>,
    /// Mirrors [`Ledger::is_present`] for those who must not wait for a command.
    online: Atomic<bool>,
    said_deferred: Atomic<bool>,
}

impl SecureWorld {
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                ledger <- new_mutex!(Ledger::new()),
                online: Atomic::new(false),
                said_deferred: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether the trusted application is there.
    pub(crate) fn is_online(&self) -> bool {
        self.online.load(Relaxed)
    }

    /// What the firewall can do.
    ///
    /// # Errors
    ///
    /// `ENODEV` without the trusted application, `EIO` when it does not answer.
    pub(crate) fn abilities(&self) -> Result<Abilities> {
        self.ledger.lock().abilities()
    }

    /// Has all of a carveout fenced, if it is not.
    ///
    /// # Errors
    ///
    /// See [`crate::region::allocate`].
    pub(crate) fn fence(&self, carveout: &Carveout) -> Result {
        // The secure world zeroes all of it: nobody is to be about that meanwhile.
        let _scrubbing = carveout.scrubbing().lock();
        self.ledger.lock().fence_region(carveout)
    }

    /// Opens a region that is fenced as a whole if nothing was allocated in it in
    /// the last `delay` milliseconds; answers how many are left otherwise.
    pub(crate) fn open_idle(&self, carveout: &Carveout, delay: Msecs) -> Option<Msecs> {
        let _scrubbing = carveout.scrubbing().lock();
        self.ledger.lock().open_region(carveout, delay)
    }

    /// Has a stretch of a fenced region zeroed in which no part is named.
    ///
    /// # Errors
    ///
    /// `ENODEV` without the trusted application, `EIO` when it refuses.
    pub(crate) fn scrub(&self, stretch: PhysRange) -> Result {
        self.ledger.lock().scrub(stretch)
    }

    /// Runs `work` on the ledger, while nobody else uses it.
    pub(crate) fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.ledger.lock())
    }

    /// Says, once, why a heap does not come up.
    pub(crate) fn say_deferred(&self, device: &Device) {
        if !self.said_deferred.xchg(true, Full) {
            dev_info!(
                device,
                "protected heaps wait for OP-TEE and its trusted application {}\n",
                command::TA_UUID_TEXT
            );
        }
    }

    /// Fences off a range, which is zeroed by the secure world.
    ///
    /// # Errors
    ///
    /// `ENODEV` without the trusted application, `ENOMEM`, and `EIO` when it
    /// refuses or answers something unknown.
    pub(crate) fn protect(this: &Arc<Self>, reservation: Reservation) -> Result<Fence, Refusal> {
        let range = reservation.range();
        let cell = Arc::new(HandleCell::new(), GFP_KERNEL).map_err(Error::from)?;
        this.ledger.lock().protect(reservation, cell.clone())?;
        Ok(Fence {
            secure_world: this.clone(),
            range,
            cell,
        })
    }

    /// Settles ranges of `carveout` that are fenced from an earlier life of the
    /// kernel or of this module. The carveout must be in the module's list.
    ///
    /// # Errors
    ///
    /// As [`Self::protect`].
    pub(crate) fn adopt(&self, carveout: &Carveout) -> Result {
        debug_assert!(carveout.is_protected());
        self.ledger.lock().refresh(false)
    }

    /// Tries to settle ranges that are still fenced without a buffer.
    pub(crate) fn retry(&self, carveout: &Carveout, why: Retry) {
        let mut ledger = self.ledger.lock();
        let all = why == Retry::Request;
        if all || ledger.has_waiting() || carveout.ranges().lock().is_stuck() {
            // What is not settled now waits for the next occasion.
            let _ = ledger.refresh(all);
        }
    }

    /// Gives up all ranges that are still fenced without a buffer. The next
    /// instance of this module finds them in the secure world's list.
    pub(crate) fn forget(&self) {
        let ledger = core::mem::replace(&mut *self.ledger.lock(), Ledger::new());
        // Outside of the lock: this may be the end of a carveout.
        drop(ledger);
    }
}

impl tee_bus::Driver for SecureWorld {
    fn probe(&self, device: &Device) -> Result {
        self.ledger.lock().arrive().inspect_err(|error| {
            dev_err!(
                device,
                "the trusted application can't be used: {:?}\n",
                error
            );
        })?;
        self.online.store(true, Relaxed);
        dev_info!(device, "protected heaps are online\n");
        Ok(())
    }

    fn remove(&self) {
        self.online.store(false, Relaxed);
        // A command that is under way has ended when the lock is had.
        self.ledger.lock().leave();
        self.said_deferred.store(false, Relaxed);
    }
}

/// A fenced range, which is released when this is dropped.
pub(crate) struct Fence {
    secure_world: Arc<SecureWorld>,
    range: PhysRange,
    cell: Arc<HandleCell>,
}

impl Fence {
    pub(crate) fn range(&self) -> PhysRange {
        self.range
    }

    /// The handle by which the secure world knows the range now.
    ///
    /// # Errors
    ///
    /// `EIO` when it does not know the range any more.
    pub(crate) fn handle(&self) -> Result<u64> {
        self.cell.get().ok_or(EIO)
    }

    /// The same, after a question to the trusted application, so that nobody is
    /// given a handle that has died with its last instance.
    ///
    /// # Errors
    ///
    /// As [`Self::handle`].
    pub(crate) fn confirmed_handle(&self) -> Result<u64> {
        // While the application is away its last handle is all there is to say.
        let _ = self.secure_world.ledger.lock().confirm();
        self.handle()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.secure_world.ledger.lock().release(self.range.start);
    }
}
