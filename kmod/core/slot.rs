// SPDX-License-Identifier: GPL-2.0

//! State of a module that its drivers' callbacks can reach.
//!
//! A Rust driver's `probe` is a plain function, and a module's own structure
//! can't be reached from it. A [`Slot`] is a static that holds the module's
//! state from the moment it is [published](Slot::publish) until the
//! [`Published`] guard in the module's structure is dropped.

use core::cell::UnsafeCell;

use kernel::{
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

global_lock! {
    // SAFETY: Initialised by `init`, which the module calls before anything else.
    unsafe(uninit) static SLOTS: Mutex<()> = ();
}

/// Prepares the lock of all slots.
///
/// # Safety
///
/// Must be called exactly once, before any [`Slot`] is used.
pub(crate) unsafe fn init() {
    // SAFETY: The caller calls this once and first.
    unsafe { SLOTS.init() };
}

/// A place for a module's state.
///
/// # Invariants
///
/// `value` is only accessed with the lock `SLOTS` held.
pub struct Slot<T> {
    value: UnsafeCell<Option<Arc<T>>>,
}

// SAFETY: `value` is protected by a lock, and an `Arc<T>` may be shared and sent, as the bound says.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

impl<T: Send + Sync + 'static> Slot<T> {
    /// An empty slot.
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            value: UnsafeCell::new(None),
        }
    }

    /// The state, if there is one now.
    pub fn get(&'static self) -> Option<Arc<T>> {
        let _guard = SLOTS.lock();
        // SAFETY: The lock is held, so that nobody changes the value meanwhile.
        unsafe { (*self.value.get()).clone() }
    }

    /// Puts `value` into the slot until the guard is dropped.
    ///
    /// # Errors
    ///
    /// `EBUSY` when the slot is taken.
    pub fn publish(&'static self, value: Arc<T>) -> Result<Published<T>> {
        let _guard = SLOTS.lock();
        // SAFETY: The lock is held, so that nobody else accesses the value meanwhile.
        let slot = unsafe { &mut *self.value.get() };
        if slot.is_some() {
            return Err(EBUSY);
        }
        *slot = Some(value);
        Ok(Published { slot: self })
    }
}

/// Keeps a module's state in its [`Slot`], and empties it on drop.
///
/// The module's structure owns this guard, in a field behind the registrations
/// whose callbacks use the slot: fields are dropped in order of declaration.
pub struct Published<T: Send + Sync + 'static> {
    slot: &'static Slot<T>,
}

impl<T: Send + Sync + 'static> Drop for Published<T> {
    fn drop(&mut self) {
        let value = {
            let _guard = SLOTS.lock();
            // SAFETY: The lock is held, so that nobody else accesses the value meanwhile.
            unsafe { (*self.slot.value.get()).take() }
        };
        // Outside of the lock: the state's own destructor may use slots.
        drop(value);
    }
}
