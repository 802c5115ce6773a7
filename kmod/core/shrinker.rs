// SPDX-License-Identifier: GPL-2.0

//! Giving memory back when the kernel runs short of it.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use crate::bindings;
use kernel::{
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

/// Something that keeps memory which others may need more.
///
/// The functions are called when memory is being reclaimed, also by somebody who
/// allocates in the middle of something else: they must not allocate, nor wait for
/// a lock under which somebody does.
pub trait Shrink: Send + Sync + 'static {
    /// How many pages could be given back.
    fn count(&self) -> usize;

    /// Gives back about so many pages, and answers how many it were.
    fn shrink(&self, pages: usize) -> usize;
}

/// Has [`Shrink`] called until it is dropped.
///
/// # Invariants
///
/// The pointer is a registered shrinker, whose private data is a reference to a `T`
/// and whose callbacks are those of `T`.
pub struct Shrinker<T: Shrink> {
    raw: NonNull<kernel::bindings::shrinker>,
    _target: PhantomData<Arc<T>>,
}

// SAFETY: A shrinker may be unregistered from any thread, and so may an `Arc<T>` be dropped.
unsafe impl<T: Shrink> Send for Shrinker<T> {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl<T: Shrink> Sync for Shrinker<T> {}

impl<T: Shrink> Shrinker<T> {
    /// Registers `target`, under the module's name.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &'static CStr, target: Arc<T>) -> Result<Self> {
        let raw = allocate(name)?;
        // SAFETY: The shrinker is new, and nobody knows it. The callbacks fit the private data.
        unsafe {
            let shrinker = raw.as_ptr();
            (*shrinker).count_objects = Some(Self::count);
            (*shrinker).scan_objects = Some(Self::scan);
            (*shrinker).private_data = target.into_foreign().cast();
            register(raw);
        }
        // INVARIANT: It was registered just now.
        Ok(Self {
            raw,
            _target: PhantomData,
        })
    }

    /// # Safety
    ///
    /// Called by the kernel only, with a shrinker that [`Self::new`] registered.
    unsafe extern "C" fn count(
        shrinker: *mut kernel::bindings::shrinker,
        _control: *mut kernel::bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the function's contract the private data is a reference to a `T`.
        let target = unsafe { <Arc<T> as ForeignOwnable>::borrow((*shrinker).private_data.cast()) };
        match target.count() {
            0 => EMPTY,
            count => count,
        }
    }

    /// # Safety
    ///
    /// As for [`Self::count`], and `control` must be valid.
    unsafe extern "C" fn scan(
        shrinker: *mut kernel::bindings::shrinker,
        control: *mut kernel::bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the function's contract the private data is a reference to a `T`.
        let target = unsafe { <Arc<T> as ForeignOwnable>::borrow((*shrinker).private_data.cast()) };
        // SAFETY: By the function's contract the control is valid.
        let wanted = unsafe { (*control).nr_to_scan };
        match target.shrink(wanted) {
            0 => STOP,
            given => {
                // SAFETY: As above.
                unsafe { (*control).nr_scanned = given.max(wanted) };
                given
            }
        }
    }
}

impl<T: Shrink> Drop for Shrinker<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the private data is a reference to a `T`. Its callbacks are
        // over, and there will be no more, before it is dropped.
        unsafe {
            let target = (*self.raw.as_ptr()).private_data;
            unregister(self.raw);
            drop(<Arc<T> as ForeignOwnable>::from_foreign(target.cast()));
        }
    }
}

/// `SHRINK_EMPTY`: there is nothing to give back.
const EMPTY: c_ulong = c_ulong::MAX - 1;
/// `SHRINK_STOP`: there is no use in asking again.
const STOP: c_ulong = c_ulong::MAX;

fn allocate(name: &'static CStr) -> Result<NonNull<kernel::bindings::shrinker>> {
    // SAFETY: The name is a string, as the format says.
    let raw = unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
    NonNull::new(raw).ok_or(ENOMEM)
}

/// # Safety
///
/// `shrinker` must come from [`allocate`], be complete, and not be registered.
unsafe fn register(shrinker: NonNull<kernel::bindings::shrinker>) {
    // SAFETY: By the function's contract.
    unsafe { bindings::shrinker_register(shrinker.as_ptr()) };
}

/// # Safety
///
/// `shrinker` must be registered, and not be used any more.
unsafe fn unregister(shrinker: NonNull<kernel::bindings::shrinker>) {
    // SAFETY: By the function's contract. Waits for the callbacks.
    unsafe { bindings::shrinker_free(shrinker.as_ptr()) };
}
