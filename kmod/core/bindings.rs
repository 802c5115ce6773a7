// SPDX-License-Identifier: GPL-2.0

//! C declarations that the kernel's own `bindings` crate does not carry.
//!
//! Types are taken from `kernel::bindings` wherever it has them. Only the
//! core's abstractions may use this module.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

use kernel::{
    bindings::*,
    ffi, //
};
use pin_init::{
    MaybeZeroable,
    Zeroable, //
};

include!(concat!(
    env!("RINGFENCE_GENERATED"),
    "/bindings_generated.rs"
));

// SAFETY: `__IncompleteArrayField` has no bytes; bindgen does not derive this.
unsafe impl<T> Zeroable for __IncompleteArrayField<T> {}
