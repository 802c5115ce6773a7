// SPDX-License-Identifier: GPL-2.0

//! Contiguous memory under the `dmem` controller of control groups.
//!
//! A region appears by its name in `dmem.capacity`, and a group's `dmem.max`
//! limits how much of it the group's processes hold. A buffer stays charged to
//! the group of the process that allocated it, whoever uses it later. Without
//! `CONFIG_CGROUP_DMEM` there are no regions, and nothing is limited.
//!
//! A region stays when the heap's backend goes, and with it what administrators
//! have set. Heaps on the same memory share one.

use core::ptr::NonNull;

use crate::bindings;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    str::CString,
    sync::{
        global_lock,
        Arc, //
    }, //
};

global_lock! {
    // SAFETY: Initialised by `init`, which the module calls before anything else.
    unsafe(uninit) static REGIONS: Mutex<KVec<(CString, Arc<Region>)>> = KVec::new();
}

/// Prepares the list of regions.
///
/// # Safety
///
/// Must be called exactly once, before anything else here.
pub(crate) unsafe fn init() {
    // SAFETY: The caller calls this once and first.
    unsafe { REGIONS.init() };
}

/// The region of this name, with a capacity of `size` bytes; `None` when the kernel
/// has no such controller, or for an empty region.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn region(name: &CStr, size: u64) -> Result<Option<Arc<Region>>> {
    let mut regions = REGIONS.lock();
    let known = regions
        .iter()
        .position(|(known, _)| known.to_bytes() == name.to_bytes());
    if let Some(index) = known {
        let (_, region) = &regions[index];
        if region.size == size {
            return Ok(Some(region.clone()));
        }
        // Two regions of one name would be told apart by nobody.
        drop(regions.remove(index));
    }
    regions.reserve(1, GFP_KERNEL)?;
    let copy = CString::try_from(name)?;
    let Some(region) = Region::register(name, size)? else {
        return Ok(None);
    };
    let region = Arc::new(region, GFP_KERNEL)?;
    regions.push((copy, region.clone()), GFP_KERNEL)?;
    Ok(Some(region))
}

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
    fn register(name: &CStr, size: u64) -> Result<Option<Self>> {
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
#[cfg_attr(not(CONFIG_CGROUP_DMEM), expect(dead_code))]
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
        // It is inline, and does nothing, without the controller.
        #[cfg(CONFIG_CGROUP_DMEM)]
        // SAFETY: By the type invariants this was charged, and is given back once.
        unsafe {
            bindings::dmem_cgroup_uncharge(self.pool, self.size)
        };
    }
}
