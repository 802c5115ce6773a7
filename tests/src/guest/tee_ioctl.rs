// SPDX-License-Identifier: MIT OR Apache-2.0

//! The TEE driver's own ioctls: libteec would not pass a forged login on, and
//! registers no dma-buf.

use std::fs::{File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Ioctl, IoctlOutput, Opcode, Setter};

/// `struct tee_ioctl_buf_data`.
#[repr(C)]
struct BufferData {
    pointer: u64,
    length: u64,
}

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

/// `TEE_IOC_OPEN_SESSION`, which is declared as reading only.
const OPEN_SESSION: Opcode = opcode::read::<BufferData>(0xa4, 2);

/// What the driver, and behind it the TEE, says to a session with this login.
pub fn open_session(uuid: [u8; 16], login: u32) -> anyhow::Result<Result<u32, Errno>> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tee0")
        .context("/dev/tee0")?;
    let mut argument = OpenSession {
        uuid,
        client_login: login,
        ..Default::default()
    };
    let data = BufferData {
        pointer: (&raw mut argument) as u64,
        length: size_of::<OpenSession>() as u64,
    };
    // SAFETY: The driver reads `data`, and reads and writes the `length` bytes
    // at `pointer`, which is `argument`: both live on for the call. Closing the
    // device afterwards closes the session.
    let outcome = unsafe { ioctl(&device, Setter::<OPEN_SESSION, _>::new(data)) };
    Ok(outcome.map(|()| argument.ret))
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

// SAFETY: The opcode is `TEE_IOC_SHM_REGISTER_FD`, which takes a pointer to this
// structure, writes nothing but it, and answers a new file descriptor.
unsafe impl Ioctl for RegisterFd {
    type Output = OwnedFd;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<Self>(0xa4, 8)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(
        answer: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> Result<Self::Output, Errno> {
        // SAFETY: The ioctl succeeded, and its answer is a descriptor that nobody
        // else has.
        Ok(unsafe { OwnedFd::from_raw_fd(answer as RawFd) })
    }
}

/// Registers a dma-buf as memory that commands may refer to.
pub fn register_dma_buf(device: &File, buffer: impl AsFd) -> Result<OwnedFd, Errno> {
    let argument = RegisterFd {
        fd: i64::from(buffer.as_fd().as_raw_fd()),
        ..Default::default()
    };
    // SAFETY: See the implementation of `Ioctl`.
    unsafe { ioctl(device, argument) }
}
