// SPDX-License-Identifier: MIT OR Apache-2.0

//! The TEE driver's own ioctls: libteec would not pass a forged login on, registers no
//! dma-buf, and sends a command only such parameters as make sense.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::new_fd;

/// `TEE_IOCTL_LOGIN_PUBLIC`.
const PUBLIC: u32 = 0;

/// `struct tee_ioctl_buf_data`: where the structure of an ioctl is.
#[repr(C)]
struct BufferData {
    pointer: u64,
    length: u64,
}

/// `TEE_IOC_OPEN_SESSION`, `TEE_IOC_INVOKE`: declared as reading only.
const OPEN_SESSION: Opcode = opcode::read::<BufferData>(0xa4, 2);
const INVOKE: Opcode = opcode::read::<BufferData>(0xa4, 3);

/// `TEE_IOC_SHM_ALLOC`, `TEE_IOC_SHM_REGISTER_FD`.
const SHM_ALLOC: Opcode = opcode::read_write::<ShmAlloc>(0xa4, 1);
const REGISTER_FD: Opcode = opcode::read_write::<RegisterFd>(0xa4, 8);

/// `struct tee_ioctl_open_session_arg` without parameters.
#[repr(C)]
#[derive(Default)]
struct OpenSession {
    uuid: [u8; 16],
    client_uuid: [u8; 16],
    client_login: u32,
    cancel_id: u32,
    session: u32,
    ret: u32,
    ret_origin: u32,
    num_params: u32,
}

const _: () = assert!(size_of::<OpenSession>() == 56);

fn device() -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tee0")
        .context("/dev/tee0")
}

/// Calls an ioctl that takes a structure by its address and size.
fn call<const OPCODE: Opcode, T>(device: &File, argument: &mut T) -> Result<(), Errno> {
    let data = BufferData {
        pointer: ptr::from_mut(argument) as u64,
        length: size_of::<T>() as u64,
    };
    // SAFETY: The kernel reads `data`, and reads and writes the `length` bytes at
    // `pointer`, which are `argument`'s: it is borrowed for the call, and of plain numbers.
    unsafe { ioctl(device, Setter::<OPCODE, _>::new(data)) }
}

fn open(device: &File, uuid: [u8; 16], login: u32) -> Result<OpenSession, Errno> {
    let mut argument = OpenSession {
        uuid,
        client_login: login,
        ..Default::default()
    };
    call::<OPEN_SESSION, _>(device, &mut argument)?;
    Ok(argument)
}

/// What the driver, and behind it the TEE, says to a session with this login. The session
/// is closed at once.
pub fn open_session(uuid: [u8; 16], login: u32) -> anyhow::Result<Result<u32, Errno>> {
    Ok(open(&device()?, uuid, login).map(|answer| answer.ret))
}

/// `struct tee_ioctl_shm_register_fd_data`.
#[repr(C)]
#[derive(Default)]
struct RegisterFd {
    fd: i64,
    size: u64,
    flags: u32,
    id: i32,
}

/// `struct tee_ioctl_shm_alloc_data`.
#[repr(C)]
#[derive(Default)]
struct ShmAlloc {
    size: u64,
    flags: u32,
    id: i32,
}

/// Registers a dma-buf as memory that commands may refer to.
pub fn register_dma_buf(device: &File, buffer: impl AsFd) -> Result<OwnedFd, Errno> {
    let mut argument = RegisterFd {
        fd: i64::from(buffer.as_fd().as_raw_fd()),
        ..Default::default()
    };
    // SAFETY: `TEE_IOC_SHM_REGISTER_FD` reads and writes that structure, and answers a new
    // descriptor.
    unsafe { new_fd::create(device, REGISTER_FD, &mut argument) }
}

/// Types of parameters: `TEE_IOCTL_PARAM_ATTR_TYPE_*`.
pub mod kind {
    /// Not used.
    pub const NONE: u64 = 0;
    /// Two numbers for the application.
    pub const VALUE_IN: u64 = 1;
    /// Two numbers from it.
    pub const VALUE_OUT: u64 = 2;
    /// Both.
    pub const VALUE_BOTH: u64 = 3;
    /// Memory that the application reads.
    pub const MEMORY_IN: u64 = 5;
    /// Memory that it writes.
    pub const MEMORY_OUT: u64 = 6;
    /// Both.
    pub const MEMORY_BOTH: u64 = 7;
}

/// `struct tee_ioctl_param`: for memory, offset, size, and identifier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Parameter {
    /// Its type, one of [`kind`].
    pub kind: u64,
    /// First number, or the offset in bytes.
    pub a: u64,
    /// Second number, or the size in bytes.
    pub b: u64,
    /// Third number, or the identifier of the memory.
    pub c: u64,
}

/// `struct tee_ioctl_invoke_arg` with as many parameters as a command can have.
#[repr(C)]
#[derive(Default)]
struct Invoke {
    func: u32,
    session: u32,
    cancel_id: u32,
    ret: u32,
    ret_origin: u32,
    num_params: u32,
    params: [Parameter; 4],
}

const _: () = assert!(size_of::<Invoke>() == 24 + 4 * 32);

/// A session with a trusted application.
#[derive(Debug)]
pub struct RawSession {
    device: File,
    session: u32,
}

impl RawSession {
    /// Opens one, with the login of anybody.
    pub fn open(uuid: [u8; 16]) -> anyhow::Result<Self> {
        let device = device()?;
        let answer = open(&device, uuid, PUBLIC)?;
        anyhow::ensure!(answer.ret == 0, "no session: {:#x}", answer.ret);
        Ok(Self {
            device,
            session: answer.session,
        })
    }

    /// Memory that commands can refer to.
    pub fn memory(&self, size: u64) -> anyhow::Result<SharedMemory> {
        let mut argument = ShmAlloc {
            size,
            ..Default::default()
        };
        // SAFETY: `TEE_IOC_SHM_ALLOC` reads and writes that structure, and answers a new
        // descriptor.
        let fd = unsafe { new_fd::create(&self.device, SHM_ALLOC, &mut argument) }?;
        let length = usize::try_from(size)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )
        }?;
        Ok(SharedMemory {
            _fd: fd,
            id: u64::from(argument.id.unsigned_abs()),
            mapped,
            length,
        })
    }

    /// Calls a command; the application's answer, or what the driver says to it.
    pub fn invoke(&self, command: u32, parameters: &mut [Parameter; 4]) -> Result<u32, Errno> {
        let mut argument = Invoke {
            func: command,
            session: self.session,
            num_params: 4,
            params: *parameters,
            ..Default::default()
        };
        call::<INVOKE, _>(&self.device, &mut argument)?;
        *parameters = argument.params;
        Ok(argument.ret)
    }
}

/// Memory that a session's commands can refer to.
#[derive(Debug)]
pub struct SharedMemory {
    _fd: OwnedFd,
    /// The driver's name for it.
    pub id: u64,
    mapped: *mut c_void,
    length: usize,
}

impl SharedMemory {
    /// Bytes in it.
    pub fn size(&self) -> u64 {
        self.length as u64
    }

    /// Writes bytes to its start, as many as fit.
    pub fn fill(&self, bytes: &[u8]) {
        let length = bytes.len().min(self.length);
        // SAFETY: The mapping has that many bytes, and is no Rust object's memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapped.cast(), length) };
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.mapped, self.length) };
    }
}
