// SPDX-License-Identifier: GPL-2.0

//! Dma-bufs that the CPU can use, whatever they are made of.
//!
//! How memory is mapped is the business of [`page_buffer`](crate::page_buffer) and
//! [`region_buffer`](crate::region_buffer). What is said of a buffer, and what comes
//! before and after an access of the CPU, is the same for both.
//!
//! # Locking
//!
//! There is no lock here. The dma-buf's own reservation lock, which the dma-buf
//! core holds when it calls to map and unmap for a device or for the kernel, and
//! under which it keeps the list of attachments, is taken for what the core calls
//! without it: CPU access.

use core::{
    iter,
    marker::PhantomData,
    ptr, //
};

use crate::{
    attachment::Direction,
    bindings,
    dma_buf::Info,
    registry::{
        self,
        Entry,
        Heap, //
    },
    scatter_list::Turn, //
};
use kernel::{
    bindings::dma_data_direction,
    container_of,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc, //
};

/// What `priv` of a dma-buf points to.
///
/// # Safety
///
/// As long as a dma-buf is live that has these [operations](Self::operations), its
/// `priv` must point to a live `Self`.
pub(crate) unsafe trait Private: Sized + 'static {
    /// The operations of these dma-bufs.
    fn operations() -> &'static bindings::dma_buf_ops;

    /// What its heap's books say of it.
    fn entry(&self) -> &Entry;

    /// Its heap.
    fn heap(&self) -> &Arc<Heap>;

    /// Whether it is one run of memory.
    fn is_contiguous(&self) -> bool;

    /// Makes a part of the buffer ready for whoever uses it next: for the kernel's
    /// own mapping, and for every attachment.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the part is not inside the kernel's own mapping.
    ///
    /// # Safety
    ///
    /// `locked` must be the dma-buf that this belongs to, and the part be inside it.
    unsafe fn prepare(
        &self,
        locked: &Locked,
        offset: usize,
        length: usize,
        direction: Direction,
        turn: Turn,
    ) -> Result;
}

/// What `priv` of a dma-buf points to.
///
/// # Safety
///
/// `buffer` must be live and have the [operations](Private::operations) of `P`.
pub(crate) unsafe fn private<'a, P: Private>(buffer: *mut bindings::dma_buf) -> &'a P {
    // SAFETY: By the function's contract and that of the trait.
    unsafe { &*(*buffer).priv_.cast::<P>() }
}

/// A dma-buf whose reservation lock is held until this is dropped.
///
/// # Invariants
///
/// The pointer is a live dma-buf, and the lock is held.
pub(crate) struct Locked(*mut bindings::dma_buf);

impl Locked {
    /// Takes the lock.
    ///
    /// # Safety
    ///
    /// `buffer` must be live as long as this is there, and the caller not hold the lock.
    pub(crate) unsafe fn new(buffer: *mut bindings::dma_buf) -> Self {
        // SAFETY: By the function's contract. Without a context to wait in, this can't fail.
        unsafe { kernel::bindings::dma_resv_lock((*buffer).resv, ptr::null_mut()) };
        // INVARIANT: Just locked.
        Self(buffer)
    }

    /// The dma-buf's attachments, which are live as long as the lock is held.
    pub(crate) fn attachments(
        &self,
    ) -> impl Iterator<Item = *mut bindings::dma_buf_attachment> + '_ {
        // SAFETY: By the type invariants the dma-buf is live.
        let end = unsafe { &raw mut (*self.0).attachments };
        // SAFETY: As above, and the list only changes with the lock held.
        let mut node = unsafe { (*end).next };
        iter::from_fn(move || {
            if ptr::eq(node, end) {
                return None;
            }
            // SAFETY: The list has nothing but live attachments, each by this field.
            let attachment = unsafe { container_of!(node, bindings::dma_buf_attachment, node) };
            // SAFETY: As above.
            node = unsafe { (*node).next };
            Some(attachment)
        })
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the lock is held.
        unsafe { kernel::bindings::dma_resv_unlock((*self.0).resv) };
    }
}

/// A dma-buf that the CPU can use.
///
/// # Invariants
///
/// It is live, and has the [operations](Private::operations) of `P`.
pub(crate) struct CpuBuffer<'a, P>(&'a bindings::dma_buf, PhantomData<&'a P>);

impl<'a, P: Private> CpuBuffer<'a, P> {
    /// `buffer`, if it was exported as such a one.
    pub(crate) fn new(buffer: &'a bindings::dma_buf) -> Option<Self> {
        // INVARIANT: Checked here.
        ptr::eq(buffer.ops, P::operations()).then_some(Self(buffer, PhantomData))
    }

    fn raw(&self) -> *mut bindings::dma_buf {
        ptr::from_ref(self.0).cast_mut()
    }

    fn private(&self) -> &'a P {
        // SAFETY: By the type invariants it has these operations, and is live.
        unsafe { private(self.raw()) }
    }

    /// What its heap's books say of it.
    pub(crate) fn entry(&self) -> &'a Entry {
        self.private().entry()
    }

    /// What the buffer is.
    pub(crate) fn info(&self) -> Info {
        let private = self.private();
        let mut flags = registry::CPU_ACCESS;
        if private.is_contiguous() {
            flags |= registry::CONTIGUOUS;
        }
        Info {
            heap: private.heap().clone(),
            flags,
            handle: 0,
            use_case: 0,
        }
    }

    /// Makes `length` bytes from `offset` on ready for whoever uses them next.
    ///
    /// # Errors
    ///
    /// `EINVAL` when that is not inside the buffer, or nothing; `EINTR` when a
    /// signal ends the wait for those who still use it.
    pub(crate) fn sync(
        &self,
        offset: usize,
        length: usize,
        direction: Direction,
        turn: Turn,
    ) -> Result {
        let end = offset.checked_add(length).ok_or(EINVAL)?;
        if length == 0 || end > self.0.size {
            return Err(EINVAL);
        }
        if turn == Turn::Cpu {
            // SAFETY: The dma-buf is live, and so is its reservation object.
            to_result(unsafe { bindings::ringfence_wait_for_fences(self.raw(), direction.0) })?;
        }
        // SAFETY: By the type invariants it is live and has these operations. The part is inside.
        unsafe { prepare::<P>(self.raw(), offset, length, direction, turn) }
    }
}

/// Makes a part of a buffer ready for whoever uses it next.
///
/// # Errors
///
/// See [`Private::prepare`].
///
/// # Safety
///
/// `buffer` must be live and have the [operations](Private::operations) of `P`, and its reservation
/// lock not be held by the caller. The part must be inside the buffer.
unsafe fn prepare<P: Private>(
    buffer: *mut bindings::dma_buf,
    offset: usize,
    length: usize,
    direction: Direction,
    turn: Turn,
) -> Result {
    // SAFETY: By the function's contract.
    let (locked, private) = unsafe { (Locked::new(buffer), private::<P>(buffer)) };
    // SAFETY: It is that of the same dma-buf, and the part is inside.
    unsafe { private.prepare(&locked, offset, length, direction, turn) }
}

/// Makes all of a buffer ready for whoever uses it next, and answers with an error number.
///
/// # Safety
///
/// As for [`prepare`].
unsafe fn prepare_all<P: Private>(
    buffer: *mut bindings::dma_buf,
    direction: dma_data_direction,
    turn: Turn,
) -> c_int {
    // SAFETY: By the function's contract. The whole buffer is inside itself.
    let outcome = unsafe { prepare::<P>(buffer, 0, (*buffer).size, Direction(direction), turn) };
    from_result(|| outcome.map(|()| 0))
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has the
/// [operations](Private::operations) of `P`, the reservation lock not held.
pub(crate) unsafe extern "C" fn begin_cpu_access<P: Private>(
    buffer: *mut bindings::dma_buf,
    direction: dma_data_direction,
) -> c_int {
    // SAFETY: As the function's contract says.
    unsafe { prepare_all::<P>(buffer, direction, Turn::Cpu) }
}

/// # Safety
///
/// As for [`begin_cpu_access`].
pub(crate) unsafe extern "C" fn end_cpu_access<P: Private>(
    buffer: *mut bindings::dma_buf,
    direction: dma_data_direction,
) -> c_int {
    // SAFETY: As the function's contract says.
    unsafe { prepare_all::<P>(buffer, direction, Turn::Device) }
}
