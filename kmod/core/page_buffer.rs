// SPDX-License-Identifier: GPL-2.0

//! Exporting pages as a dma-buf that the CPU can use.
//!
//! A heap gives its [`Memory`] and an [`Owner`] to [`export`], and gets the memory
//! back through the owner when the last reference of the dma-buf is gone: nothing
//! maps it any more then, neither a process nor the kernel nor a device. Until
//! then the heap's module can't be unloaded. Everything in between is the same for
//! every heap, and as the kernel's own heaps do it.
//!
//! # Locking
//!
//! See [`cpu_buffer`](crate::cpu_buffer).

use core::{
    cell::UnsafeCell,
    ptr::{
        self,
        NonNull, //
    }, //
};

use crate::{
    attachment::Direction,
    bindings,
    cpu_buffer::{
        begin_cpu_access,
        end_cpu_access,
        private,
        CpuBuffer,
        Locked,
        Private, //
    },
    dma_buf::{
        self,
        DmaBuf, //
    },
    kernel_mapping::KernelMapping,
    pages::{
        Memory,
        Run, //
    },
    registry::{
        Entry,
        Heap, //
    },
    scatter_list::{
        ScatterList,
        Turn, //
    }, //
};
use kernel::{
    bindings::{
        dma_data_direction,
        iosys_map,
        sg_table,
        vm_area_struct,
        vm_fault,
        vm_fault_t,
        vm_operations_struct, //
    },
    device::Device,
    error::{
        from_result,
        to_result, //
    },
    module::this_module,
    page::PAGE_SHIFT,
    prelude::*,
    sync::Arc, //
};

/// A heap's side of a buffer.
#[vtable]
pub trait Owner: Send + Sync + Sized + 'static {
    /// What its buffers are made of.
    type Memory: Memory;

    /// The heap, which names the dma-buf.
    fn heap(&self) -> &Arc<Heap>;

    /// Takes the memory back, which holds what the last user left there.
    ///
    /// Runs in process context and may sleep.
    fn release(self, memory: Self::Memory);
}

/// When a process's mapping is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// At once. A private mapping that may be written to is EINVAL, unless a single
    /// run is mapped.
    AtOnce,
    /// Page by page, when they are touched. A private mapping is EINVAL.
    OnFault,
}

/// What does not depend on the type of the owner: where `priv` of the dma-buf
/// points to, which is what [`OPERATIONS`] take it for.
///
/// # Invariants
///
/// - It is the field `head` of a [`Buffer<O>`], and `callbacks` are those of `O`.
/// - `address` is where the kernel has mapped the buffer, if it has. It is only
///   used with the reservation lock held.
pub(crate) struct Head {
    callbacks: &'static Callbacks,
    entry: Entry,
    fill: Fill,
    address: UnsafeCell<Option<KernelMapping>>,
}

/// [`Owner`] without its associated items.
struct Callbacks {
    runs: unsafe fn(&Head) -> &[Run],
    heap: unsafe fn(&Head) -> &Arc<Heap>,
    release: unsafe fn(NonNull<Head>),
}

#[repr(C)]
struct Buffer<O: Owner> {
    head: Head,
    owner: O,
    memory: O::Memory,
}

impl<O: Owner> Buffer<O> {
    const CALLBACKS: Callbacks = Callbacks {
        // SAFETY: By the invariants of `Head` it is that of a `Buffer<O>`.
        runs: |head| unsafe { Self::of(head) }.memory.runs(),
        // SAFETY: As above.
        heap: |head| unsafe { Self::of(head) }.owner.heap(),
        release: |head| {
            let this: *mut Self = head.as_ptr().cast();
            // SAFETY: By the invariants of `Head` this is what was allocated, which is used no more;
            // nothing of it is dropped but what is dropped here.
            unsafe {
                let owner = (&raw const (*this).owner).read();
                owner.release((&raw const (*this).memory).read());
                // Strikes it off the books, and gives back what it was charged to.
                (&raw mut (*this).head).drop_in_place();
                free(head.cast());
            }
        },
    };

    /// # Safety
    ///
    /// `head` must be the field of a `Self`.
    unsafe fn of(head: &Head) -> &Self {
        // SAFETY: By the function's contract; the field is the first of a `repr(C)` structure.
        unsafe { &*ptr::from_ref(head).cast() }
    }
}

impl Head {
    /// # Safety
    ///
    /// There must be room for a head at `place`, in a buffer whose callbacks these are.
    unsafe fn write(
        place: *mut Self,
        callbacks: &'static Callbacks,
        heap: &Heap,
        size: u64,
        run: Option<Run>,
        fill: Fill,
    ) {
        // SAFETY: By the function's contract there is room. INVARIANT: And the callbacks fit.
        unsafe {
            place.write(Self {
                callbacks,
                entry: Entry::new(heap, size, run),
                fill,
                address: UnsafeCell::new(None),
            });
        }
    }

    fn runs(&self) -> &[Run] {
        // SAFETY: By the type invariants the callbacks fit.
        unsafe { (self.callbacks.runs)(self) }
    }
}

/// Makes a dma-buf out of all of `memory`; when that fails the owner gets it back.
///
/// `fd_flags` are those of the allocation ioctl, which the dma-heap core has
/// checked.
///
/// # Errors
///
/// `ENOMEM`, or `ENOENT` when the owner's module is being unloaded.
pub fn export<O: Owner>(owner: O, memory: O::Memory, fill: Fill, fd_flags: u32) -> Result<DmaBuf> {
    let Some(place) = allocate::<Buffer<O>>() else {
        owner.release(memory);
        return Err(ENOMEM);
    };
    // CAST: Widening.
    let size = memory.runs().iter().map(Run::size).sum::<usize>() as u64;
    let run = match memory.runs() {
        [run] => Some(*run),
        _ => None,
    };
    let this = place.as_ptr();
    // INVARIANT: The callbacks are those of `O`.
    // SAFETY: There is room for a buffer, of which every field is written; the head is its first.
    unsafe {
        (&raw mut (*this).owner).write(owner);
        (&raw mut (*this).memory).write(memory);
        let callbacks = &Buffer::<O>::CALLBACKS;
        Head::write(
            &raw mut (*this).head,
            callbacks,
            (*this).owner.heap(),
            size,
            run,
            fill,
        );
        export_head(place.cast(), this_module::<O::OwnerModule>(), fd_flags)
    }
}

/// Room for a `T`, which may be larger than what is passed around.
fn allocate<T>() -> Option<NonNull<T>> {
    const { assert!(align_of::<T>() <= align_of::<usize>()) };
    allocate_bytes(size_of::<T>()).map(NonNull::cast)
}

/// Memory that is aligned as a pointer is.
///
/// A box would be the same, but for the way: its memory comes from a function that can resize it.
fn allocate_bytes(size: usize) -> Option<NonNull<u8>> {
    // SAFETY: Callers are in process context and hold no lock that forbids to sleep.
    NonNull::new(unsafe { bindings::ringfence_kmalloc(size) }.cast())
}

/// # Safety
///
/// `place` must come from [`allocate`], and not be used any more.
unsafe fn free(place: NonNull<u8>) {
    // SAFETY: By the function's contract.
    unsafe { kernel::bindings::kfree(place.as_ptr().cast()) };
}

/// # Safety
///
/// `head` must be that of a [`Buffer`] that was allocated and written, and that nobody uses.
unsafe fn export_head(
    head: NonNull<Head>,
    module: &'static ThisModule,
    fd_flags: u32,
) -> Result<DmaBuf> {
    // SAFETY: By the function's contract.
    let this = unsafe { head.as_ref() };
    // CAST: It was a `usize`.
    let size = this.entry.size() as usize;
    // SAFETY: The operations go with `priv`, and their release, which comes once, drops it.
    let exported = unsafe {
        dma_buf::export_raw(
            &this.entry,
            module,
            &OPERATIONS,
            head.as_ptr().cast(),
            size,
            fd_flags,
        )
    };
    if exported.is_err() {
        // SAFETY: There is no dma-buf, so the buffer is still ours.
        unsafe { (this.callbacks.release)(head) };
    }
    exported
}

static OPERATIONS: bindings::dma_buf_ops = bindings::dma_buf_ops {
    attach: Some(attach),
    detach: Some(detach),
    map_dma_buf: Some(map_dma_buf),
    unmap_dma_buf: Some(unmap_dma_buf),
    release: Some(release),
    begin_cpu_access: Some(begin_cpu_access::<Head>),
    end_cpu_access: Some(end_cpu_access::<Head>),
    mmap: Some(mmap),
    vmap: Some(vmap),
    vunmap: Some(vunmap),
    ..pin_init::zeroed()
};

/// A dma-buf that was exported here.
pub(crate) type PageBuffer<'a> = CpuBuffer<'a, Head>;

// SAFETY: Only `export` makes dma-bufs with these operations. It puts a head there, which is dropped
// when the dma-buf is released.
unsafe impl Private for Head {
    fn operations() -> &'static bindings::dma_buf_ops {
        &OPERATIONS
    }

    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn heap(&self) -> &Arc<Heap> {
        // SAFETY: By the type invariants the callbacks fit.
        unsafe { (self.callbacks.heap)(self) }
    }

    fn is_contiguous(&self) -> bool {
        self.runs().len() == 1
    }

    unsafe fn prepare(
        &self,
        locked: &Locked,
        offset: usize,
        length: usize,
        direction: Direction,
        turn: Turn,
    ) -> Result {
        // SAFETY: By the function's contract the lock is held.
        if let Some(mapping) = unsafe { &*self.address.get() } {
            // SAFETY: All of the buffer is mapped, and by the function's contract the part is inside.
            unsafe { mapping.prepare(offset, length, turn) };
        }
        // CAST: Widening.
        let is_all = length as u64 == self.entry.size();
        for attachment in locked.attachments() {
            // SAFETY: By the function's contract the dma-buf is ours, and the lock is held: the
            // attachment is live, and came through `attach`.
            let (list, device) = unsafe { parts(attachment) };
            if is_all {
                // SAFETY: The list is that of the device, and the lock is held.
                unsafe { list.sync(device, direction, turn) };
            } else {
                // SAFETY: As above; by the function's contract the part is inside.
                unsafe { list.sync_range(device, offset, length, direction, turn) };
            }
        }
        Ok(())
    }
}

/// # Safety
///
/// `attachment` must be a live attachment, through [`attach`], of a dma-buf that has [`OPERATIONS`].
unsafe fn parts<'a>(
    attachment: *mut bindings::dma_buf_attachment,
) -> (&'a ScatterList, &'a Device) {
    // SAFETY: By the function's contract `priv` is what `attach` put there, and the device is live.
    unsafe {
        (
            &*(*attachment).priv_.cast::<ScatterList>(),
            Device::from_raw((*attachment).dev),
        )
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a new attachment of a dma-buf that has [`OPERATIONS`].
unsafe extern "C" fn attach(
    buffer: *mut bindings::dma_buf,
    attachment: *mut bindings::dma_buf_attachment,
) -> c_int {
    // SAFETY: By the function's contract.
    let head = unsafe { private::<Head>(buffer) };
    from_result(|| {
        let list = ScatterList::new(head.runs())?;
        // SAFETY: By the function's contract the attachment is new, and `priv` is ours.
        unsafe { (*attachment).priv_ = KBox::into_raw(list).cast() };
        Ok(0)
    })
}

/// # Safety
///
/// Called by the dma-buf core only, once for an attachment that [`attach`] let in, which is not
/// mapped.
unsafe extern "C" fn detach(
    _buffer: *mut bindings::dma_buf,
    attachment: *mut bindings::dma_buf_attachment,
) {
    // SAFETY: By the function's contract `priv` is what `attach` put there, and is used no more.
    drop(unsafe { KBox::<ScatterList>::from_raw((*attachment).priv_.cast()) });
}

/// # Safety
///
/// Called by the dma-buf core only, with a live attachment that [`attach`] let in, and the
/// reservation lock held.
unsafe extern "C" fn map_dma_buf(
    attachment: *mut bindings::dma_buf_attachment,
    direction: dma_data_direction,
) -> *mut sg_table {
    // SAFETY: By the function's contract.
    let (list, device) = unsafe { parts(attachment) };
    // SAFETY: The list is that of the device, the lock is held, and the core unmaps before it
    // detaches or releases.
    match unsafe { list.map(device, Direction(direction)) } {
        Ok(()) => list.table(),
        Err(error) => error.to_ptr(),
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a table that [`map_dma_buf`] returned, once, and the
/// reservation lock held.
unsafe extern "C" fn unmap_dma_buf(
    attachment: *mut bindings::dma_buf_attachment,
    _table: *mut sg_table,
    direction: dma_data_direction,
) {
    // SAFETY: By the function's contract.
    let (list, device) = unsafe { parts(attachment) };
    // SAFETY: The list is that of the device, the lock is held, and the list is mapped that way.
    unsafe { list.unmap(device, Direction(direction)) };
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`] and a new area that
/// lies inside of it, whose owner's `mmap_lock` is held for writing.
unsafe extern "C" fn mmap(buffer: *mut bindings::dma_buf, area: *mut vm_area_struct) -> c_int {
    // SAFETY: By the function's contract.
    let head = unsafe { private::<Head>(buffer) };
    match head.fill {
        // SAFETY: By the function's contract the area is new, and lies inside the runs.
        Fill::AtOnce => from_result(|| unsafe { fill(head.runs(), area) }.map(|()| 0)),
        Fill::OnFault => {
            // SAFETY: The area is new and its owner's lock is held.
            if !unsafe { bindings::ringfence_prepare_faults(area) } {
                return EINVAL.to_errno();
            }
            // SAFETY: The area is ours to set up. It has a reference to the dma-buf's file, and
            // through it to the head.
            unsafe {
                (*area).vm_ops = &raw const AREA_OPERATIONS;
                (*area).vm_private_data = ptr::from_ref(head).cast_mut().cast();
            }
            0
        }
    }
}

/// Puts all pages into a process's mapping.
///
/// # Safety
///
/// `area` must be new and lie inside `runs`, and its owner's `mmap_lock` must be held for writing.
/// The pages must outlive the area.
unsafe fn fill(runs: &[Run], area: *mut vm_area_struct) -> Result {
    // SAFETY: By the function's contract the area is live. The first call may change the offset.
    let (mut address, end, mut skip) = unsafe {
        let bounds = &(*area).__bindgen_anon_1.__bindgen_anon_1;
        (bounds.vm_start, bounds.vm_end, (*area).vm_pgoff)
    };
    for run in runs {
        if skip >= run.pages() {
            skip -= run.pages();
            continue;
        }
        if address >= end {
            break;
        }
        let pages = (run.pages() - skip).min((end - address) >> PAGE_SHIFT);
        // SAFETY: The part is inside the run and inside the area, and the pages outlive the area.
        to_result(unsafe { bindings::ringfence_map_pages(area, address, run.nth(skip), pages) })?;
        address += pages << PAGE_SHIFT;
        skip = 0;
    }
    Ok(())
}

/// Pages that are inserted behind the one that is touched. With them, a fault costs
/// no more than the two that a page costs in the kernel's own CMA heap.
const FAULT_AROUND: usize = 7;

static AREA_OPERATIONS: vm_operations_struct = vm_operations_struct {
    fault: Some(fault),
    ..pin_init::zeroed()
};

/// # Safety
///
/// Called by the kernel only, for a fault in an area that [`mmap`] has set up.
unsafe extern "C" fn fault(fault: *mut vm_fault) -> vm_fault_t {
    // SAFETY: By the function's contract the area's private data is the head, which its file keeps.
    let (head, mut skip) = unsafe {
        let place = &(*fault).__bindgen_anon_1;
        let head = &*(*place.vma).vm_private_data.cast::<Head>();
        (head, place.pgoff)
    };
    for run in head.runs() {
        if skip < run.pages() {
            let more = (run.pages() - skip - 1).min(FAULT_AROUND);
            // SAFETY: The pages are inside the run, and outlive the area.
            return unsafe { bindings::ringfence_insert_pages(fault, run.nth(skip), more) };
        }
        skip -= run.pages();
    }
    kernel::bindings::vm_fault_reason_VM_FAULT_SIGBUS
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`] and is not mapped
/// for the kernel, and the reservation lock held.
unsafe extern "C" fn vmap(buffer: *mut bindings::dma_buf, map: *mut iosys_map) -> c_int {
    // SAFETY: By the function's contract.
    let head = unsafe { private::<Head>(buffer) };
    from_result(|| {
        // SAFETY: The pages are the buffer's, which outlives its mapping.
        let mapping = unsafe { KernelMapping::new(head.runs()) }?;
        let mut answer: iosys_map = pin_init::zeroed();
        answer.__bindgen_anon_1.vaddr = mapping.address();
        // SAFETY: By the function's contract there is room for the answer, and the lock is held.
        unsafe {
            map.write(answer);
            *head.address.get() = Some(mapping);
        }
        Ok(0)
    })
}

/// # Safety
///
/// Called by the dma-buf core only, after [`vmap`], when nobody uses the mapping any more, and with
/// the reservation lock held.
unsafe extern "C" fn vunmap(buffer: *mut bindings::dma_buf, map: *mut iosys_map) {
    // SAFETY: By the function's contract.
    let head = unsafe { private::<Head>(buffer) };
    // SAFETY: By the function's contract the lock is held.
    drop(unsafe { (*head.address.get()).take() });
    // SAFETY: By the function's contract this is the core's map.
    unsafe { map.write(pin_init::zeroed()) };
}

/// # Safety
///
/// Called by the dma-buf core only, with a dma-buf that has [`OPERATIONS`] and that nobody uses any
/// more, once.
unsafe extern "C" fn release(buffer: *mut bindings::dma_buf) {
    // SAFETY: By the function's contract this is the last use of `priv`, which `export` put there.
    unsafe {
        let head = NonNull::from(private::<Head>(buffer));
        (head.as_ref().callbacks.release)(head);
    }
}
