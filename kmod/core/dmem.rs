// SPDX-License-Identifier: GPL-2.0

//! Contiguous memory under the `dmem` controller of control groups.
//!
//! A region appears by its name in `dmem.capacity`, and a group's `dmem.max`
//! limits how much of it the group's processes hold. A buffer stays charged to
//! the group of the process that allocated it, whoever uses it later. Without
//! `CONFIG_CGROUP_DMEM` there are no regions, and nothing is limited.

use core::ptr::NonNull;

use crate::bindings;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// A region that is registered with the controller until it is dropped. Charges
/// may outlive it.
///
/// # Invariants
///
/// The pointer is a registered region.
pub(crate) struct Region {
    raw: NonNull<bindings::dmem_cgroup_region>,
    size: u64,
}

// SAFETY: The controller does its own locking.
unsafe impl Send for Region {}
// SAFETY: As above.
unsafe impl Sync for Region {}

impl Region {
    /// Registers `ringfence/<name>` with a capacity of `size` bytes; `None` when
    /// the kernel has no such controller, or for an empty region.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn register(name: &CStr, size: u64) -> Result<Option<Self>> {
        // SAFETY: The name is copied.
        let raw =
            from_err_ptr(unsafe { bindings::ringfence_dmem_register(name.as_char_ptr(), size) })?;
        // INVARIANT: The function registered it.
        Ok(NonNull::new(raw).map(|raw| Self { raw, size }))
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Charges `size` bytes to the current process's group.
    ///
    /// # Errors
    ///
    /// `EDQUOT` when a limit is in the way; `ENOMEM`.
    pub(crate) fn charge(&self, size: u64) -> Result<Charge> {
        let mut pool = core::ptr::null_mut();
        // SAFETY: By the type invariants the region is registered.
        let outcome = to_result(unsafe {
            bindings::ringfence_dmem_try_charge(self.raw.as_ptr(), size, &mut pool)
        });
        outcome.map_err(|error| if error == EAGAIN { EDQUOT } else { error })?;
        // INVARIANT: Charged just now.
        Ok(Charge { pool, size })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the region is registered, and this is its end.
        unsafe { bindings::ringfence_dmem_unregister(self.raw.as_ptr()) };
    }
}

/// Bytes charged to a group, until this is dropped.
///
/// # Invariants
///
/// `size` bytes are charged to `pool`, which may be null.
pub(crate) struct Charge {
    pool: *mut bindings::dmem_cgroup_pool_state,
    size: u64,
}

// SAFETY: A charge may be given back from any thread.
unsafe impl Send for Charge {}
// SAFETY: A shared reference gives access to nothing.
unsafe impl Sync for Charge {}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this was charged, and is given back once.
        unsafe { bindings::ringfence_dmem_uncharge(self.pool, self.size) };
    }
}
