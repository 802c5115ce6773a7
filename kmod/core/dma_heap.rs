// SPDX-License-Identifier: GPL-2.0

//! Registration with the kernel's dma-heap core, which is for ever.

use crate::{
    bindings,
    registry::{
        Heap,
        Request, //
    }, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

static OPERATIONS: bindings::dma_heap_ops = bindings::dma_heap_ops {
    allocate: Some(allocate),
};

/// Makes `/dev/dma_heap/<name>` for `heap`.
///
/// There is no way back: the device keeps a reference to the heap for ever.
///
/// # Errors
///
/// `EINVAL` when the name is taken, by a heap of somebody else's; `ENOMEM`.
pub(crate) fn add(heap: Arc<Heap>) -> Result {
    let mut info: bindings::dma_heap_export_info = pin_init::zeroed();
    info.name = heap.name().as_char_ptr();
    info.ops = &raw const OPERATIONS;
    let private = heap.into_foreign();
    info.priv_ = private.cast();
    // SAFETY: The name and the private data live as long as the reference given away here, which
    // is for ever on success, and this module, whose function is called, never unloads.
    if let Err(error) = from_err_ptr(unsafe { bindings::dma_heap_add(&info) }) {
        // SAFETY: The heap was not registered, so the reference is still ours.
        drop(unsafe { <Arc<Heap> as ForeignOwnable>::from_foreign(private) });
        return Err(error);
    }
    Ok(())
}

/// # Safety
///
/// Called by the dma-heap core only, with a heap that [`add`] registered.
unsafe extern "C" fn allocate(
    heap: *mut bindings::dma_heap,
    size: c_ulong,
    fd_flags: u32,
    _heap_flags: u64,
) -> *mut bindings::dma_buf {
    // SAFETY: By the function's contract the private data is what `add` put there: a reference to
    // a `Heap` that is never given back.
    let heap = unsafe {
        <Arc<Heap> as ForeignOwnable>::borrow(bindings::dma_heap_get_drvdata(heap).cast())
    };
    match heap.allocate(&Request::plain(size, fd_flags), 0) {
        Ok(buffer) => buffer.into_raw(),
        Err(error) => error.to_ptr(),
    }
}
