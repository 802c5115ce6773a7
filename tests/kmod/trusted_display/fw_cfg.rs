// SPDX-License-Identifier: GPL-2.0

//! QEMU's fw_cfg device, by its DMA interface, and the file in it by which `ramfb`
//! is told what to show (QEMU, `docs/specs/fw_cfg.rst`, `hw/display/ramfb.c`).
//!
//! Linux's own driver has the device too, for /sys/firmware/qemu_fw_cfg. The two
//! don't disturb each other's requests, each of which is one write of a register;
//! but a read that goes on where the last one stopped, as Linux's of a long file,
//! would be misled by a request in between. Nothing reads there while pictures are
//! shown.

#![allow(unsafe_code)]

use core::{
    mem::{
        offset_of,
        ManuallyDrop, //
    },
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    dma::Coherent,
    io::{
        io_project,
        io_read,
        io_write,
        poll::read_poll_timeout,
        Io,
        Resource, //
    },
    prelude::*,
    sync::barrier::{
        dma_mb,
        Read, //
    },
    time::Delta,
    transmute::{
        AsBytes,
        FromBytes, //
    }, //
};

use crate::picture::{
    Picture,
    XRGB8888, //
};

extern "C" {
    fn display_zeros() -> bindings::phys_addr_t;
}

/// Address of a page of zeros, which stays for ever.
pub(crate) fn zeros() -> u64 {
    // SAFETY: Nothing is asked of the caller.
    unsafe { display_zeros() }
}

/// Bits of a request's control word; the upper half selects a file.
const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Selects the directory of files.
const DIRECTORY: u16 = 0x19;

/// The file that `ramfb` has.
const RAMFB: &[u8] = b"etc/ramfb";

/// An entry of the directory: big-endian size (4 bytes), selector (2), a gap (2),
/// and the name, padded with zeros.
const ENTRY: usize = 64;
const SELECTOR_AT: usize = 4;
const NAME_AT: usize = 8;

/// Entries that are looked at: QEMU has fewer.
const MAX_ENTRIES: u32 = 1024;

/// `struct RAMFBCfg`: address (8), format, flags, width, height, stride (4 each), all
/// big-endian.
const CONFIG: usize = 28;

/// How long a request may take. QEMU has done it when the register is written.
const PATIENCE: Delta = Delta::from_secs(1);
const BETWEEN: Delta = Delta::from_micros(10);

/// A request, and what it is about. All numbers are big-endian.
#[repr(C)]
struct Shared {
    control: u32,
    length: u32,
    address: u64,
    payload: [u8; ENTRY],
}

// SAFETY: The structure consists of integers without holes between them.
unsafe impl AsBytes for Shared {}
// SAFETY: As above.
unsafe impl FromBytes for Shared {}

/// The mapped register that takes a request's address.
///
/// # Invariants
///
/// The pointer is an `ioremap` of at least eight bytes, and ours alone.
struct Register(NonNull<c_void>);

// SAFETY: The mapping is the kernel's, and may be used and given back from any thread.
unsafe impl Send for Register {}

impl Register {
    /// Bytes.
    const SIZE: usize = 8;

    /// Maps it without claiming it: Linux's driver of fw_cfg has claimed it.
    fn map(resource: &Resource) -> Result<Self> {
        if resource.size() < Self::SIZE as u64 {
            return Err(EINVAL);
        }
        // SAFETY: The devicetree says that this is a device's register.
        let raw = unsafe { bindings::ioremap(resource.start(), Self::SIZE) };
        // INVARIANT: It has just been mapped.
        Ok(Self(NonNull::new(raw.cast()).ok_or(ENOMEM)?))
    }

    /// Has the device carry out the request at `address`.
    ///
    /// The write comes after all that were made to memory before it.
    fn submit(&self, address: u64) {
        // SAFETY: By the type invariants eight bytes are mapped there.
        unsafe { bindings::writeq(address.to_be(), self.0.as_ptr().cast()) };
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the mapping is ours.
        unsafe { bindings::iounmap(self.0.as_ptr().cast()) };
    }
}

/// The device.
pub(crate) struct FwCfg {
    register: Register,
    /// Given back only when no request is under way.
    memory: ManuallyDrop<Coherent<Shared>>,
    lost: bool,
    screen: u16,
}

impl FwCfg {
    /// The device whose DMA register is `register`; `device` is that for which the
    /// memory of the requests is allocated.
    pub(crate) fn new(device: &Device<Bound>, register: &Resource) -> Result<Self> {
        Ok(Self {
            register: Register::map(register)?,
            memory: ManuallyDrop::new(Coherent::zeroed(device, GFP_KERNEL)?),
            lost: false,
            screen: 0,
        })
    }

    /// Whether a request has not come back.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Has the device carry out one request on the payload's first `length` bytes.
    ///
    /// # Errors
    ///
    /// `EIO` when it refuses, or has not come back from an earlier one; `ETIMEDOUT`.
    fn request(&mut self, control: u32, length: usize) -> Result {
        if self.lost {
            return Err(EIO);
        }
        let memory = &*self.memory;
        let payload = memory.dma_address() + offset_of!(Shared, payload) as u64;
        // CAST: It is a part of the payload's length.
        io_write!(memory, .length, (length as u32).to_be());
        io_write!(memory, .address, payload.to_be());
        io_write!(memory, .control, control.to_be());
        self.register.submit(memory.dma_address());
        let answer = read_poll_timeout(
            || Ok(u32::from_be(io_read!(memory, .control))),
            |control| control & !ERROR == 0,
            BETWEEN,
            PATIENCE,
        );
        self.lost = answer.is_err();
        // What the device wrote before the control word is read after it.
        dma_mb(Read);
        match answer? {
            0 => Ok(()),
            _ => Err(EIO),
        }
    }

    /// Reads on in the file that is selected.
    fn read(&mut self, control: u32, length: usize) -> Result<[u8; ENTRY]> {
        self.request(control | READ, length)?;
        let memory = &*self.memory;
        Ok(io_project!(memory, .payload).copy_read())
    }

    /// Finds `ramfb`'s file.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is none; `EIO`, `ETIMEDOUT`.
    pub(crate) fn find_screen(&mut self) -> Result {
        let head = self.read(u32::from(DIRECTORY) << 16 | SELECT, 4)?;
        let count = u32::from_be_bytes(*head.first_chunk().ok_or(EIO)?);
        for _ in 0..count.min(MAX_ENTRIES) {
            let entry = self.read(0, ENTRY)?;
            let (_, name) = entry.split_at(NAME_AT);
            if name.split(|&byte| byte == 0).next() == Some(RAMFB) {
                let (_, selector) = entry.split_at(SELECTOR_AT);
                self.screen = u16::from_be_bytes(*selector.first_chunk().ok_or(EIO)?);
                return Ok(());
            }
        }
        Err(ENOENT)
    }

    /// Has `ramfb` show a picture from now on.
    ///
    /// # Errors
    ///
    /// `EIO`, `ETIMEDOUT`.
    pub(crate) fn show(&mut self, picture: Picture) -> Result {
        const FLAGS: u32 = 0;
        let mut config = [0; ENTRY];
        let words = [
            XRGB8888,
            FLAGS,
            picture.width,
            picture.height,
            picture.stride,
        ];
        let (address, rest) = config.split_at_mut(8);
        address.copy_from_slice(&picture.address.to_be_bytes());
        for (place, word) in rest.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        let memory = &*self.memory;
        io_project!(memory, .payload).copy_write(config);
        self.request(u32::from(self.screen) << 16 | SELECT | WRITE, CONFIG)
    }
}

impl Drop for FwCfg {
    fn drop(&mut self) {
        // A request that is still under way keeps its memory.
        if !self.lost {
            // SAFETY: The field is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}
