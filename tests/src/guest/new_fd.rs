// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ioctls that answer a new file descriptor.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::ioctl::{ioctl, Ioctl, IoctlOutput, Opcode};

struct NewFd<'a, T>(Opcode, &'a mut T);

// SAFETY: By the contract of `create`, which alone makes one, the ioctl takes a pointer to a
// `T`, which is borrowed for the call, and answers a new descriptor.
unsafe impl<T> Ioctl for NewFd<'_, T> {
    type Output = OwnedFd;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.1).cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: The ioctl has succeeded, and its answer is a descriptor that nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(answer as RawFd) })
    }
}

/// Calls the ioctl.
///
/// # Safety
///
/// It must take a pointer to a `T`, touch no other memory of this process, leave a valid `T`
/// there, and answer a new file descriptor.
pub(super) unsafe fn create<T>(
    driver: &File,
    opcode: Opcode,
    argument: &mut T,
) -> Result<OwnedFd, Errno> {
    // SAFETY: By the function's contract.
    unsafe { ioctl(driver, NewFd(opcode, argument)) }
}
