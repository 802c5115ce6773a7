// SPDX-License-Identifier: GPL-2.0

//! Exporting parts of a region as a dma-buf that the CPU can use.
//!
//! The memory has no `struct page` that anybody may follow, and the kernel maps it
//! nowhere by itself. So everything here goes by physical addresses: a process's
//! mapping is made of bare frames, in blocks where they fit; the kernel's own
//! mapping is made when somebody asks for it; and caches are maintained through that
//! one, as the DMA layer's functions would look for a linear mapping.
//!
//! All mappings are cached ones, those of the processes, of the kernel and of the
//! region's scrubber, so that no two of them disagree about a byte. A coherent device
//! needs no more than that. For one that is not, the caches are written back before
//! its turn and dropped after it, when it is mapped and unmapped and around every
//! access that the CPU announces.
//!
//! # Locking
//!
//! The dma-buf's reservation lock (see [`cpu_buffer`](crate::cpu_buffer)) also protects
//! whether attachments are mapped, and the kernel's mapping.

use core::{
    cell::{
        Cell,
        UnsafeCell, //
    },
    ptr::NonNull, //
};

use crate::{
    attachment::{
        self,
        CpuView,
        Direction,
        Mapping,
        PhysRange, //
    },
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
    region_area,
    region_mapping::{
        can_maintain_caches,
        RegionMapping, //
    },
    registry::{
        Entry,
        Heap, //
    },
    reserved_mem::Region,
    scatter_list::Turn, //
};
use kernel::{
    bindings::{
        dma_data_direction,
        iosys_map,
        sg_table,
        vm_area_struct, //
    },
    device::Device,
    error::from_result,
    module::this_module,
    prelude::*,
    sync::Arc, //
};

/// A heap's side of a buffer. Dropping it gives the memory back: then nobody maps it
/// any more, neither a process nor the kernel nor a device.
///
/// The drop runs in process context and may sleep.
#[vtable]
pub trait Owner: Send + Sync + Sized + 'static {
    /// The heap, which names the dma-buf.
    fn heap(&self) -> &Arc<Heap>;
}

/// [`Owner`] without its associated items.
trait Held: Send + Sync {
    fn heap(&self) -> &Arc<Heap>;
}

impl<T: Owner> Held for T {
    fn heap(&self) -> &Arc<Heap> {
        Owner::heap(self)
    }
}

/// The kernel's mapping, and how many need it.
#[derive(Default)]
struct KernelView {
    mapping: Option<RegionMapping>,
    users: usize,
}

/// What `priv` of a dma-buf points to.
///
/// The order of the fields is that of their drop: first the memory goes back to its
/// heap, then what it was charged to, at last the region.
///
/// # Invariants
///
/// - `parts` are at least one, lie on pages in the region, and never change.
/// - `view` is only used with the reservation lock held.
pub(crate) struct Buffer {
    view: UnsafeCell<KernelView>,
    owner: KBox<dyn Held>,
    entry: Entry,
    parts: KVVec<PhysRange>,
    _region: Arc<Region>,
}

/// What `priv` of an attachment points to.
struct Attached {
    is_coherent: bool,
    mapped: Cell<Option<Direction>>,
}

impl Attached {
    /// Whether the caches must be maintained for the device's sake, before a turn that
    /// follows or precedes an access of the CPU in the direction `wanted`.
    fn needs(&self, wanted: Direction, turn: Turn) -> bool {
        let Some(mapped) = self.mapped.get() else {
            return false;
        };
        // A device that only reads or only writes needs no more than that.
        let direction = if mapped == Direction::BOTH {
            wanted
        } else {
            mapped
        };
        !self.is_coherent && (turn == Turn::Device || direction != Direction::TO_DEVICE)
    }
}

/// Makes a dma-buf of `size` bytes out of `parts` of `region`, one behind the other;
/// when that fails the owner is dropped.
///
/// `fd_flags` are those of the allocation ioctl, which the dma-heap core has
/// checked.
///
/// # Errors
///
/// `EINVAL` for parts that are not pages of the region, or fewer than `size` bytes;
/// `ENOMEM`; `ENOENT` when the owner's module is being unloaded.
pub fn export<O: Owner>(
    owner: KBox<O>,
    region: Arc<Region>,
    parts: KVVec<PhysRange>,
    size: usize,
    fd_flags: u32,
) -> Result<DmaBuf> {
    let module = this_module::<O::OwnerModule>();
    export_held(owner, region, parts, module, size, fd_flags)
}

fn export_held(
    owner: KBox<dyn Held>,
    region: Arc<Region>,
    parts: KVVec<PhysRange>,
    module: &'static ThisModule,
    size: usize,
    fd_flags: u32,
) -> Result<DmaBuf> {
    let total = parts.iter().map(|part| part.size).sum::<u64>();
    // CAST: Widening.
    if total < size as u64 || size == 0 || !parts.iter().all(|&part| region.has_pages(part)) {
        return Err(EINVAL);
    }
    // From here on processes and devices leave in the caches what others must not find.
    region.use_caches();
    // INVARIANT: Checked above.
    let private = Buffer {
        view: UnsafeCell::new(KernelView::default()),
        entry: Entry::new(owner.heap(), size as u64, None),
        owner,
        parts,
        _region: region,
    };
    let private = KBox::into_raw(KBox::new(private, GFP_KERNEL)?);
    // SAFETY: The operations go with `private`, and their release, which comes once, drops it with
    // the entry.
    let exported = unsafe {
        dma_buf::export_raw(
            &(*private).entry,
            module,
            &OPERATIONS,
            private.cast(),
            size,
            fd_flags,
        )
    };
    exported.inspect_err(|_| {
        // SAFETY: There is no dma-buf, so `private` is still ours.
        drop(unsafe { KBox::from_raw(private) });
    })
}

static OPERATIONS: bindings::dma_buf_ops = bindings::dma_buf_ops {
    attach: Some(attach),
    detach: Some(detach),
    map_dma_buf: Some(map_dma_buf),
    unmap_dma_buf: Some(unmap_dma_buf),
    release: Some(release),
    begin_cpu_access: Some(begin_cpu_access::<Buffer>),
    end_cpu_access: Some(end_cpu_access::<Buffer>),
    mmap: Some(mmap),
    vmap: Some(vmap),
    vunmap: Some(vunmap),
    ..pin_init::zeroed()
};

/// A dma-buf that was exported here.
pub(crate) type RegionBuffer<'a> = CpuBuffer<'a, Buffer>;

// SAFETY: Only `export` makes dma-bufs with these operations. It puts a buffer there, which is
// dropped when the dma-buf is released.
unsafe impl Private for Buffer {
    fn operations() -> &'static bindings::dma_buf_ops {
        &OPERATIONS
    }

    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn heap(&self) -> &Arc<Heap> {
        self.owner.heap()
    }

    fn is_contiguous(&self) -> bool {
        self.parts.len() == 1
    }

    unsafe fn prepare(
        &self,
        locked: &Locked,
        offset: usize,
        length: usize,
        direction: Direction,
        turn: Turn,
    ) -> Result {
        let is_needed = locked.attachments().any(|attachment| {
            // SAFETY: By the function's contract the dma-buf is ours, and the lock is held: the
            // attachment is live, and came through `attach`.
            unsafe { attached(attachment) }.needs(direction, turn)
        });
        if !is_needed {
            return Ok(());
        }
        // Once is enough for all.
        // SAFETY: By the function's contract the lock is held.
        unsafe { self.maintain(offset, length, turn) }
    }
}

/// # Safety
///
/// `attachment` must be a live attachment, through [`attach`], of a dma-buf that has [`OPERATIONS`].
unsafe fn attached<'a>(attachment: *mut bindings::dma_buf_attachment) -> &'a Attached {
    // SAFETY: By the function's contract `priv` is what `attach` put there.
    unsafe { &*(*attachment).priv_.cast::<Attached>() }
}

impl Buffer {
    /// Makes the kernel's mapping unless it is there, and answers where it is. It stays
    /// until [`Self::leave`].
    ///
    /// # Safety
    ///
    /// The reservation lock must be held.
    unsafe fn enter(&self) -> Result<*mut c_void> {
        // SAFETY: By the type invariants, with the lock that the caller holds.
        let view = unsafe { &mut *self.view.get() };
        let mapping = match view.mapping.take() {
            Some(mapping) => mapping,
            // SAFETY: By the type invariants the parts are in the region, whose memory is nobody's
            // but this buffer's, and which has no mappings but cached ones.
            None => unsafe { RegionMapping::new(&self.parts) }?,
        };
        let address = mapping.address();
        view.mapping = Some(mapping);
        view.users += 1;
        Ok(address)
    }

    /// Ends the need of somebody who has [entered](Self::enter).
    ///
    /// # Safety
    ///
    /// The reservation lock must be held.
    unsafe fn leave(&self) {
        // SAFETY: By the type invariants, with the lock that the caller holds.
        let view = unsafe { &mut *self.view.get() };
        view.users = view.users.saturating_sub(1);
        if view.users == 0 {
            view.mapping = None;
        }
    }

    /// Maintains the caches for part of the buffer.
    ///
    /// # Errors
    ///
    /// `EINVAL` when that is not inside the buffer.
    ///
    /// # Safety
    ///
    /// The reservation lock must be held.
    unsafe fn maintain(&self, offset: usize, length: usize, turn: Turn) -> Result {
        // SAFETY: By the type invariants, with the lock that the caller holds.
        match unsafe { &(*self.view.get()).mapping } {
            Some(mapping) => mapping.prepare(offset, length, turn),
            // Nobody is attached who would need it.
            None => Ok(()),
        }
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a new attachment of a dma-buf that has [`OPERATIONS`], the
/// reservation lock not held.
unsafe extern "C" fn attach(
    dma_buf: *mut bindings::dma_buf,
    attachment: *mut bindings::dma_buf_attachment,
) -> c_int {
    // SAFETY: By the function's contract.
    let (buffer, device) = unsafe {
        (
            private::<Buffer>(dma_buf),
            Device::from_raw((*attachment).dev),
        )
    };
    from_result(|| {
        if buffer.parts.len() > 1 {
            attachment::admit_scattered(device, buffer.owner.heap())?;
        }
        // SAFETY: The device is live.
        let is_coherent = unsafe { bindings::ringfence_dma_is_coherent((*attachment).dev) };
        if !is_coherent && !can_maintain_caches() {
            kernel::do_once_lite! {
                dev_err!(
                    device,
                    "not coherent, and this kernel can't maintain caches for buffers of {}\n",
                    buffer.owner.heap().name()
                );
            }
            return Err(EOPNOTSUPP);
        }
        let private = KBox::new(
            Attached {
                is_coherent,
                mapped: Cell::new(None),
            },
            GFP_KERNEL,
        )?;
        if !is_coherent {
            // SAFETY: By the function's contract the dma-buf is live, and the lock not held.
            let _locked = unsafe { Locked::new(dma_buf) };
            // SAFETY: The lock is held.
            unsafe { buffer.enter() }?;
        }
        // SAFETY: By the function's contract the attachment is new, and `priv` is ours.
        unsafe { (*attachment).priv_ = KBox::into_raw(private).cast() };
        Ok(0)
    })
}

/// # Safety
///
/// Called by the dma-buf core only, once for an attachment that [`attach`] let in, which is not
/// mapped, the reservation lock not held.
unsafe extern "C" fn detach(
    dma_buf: *mut bindings::dma_buf,
    attachment: *mut bindings::dma_buf_attachment,
) {
    // SAFETY: By the function's contract `priv` is what `attach` put there, and is used no more.
    let attached = unsafe { KBox::<Attached>::from_raw((*attachment).priv_.cast()) };
    if !attached.is_coherent {
        // SAFETY: By the function's contract.
        let (_locked, buffer) = unsafe { (Locked::new(dma_buf), private::<Buffer>(dma_buf)) };
        // SAFETY: The lock is held, and `attach` has entered.
        unsafe { buffer.leave() };
    }
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
    let (buffer, size, attached, device) = unsafe {
        let dma_buf = (*attachment).dmabuf;
        (
            private::<Buffer>(dma_buf),
            (*dma_buf).size,
            attached(attachment),
            Device::from_raw((*attachment).dev),
        )
    };
    let direction = Direction(direction);
    // CAST: Widening.
    let mapping = Mapping::of_parts(
        device,
        &buffer.parts,
        size as u64,
        CpuView::Cached,
        direction,
    );
    match mapping {
        Ok(mapping) => {
            if !attached.is_coherent {
                // SAFETY: The lock is held. All of the buffer is inside itself.
                let _ = unsafe { buffer.maintain(0, size, Turn::Device) };
            }
            attached.mapped.set(Some(direction));
            Mapping::into_table(mapping)
        }
        Err(error) => error.to_ptr(),
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a table that [`map_dma_buf`] returned, once, and the
/// reservation lock held.
unsafe extern "C" fn unmap_dma_buf(
    attachment: *mut bindings::dma_buf_attachment,
    table: *mut sg_table,
    _direction: dma_data_direction,
) {
    // SAFETY: By the function's contract.
    let (buffer, size, attached) = unsafe {
        let dma_buf = (*attachment).dmabuf;
        (
            private::<Buffer>(dma_buf),
            (*dma_buf).size,
            attached(attachment),
        )
    };
    // SAFETY: By the function's contract this is what `into_table` returned.
    drop(unsafe { Mapping::from_table(table) });
    if attached.needs(Direction::BOTH, Turn::Cpu) {
        // SAFETY: The lock is held. All of the buffer is inside itself.
        let _ = unsafe { buffer.maintain(0, size, Turn::Cpu) };
    }
    attached.mapped.set(None);
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`] and a new area that
/// lies inside of it, whose owner's `mmap_lock` is held for writing.
unsafe extern "C" fn mmap(dma_buf: *mut bindings::dma_buf, area: *mut vm_area_struct) -> c_int {
    // SAFETY: By the function's contract.
    let buffer = unsafe { private::<Buffer>(dma_buf) };
    // SAFETY: By the function's contract the area is new and inside the parts. It has a reference to
    // the dma-buf's file, and through it to the parts, which never change.
    from_result(|| unsafe { region_area::prepare(area, &buffer.parts) }.map(|()| 0))
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`] and is not mapped
/// for the kernel, and the reservation lock held.
unsafe extern "C" fn vmap(dma_buf: *mut bindings::dma_buf, map: *mut iosys_map) -> c_int {
    // SAFETY: By the function's contract.
    let buffer = unsafe { private::<Buffer>(dma_buf) };
    from_result(|| {
        let mut answer: iosys_map = pin_init::zeroed();
        // SAFETY: By the function's contract the lock is held.
        answer.__bindgen_anon_1.vaddr = unsafe { buffer.enter() }?;
        // SAFETY: By the function's contract there is room for the answer.
        unsafe { map.write(answer) };
        Ok(0)
    })
}

/// # Safety
///
/// Called by the dma-buf core only, after [`vmap`], when nobody uses the mapping any more, and with
/// the reservation lock held.
unsafe extern "C" fn vunmap(dma_buf: *mut bindings::dma_buf, map: *mut iosys_map) {
    // SAFETY: By the function's contract; the lock is held, and `vmap` has entered. `map` is the
    // core's.
    unsafe {
        private::<Buffer>(dma_buf).leave();
        map.write(pin_init::zeroed());
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a dma-buf that has [`OPERATIONS`] and that nobody uses any
/// more, once.
unsafe extern "C" fn release(dma_buf: *mut bindings::dma_buf) {
    // SAFETY: By the function's contract this is the last use of `priv`, which `export` put there.
    let private = unsafe { NonNull::new_unchecked((*dma_buf).priv_.cast::<Buffer>()) };
    // SAFETY: As above; it was boxed.
    drop(unsafe { KBox::from_raw(private.as_ptr()) });
}
