// SPDX-License-Identifier: GPL-2.0

//! References from one devicetree node to another.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device::property::FwNode,
    error::from_err_ptr,
    prelude::*,
    sync::aref::ARef, //
};

/// The node to which the `index`th phandle of the property `name` points.
///
/// # Errors
///
/// `ENOENT` without such a property, or past its last phandle; `EINVAL` when
/// the property is malformed.
pub fn reference(node: &FwNode, name: &CStr, index: u32) -> Result<ARef<FwNode>> {
    // CAST: `FwNode` is a transparent wrapper of `struct fwnode_handle`.
    let raw = core::ptr::from_ref(node)
        .cast::<bindings::fwnode_handle>()
        .cast_mut();
    // SAFETY: `raw` is a live node, and `name` is NUL-terminated.
    let found = from_err_ptr(unsafe {
        bindings::fwnode_find_reference(raw, name.as_char_ptr(), index)
    })?;
    let found = NonNull::new(found.cast::<FwNode>()).ok_or(ENOENT)?;
    // SAFETY: The function returned a live node with a reference that is now ours.
    Ok(unsafe { ARef::from_raw(found) })
}
