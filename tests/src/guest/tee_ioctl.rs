// SPDX-License-Identifier: MIT OR Apache-2.0

//! The TEE driver's own ioctl for opening a session: libteec would not pass a
//! forged login on.

use std::fs::OpenOptions;
use std::mem::size_of;

use anyhow::Context;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

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
