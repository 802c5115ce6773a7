// SPDX-License-Identifier: GPL-2.0

//! Exporting memory as a dma-buf.
//!
//! A heap's buffer type implements [`Exporter`] and is given to [`export`]; it
//! is dropped when the last reference of the dma-buf is gone, and until then
//! the heap's module can't be unloaded. All dma-bufs made here share one table
//! of operations, as do all of [`page_buffer`](crate::page_buffer) and all of
//! [`region_buffer`](crate::region_buffer), and by these three [`DmaBuf`] tells ours from foreign
//! ones.
//!
//! There is no `vmap`: the dma-buf core wants the operation absent, not failing.
//! Buffers that the CPU can use are made by the other two.

use core::ptr::NonNull;

use crate::{
    attachment::{
        Direction,
        Mapping, //
    },
    bindings,
    dmem::Charge,
    inject,
    page_buffer::PageBuffer,
    region_buffer::RegionBuffer,
    registry::{
        Entry,
        Heap, //
    },
    scatter_list::Turn, //
};
use kernel::{
    bindings::{
        dma_data_direction,
        sg_table,
        vm_area_struct, //
    },
    device::Device,
    error::{
        from_err_ptr,
        from_result, //
    },
    fs::File,
    module::this_module,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// What a buffer is, for `/dev/ringfence`.
pub struct Info {
    /// Its heap.
    pub heap: Arc<Heap>,
    /// `RINGFENCE_*` flags of the UAPI.
    pub flags: u32,
    /// The secure world's name of the buffer; 0 when it is not protected.
    pub handle: u64,
    /// Number of the use case.
    pub use_case: u32,
}

/// The memory behind a dma-buf.
///
/// Dropping it releases the memory. The drop runs in process context and may
/// sleep.
#[vtable]
pub trait Exporter: Send + Sync + Sized + 'static {
    /// Tells whether `device` may use the buffer.
    ///
    /// # Errors
    ///
    /// `EACCES` when it may not.
    fn attach(&self, device: &Device) -> Result;

    /// Maps the buffer for `device`, which was let in by [`Self::attach`].
    ///
    /// # Errors
    ///
    /// See [`Mapping::new`].
    fn map(&self, device: &Device, direction: Direction) -> Result<KBox<Mapping>>;

    /// Tells whether the CPU may access the buffer now.
    ///
    /// # Errors
    ///
    /// `EACCES` when it may not.
    fn begin_cpu_access(&self) -> Result;

    /// Says what the buffer is.
    ///
    /// # Errors
    ///
    /// `EIO` when the secure world has lost the buffer.
    fn info(&self) -> Result<Info>;
}

/// [`Exporter`] without its associated items, so that one table of operations
/// serves every type.
trait Callbacks: Send + Sync {
    fn attach(&self, device: &Device) -> Result;
    fn map(&self, device: &Device, direction: Direction) -> Result<KBox<Mapping>>;
    fn begin_cpu_access(&self) -> Result;
    fn info(&self) -> Result<Info>;
}

impl<T: Exporter> Callbacks for T {
    fn attach(&self, device: &Device) -> Result {
        Exporter::attach(self, device)
    }

    fn map(&self, device: &Device, direction: Direction) -> Result<KBox<Mapping>> {
        Exporter::map(self, device, direction)
    }

    fn begin_cpu_access(&self) -> Result {
        Exporter::begin_cpu_access(self)
    }

    fn info(&self) -> Result<Info> {
        Exporter::info(self)
    }
}

/// What `priv` of our dma-bufs points to.
///
/// The order of the fields is that of their drop: first the memory goes back.
struct Exported {
    callbacks: KBox<dyn Callbacks>,
    entry: Entry,
}

/// Whose a dma-buf is.
enum Kind<'a> {
    /// Ours, of [`page_buffer`](crate::page_buffer).
    Pages(PageBuffer<'a>),
    /// Ours, of [`region_buffer`](crate::region_buffer).
    Region(RegionBuffer<'a>),
    /// Ours, of [`export`]: for devices only.
    Device(&'a Exported),
    /// Somebody else's.
    Foreign,
}

/// A reference to a dma-buf.
///
/// # Invariants
///
/// The pointer is a live dma-buf, and owns one reference to it.
pub struct DmaBuf(NonNull<bindings::dma_buf>);

// SAFETY: References to a dma-buf may be held and dropped from any thread.
unsafe impl Send for DmaBuf {}

impl DmaBuf {
    /// The dma-buf behind a file descriptor of the current process.
    ///
    /// # Errors
    ///
    /// `EBADF` when there is no such file, `EINVAL` when it is no dma-buf.
    pub(crate) fn get(fd: i32) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let raw = from_err_ptr(unsafe { bindings::dma_buf_get(fd) })?;
        // INVARIANT: The function returned a reference.
        Ok(Self(NonNull::new(raw).ok_or(EINVAL)?))
    }

    /// Gives the reference away.
    pub(crate) fn into_raw(self) -> *mut bindings::dma_buf {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Bytes.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: By the type invariants the dma-buf is live, and its size never changes.
        unsafe { (*self.0.as_ptr()).size }
    }

    /// What the buffer is.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a dma-buf that is not one of Ringfence's.
    pub(crate) fn info(&self) -> Result<Info> {
        match self.kind() {
            Kind::Pages(buffer) => Ok(buffer.info()),
            Kind::Region(buffer) => Ok(buffer.info()),
            Kind::Device(exported) => exported.callbacks.info(),
            Kind::Foreign => Err(EINVAL),
        }
    }

    /// Has the buffer hold what it is charged to.
    pub(crate) fn hold(&self, charge: Charge) {
        match self.kind() {
            Kind::Pages(buffer) => buffer.entry().hold(charge),
            Kind::Region(buffer) => buffer.entry().hold(charge),
            Kind::Device(exported) => exported.entry.hold(charge),
            // Nothing that a backend answers with; the charge is given back.
            Kind::Foreign => {}
        }
    }

    /// The file that user space gets, with a reference of its own.
    pub(crate) fn file(&self) -> ARef<File> {
        // SAFETY: By the type invariants the dma-buf is live, and with it its file, which does not
        // change. A dma-buf's file has no position that a call could be using.
        unsafe { File::from_raw_file((*self.0.as_ptr()).file) }.into()
    }

    /// Makes `length` bytes from `offset` on ready for whoever uses them next: the
    /// CPU, after devices, or devices, after the CPU. What is not mapped for any
    /// device is ready.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a dma-buf that is not one of Ringfence's, and for bytes that are
    /// not inside it, or none; `EPERM` for one that the CPU can't map; `EACCES` for
    /// one that is protected; `EINTR` when a signal ends the wait for devices.
    pub fn sync(&self, offset: usize, length: usize, direction: Direction, turn: Turn) -> Result {
        match self.kind() {
            Kind::Pages(buffer) => buffer.sync(offset, length, direction, turn),
            Kind::Region(buffer) => buffer.sync(offset, length, direction, turn),
            Kind::Device(exported) => {
                exported.callbacks.begin_cpu_access()?;
                Err(EPERM)
            }
            Kind::Foreign => Err(EINVAL),
        }
    }

    /// Tells ours from foreign ones.
    fn kind(&self) -> Kind<'_> {
        let raw = self.0.as_ptr();
        // SAFETY: By the type invariants the dma-buf is live. What is read through the reference, its
        // size, operations and private data, never changes.
        let buffer = unsafe { &*raw };
        if let Some(buffer) = PageBuffer::new(buffer) {
            Kind::Pages(buffer)
        } else if let Some(buffer) = RegionBuffer::new(buffer) {
            Kind::Region(buffer)
        } else if core::ptr::eq(buffer.ops, &raw const OPERATIONS) {
            // SAFETY: It has our operations, so it was made by `export`, and is live.
            Kind::Device(unsafe { exported(raw) })
        } else {
            Kind::Foreign
        }
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::dma_buf_put(self.0.as_ptr()) };
    }
}

/// Makes a dma-buf of `size` bytes out of `exporter`, which is dropped when that
/// fails.
///
/// `fd_flags` are the flags of the allocation ioctl, which the dma-heap core has
/// checked.
///
/// # Errors
///
/// `ENOMEM`, or `ENOENT` when the exporter's module is being unloaded.
pub fn export<T: Exporter>(
    heap: &Heap,
    exporter: KBox<T>,
    size: usize,
    fd_flags: u32,
) -> Result<DmaBuf> {
    let owner = this_module::<T::OwnerModule>();
    export_callbacks(heap, exporter, owner, size, fd_flags)
}

fn export_callbacks(
    heap: &Heap,
    callbacks: KBox<dyn Callbacks>,
    owner: &'static ThisModule,
    size: usize,
    fd_flags: u32,
) -> Result<DmaBuf> {
    // CAST: Widening.
    let entry = Entry::new(heap, size as u64, None);
    let private = KBox::into_raw(KBox::new(Exported { callbacks, entry }, GFP_KERNEL)?);
    // SAFETY: The operations go with `private`, and their release, which comes once, drops it with
    // the entry.
    let exported = unsafe {
        export_raw(
            &(*private).entry,
            owner,
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

/// Makes a dma-buf that has these operations and private data, and enters it into
/// the books of its heap, which is the entry's.
///
/// # Safety
///
/// The operations must take `private` for the private data, which must be valid until their
/// `release` is called. The entry must stay where it is until it is struck off or dropped. On
/// failure there is no dma-buf, and nothing is called.
pub(crate) unsafe fn export_raw(
    entry: &Entry,
    owner: &'static ThisModule,
    operations: &'static bindings::dma_buf_ops,
    private: *mut c_void,
    size: usize,
    fd_flags: u32,
) -> Result<DmaBuf> {
    inject::check(inject::Point::Export)?;

    let mut info: bindings::dma_buf_export_info = pin_init::zeroed();
    // A heap is never freed, so its name outlives the dma-buf.
    info.exp_name = entry.heap().name().as_char_ptr();
    info.owner = owner.as_ptr();
    info.ops = operations;
    info.size = size;
    // CAST: The flags of an open file are an `int` there and unsigned in the ioctl.
    info.flags = fd_flags as c_int;
    info.priv_ = private;

    // SAFETY: `info` is complete, and as the caller promises.
    let raw = from_err_ptr(unsafe { bindings::dma_buf_export(&info) })?;
    // INVARIANT: The function returned a reference.
    let buffer = DmaBuf(NonNull::new(raw).ok_or(ENOMEM)?);
    // SAFETY: The dma-buf is live; the entry is as the caller promises.
    unsafe { entry.enter(bindings::ringfence_dma_buf_inode(raw)) };
    Ok(buffer)
}

/// # Safety
///
/// `buffer` must be live and made by [`export`].
unsafe fn exported<'a>(buffer: *mut bindings::dma_buf) -> &'a Exported {
    // SAFETY: By the function's contract `priv` is what `export` put there, and it is dropped only
    // when the dma-buf is released.
    unsafe { &*(*buffer).priv_.cast::<Exported>() }
}

/// # Safety
///
/// `attachment` must be a live attachment of a dma-buf made by [`export`].
unsafe fn parts<'a>(attachment: *mut bindings::dma_buf_attachment) -> (&'a Exported, &'a Device) {
    // SAFETY: By the function's contract the attachment has a live dma-buf of ours and a live
    // device.
    unsafe {
        (
            exported((*attachment).dmabuf),
            Device::from_raw((*attachment).dev),
        )
    }
}

static OPERATIONS: bindings::dma_buf_ops = bindings::dma_buf_ops {
    attach: Some(attach),
    map_dma_buf: Some(map_dma_buf),
    unmap_dma_buf: Some(unmap_dma_buf),
    release: Some(release),
    begin_cpu_access: Some(begin_cpu_access),
    mmap: Some(mmap),
    ..pin_init::zeroed()
};

/// # Safety
///
/// Called by the dma-buf core only, with a new attachment of a dma-buf that has [`OPERATIONS`].
unsafe extern "C" fn attach(
    _buffer: *mut bindings::dma_buf,
    attachment: *mut bindings::dma_buf_attachment,
) -> c_int {
    // SAFETY: By the function's contract the dma-buf has our operations: `export` made it.
    let (exported, device) = unsafe { parts(attachment) };
    from_result(|| exported.callbacks.attach(device).map(|()| 0))
}

/// # Safety
///
/// Called by the dma-buf core only, with a live attachment of a dma-buf that has [`OPERATIONS`].
unsafe extern "C" fn map_dma_buf(
    attachment: *mut bindings::dma_buf_attachment,
    direction: dma_data_direction,
) -> *mut sg_table {
    // SAFETY: By the function's contract the dma-buf has our operations: `export` made it.
    let (exported, device) = unsafe { parts(attachment) };
    match exported.callbacks.map(device, Direction(direction)) {
        Ok(mapping) => Mapping::into_table(mapping),
        Err(error) => error.to_ptr(),
    }
}

/// # Safety
///
/// Called by the dma-buf core only, with a table that [`map_dma_buf`] returned, once.
unsafe extern "C" fn unmap_dma_buf(
    _attachment: *mut bindings::dma_buf_attachment,
    table: *mut sg_table,
    _direction: dma_data_direction,
) {
    // SAFETY: By the function's contract this is what `into_table` returned.
    drop(unsafe { Mapping::from_table(table) });
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`].
unsafe extern "C" fn begin_cpu_access(
    buffer: *mut bindings::dma_buf,
    _direction: dma_data_direction,
) -> c_int {
    // SAFETY: By the function's contract the dma-buf has our operations: `export` made it.
    let exported = unsafe { exported(buffer) };
    from_result(|| exported.callbacks.begin_cpu_access().map(|()| 0))
}

/// # Safety
///
/// Called by the dma-buf core only, with a live dma-buf that has [`OPERATIONS`].
unsafe extern "C" fn mmap(_buffer: *mut bindings::dma_buf, _area: *mut vm_area_struct) -> c_int {
    // Without this operation the answer would be EINVAL, which says too little.
    EPERM.to_errno()
}

/// # Safety
///
/// Called by the dma-buf core only, with a dma-buf that has [`OPERATIONS`] and that nobody uses any more, once.
unsafe extern "C" fn release(buffer: *mut bindings::dma_buf) {
    // SAFETY: By the function's contract this is the last use of `priv`, which `export` put there.
    drop(unsafe { KBox::<Exported>::from_raw((*buffer).priv_.cast()) });
}
