// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands of a trusted application with any parameters whatsoever, also such
//! as libteec would never send.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

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

/// `struct tee_ioctl_buf_data`: where the structure of an ioctl is.
#[repr(C)]
struct BufferData {
    pointer: u64,
    length: u64,
}

/// `TEE_IOC_OPEN_SESSION`, `TEE_IOC_INVOKE`: declared as reading only.
const OPEN_SESSION: Opcode = opcode::read::<BufferData>(0xa4, 2);
const INVOKE: Opcode = opcode::read::<BufferData>(0xa4, 3);

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
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tee0")
            .context("/dev/tee0")?;
        let mut argument = OpenSession {
            uuid,
            ..Default::default()
        };
        call(&device, OPEN_SESSION, &mut argument)?;
        anyhow::ensure!(argument.ret == 0, "no session: {:#x}", argument.ret);
        Ok(Self {
            device,
            session: argument.session,
        })
    }

    /// Memory that commands can refer to.
    pub fn memory(&self, size: u64) -> anyhow::Result<SharedMemory> {
        let mut argument = ShmAlloc {
            size,
            flags: 0,
            id: 0,
        };
        // SAFETY: See the implementation of `Ioctl`.
        let fd = unsafe { ioctl(&self.device, Allocate(&mut argument)) }?;
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
        call(&self.device, INVOKE, &mut argument)?;
        *parameters = argument.params;
        Ok(argument.ret)
    }
}

/// Calls an ioctl that takes a structure by its address and size.
fn call<T>(device: &File, opcode: Opcode, argument: &mut T) -> Result<(), Errno> {
    struct Call(Opcode, BufferData);

    // SAFETY: The kernel reads the structure with address and size, and reads and
    // writes what they name: `argument`, which is borrowed for the call.
    unsafe impl Ioctl for Call {
        type Output = ();
        const IS_MUTATING: bool = false;

        fn opcode(&self) -> Opcode {
            self.0
        }

        fn as_ptr(&mut self) -> *mut c_void {
            (&raw mut self.1).cast()
        }

        unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
            Ok(())
        }
    }

    let data = BufferData {
        pointer: ptr::from_mut(argument) as u64,
        length: size_of::<T>() as u64,
    };
    // SAFETY: See the implementation of `Ioctl`.
    unsafe { ioctl(device, Call(opcode, data)) }
}

/// `struct tee_ioctl_shm_alloc_data`.
#[repr(C)]
struct ShmAlloc {
    size: u64,
    flags: u32,
    id: i32,
}

struct Allocate<'a>(&'a mut ShmAlloc);

// SAFETY: The opcode is `TEE_IOC_SHM_ALLOC`, which takes a pointer to this
// structure, writes nothing but it, and answers a new file descriptor.
unsafe impl Ioctl for Allocate<'_> {
    type Output = OwnedFd;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ShmAlloc>(0xa4, 1)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: The ioctl has succeeded, and its answer is a descriptor that
        // nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(answer as RawFd) })
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
