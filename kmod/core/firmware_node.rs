// SPDX-License-Identifier: GPL-2.0

//! References from one devicetree node to another.

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device::{
        property::FwNode,
        Device, //
    },
    error::from_err_ptr,
    prelude::*,
    sync::aref::ARef, //
};

/// A node to which another one refers. Two are equal when they are the same node.
pub struct Node(ARef<FwNode>);

// SAFETY: A node is reference counted, and its references may be held and dropped anywhere.
unsafe impl Send for Node {}
// SAFETY: A shared reference gives access to what does not change, or is locked by the kernel.
unsafe impl Sync for Node {}

impl Node {
    /// The node to which the `index`th phandle of the property `name` points.
    ///
    /// # Errors
    ///
    /// `ENOENT` without such a property, or past its last phandle; `EINVAL` when
    /// the property is malformed.
    pub fn referenced_by(node: &FwNode, name: &CStr, index: u32) -> Result<Self> {
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
        Ok(Self(unsafe { ARef::from_raw(found) }))
    }

    /// Tells whether `device` was made from this node.
    pub fn is_of(&self, device: &Device) -> bool {
        device
            .fwnode()
            .is_some_and(|node| core::ptr::eq(node, &*self.0))
    }
}

impl Deref for Node {
    type Target = FwNode;

    fn deref(&self) -> &FwNode {
        &self.0
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(&*self.0, &*other.0)
    }
}
