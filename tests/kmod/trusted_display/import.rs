// SPDX-License-Identifier: GPL-2.0

//! A dma-buf in the hands of a device.
//!
//! The kernel crate has no abstraction for importers of dma-bufs.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use kernel::{
    bindings::{
        dma_data_direction,
        sg_table, //
    },
    device::Device,
    error::from_err_ptr,
    prelude::*,
    scatterlist::SGTable,
    sync::aref::ARef, //
};

/// `struct dma_buf`, of which only the address matters here.
#[repr(C)]
struct RawBuffer {
    _opaque: [u8; 0],
}

/// `struct dma_buf_attachment`, of which only the address matters here.
#[repr(C)]
struct RawAttachment {
    _opaque: [u8; 0],
}

extern "C" {
    fn dma_buf_get(fd: c_int) -> *mut RawBuffer;
    fn dma_buf_put(buffer: *mut RawBuffer);
    /// Takes a `struct device`.
    fn dma_buf_attach(buffer: *mut RawBuffer, device: *mut c_void) -> *mut RawAttachment;
    fn dma_buf_detach(buffer: *mut RawBuffer, attachment: *mut RawAttachment);
    fn dma_buf_map_attachment_unlocked(
        attachment: *mut RawAttachment,
        direction: dma_data_direction,
    ) -> *mut sg_table;
    fn dma_buf_unmap_attachment_unlocked(
        attachment: *mut RawAttachment,
        table: *mut sg_table,
        direction: dma_data_direction,
    );
}

/// The display reads.
const DIRECTION: dma_data_direction = dma_data_direction::DMA_TO_DEVICE;

/// A reference to a dma-buf.
///
/// # Invariants
///
/// The pointer is a live dma-buf, and owns one reference to it.
struct Buffer(NonNull<RawBuffer>);

impl Buffer {
    /// The buffer behind a file descriptor of the current process.
    ///
    /// # Errors
    ///
    /// `EBADF` when there is no such descriptor, `EINVAL` when it is no dma-buf's.
    fn get(fd: i32) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let raw = from_err_ptr(unsafe { dma_buf_get(fd) })?;
        // INVARIANT: `dma_buf_get` has taken the reference.
        Ok(Self(NonNull::new(raw).ok_or(EINVAL)?))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { dma_buf_put(self.0.as_ptr()) };
    }
}

/// A buffer that is attached to a device.
///
/// # Invariants
///
/// The pointer is a live attachment of `buffer` to `_device`, and ours alone.
struct Attachment {
    raw: NonNull<RawAttachment>,
    buffer: Buffer,
    _device: ARef<Device>,
}

impl Attachment {
    fn new(buffer: Buffer, device: &Device) -> Result<Self> {
        // CAST: `Device` is a transparent wrapper of `struct device`.
        let raw = core::ptr::from_ref(device).cast::<c_void>().cast_mut();
        // SAFETY: The buffer is live by its type's invariants, and so is the device, to which
        // there is a reference.
        let raw = from_err_ptr(unsafe { dma_buf_attach(buffer.0.as_ptr(), raw) })?;
        // INVARIANT: It has just been made, for a device to which a reference is kept.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(EINVAL)?,
            buffer,
            _device: device.into(),
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the attachment is live, of this buffer, and ours;
        // whoever mapped it owns it, and has unmapped it before.
        unsafe { dma_buf_detach(self.buffer.0.as_ptr(), self.raw.as_ptr()) };
    }
}

/// A buffer that a device reads, at consecutive addresses, until this is dropped.
///
/// # Invariants
///
/// `table` is the mapping of `attachment` in [`DIRECTION`], and ours alone.
pub(crate) struct Import {
    table: NonNull<sg_table>,
    attachment: Attachment,
    start: u64,
    size: u64,
}

// SAFETY: Attachments and mappings may be used and given back from any thread.
unsafe impl Send for Import {}

impl Import {
    /// Attaches the buffer behind a file descriptor of the current process to a
    /// device, and maps it.
    ///
    /// # Errors
    ///
    /// Those of the file descriptor (`EBADF`, `EINVAL`), those of the exporter
    /// (`EACCES`, `EIO`, `ENOMEM`), and `EOPNOTSUPP` when the device does not see one
    /// piece of memory.
    pub(crate) fn new(fd: i32, device: &Device) -> Result<Self> {
        let attachment = Attachment::new(Buffer::get(fd)?, device)?;
        // SAFETY: The attachment is live by its type's invariants.
        let table = from_err_ptr(unsafe {
            dma_buf_map_attachment_unlocked(attachment.raw.as_ptr(), DIRECTION)
        })?;
        // INVARIANT: It has just been mapped.
        let mut this = Self {
            table: NonNull::new(table).ok_or(EINVAL)?,
            attachment,
            start: 0,
            size: 0,
        };
        (this.start, this.size) = this.run()?;
        Ok(this)
    }

    /// The address for the device and the size, in bytes, of the one piece.
    fn run(&self) -> Result<(u64, u64)> {
        // SAFETY: By the type invariants the table is live, and nobody changes a mapped table.
        let table = unsafe { SGTable::from_raw(self.table.as_ptr()) };
        let mut run: Option<(u64, u64)> = None;
        for entry in table.iter() {
            let (address, length) = (entry.dma_address(), entry.dma_len());
            run = Some(match run {
                None => (address, length),
                Some((start, size)) if start.checked_add(size) == Some(address) => {
                    (start, size.checked_add(length).ok_or(EOPNOTSUPP)?)
                }
                Some(_) => return Err(EOPNOTSUPP),
            });
        }
        run.ok_or(EINVAL)
    }

    /// Address of its first byte for the device.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // SAFETY: By the type invariants this is the attachment's mapping, and ours.
        unsafe {
            dma_buf_unmap_attachment_unlocked(
                self.attachment.raw.as_ptr(),
                self.table.as_ptr(),
                DIRECTION,
            );
        }
    }
}
