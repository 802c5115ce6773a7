// SPDX-License-Identifier: GPL-2.0

//! The functions of `inlines.h`.

use kernel::prelude::*;

/// `struct hostile_importer`, which is C's alone.
#[repr(C)]
pub(crate) struct RawImporter {
    _opaque: [u8; 0],
}

/// `struct hostile_view`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct View {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) entries: u32,
    pub(crate) pages: u32,
}

extern "C" {
    pub(crate) fn hostile_touch(phys: u64, mapping: c_int, touch: c_int, value: *mut u64) -> c_int;
    pub(crate) fn hostile_smc(function: u64, x1: u64, x2: u64) -> u64;
    pub(crate) fn hostile_import(
        fd: c_int,
        node: *const c_char,
        mask: u64,
        out: *mut *mut RawImporter,
    ) -> c_int;
    pub(crate) fn hostile_map(importer: *mut RawImporter, view: *mut View) -> c_int;
    pub(crate) fn hostile_release(importer: *mut RawImporter);
    pub(crate) fn hostile_vmap(fd: c_int) -> c_int;
    pub(crate) fn hostile_cpu_access(fd: c_int) -> c_int;
    pub(crate) fn hostile_keep_awake(awake: bool) -> c_int;
    pub(crate) fn hostile_dma(phys: u64) -> c_int;
}
