// SPDX-License-Identifier: MIT OR Apache-2.0

//! Secure storage, and Linux's clock.
//!
//! OP-TEE encrypts and authenticates the objects under keys of the device and of
//! this TA; tee-supplicant keeps the files.
//!
//! OP-TEE's system calls are made here without the TEE Internal Core API above
//! them. That API panics the TA for results that it does not list, and one of them
//! is what comes of a client that is killed while tee-supplicant works for it:
//! the end of one client must not end everybody's sessions.

use core::ffi::{c_ulong, c_void};

use optee_utee::Time;
use ringfence_proto::command::result;
use ringfence_ta::ladder::{Item, Storage};
use ringfence_ta::refusal::Refusal;

/// This TA's private storage.
pub struct PrivateStorage;

/// `TEE_STORAGE_PRIVATE`.
const STORAGE: c_ulong = 1;
/// `TEE_DATA_FLAG_ACCESS_READ`.
const READ: c_ulong = 1;
/// `TEE_DATA_FLAG_ACCESS_WRITE`.
const WRITE: c_ulong = 2;
/// `TEE_DATA_FLAG_OVERWRITE`: the old object is replaced when the new one is whole.
const OVERWRITE: c_ulong = 0x400;
/// `TEE_HANDLE_NULL`.
const NO_ATTRIBUTES: c_ulong = 0;

/// libutee's `utee_syscalls.h`. `unsigned long` and `size_t` are of 64 bits.
mod syscall {
    use super::{c_ulong, c_void};

    extern "C" {
        pub fn _utee_storage_obj_open(
            storage: c_ulong,
            name: *const c_void,
            name_length: usize,
            flags: c_ulong,
            object: *mut u32,
        ) -> u32;
        pub fn _utee_storage_obj_create(
            storage: c_ulong,
            name: *const c_void,
            name_length: usize,
            flags: c_ulong,
            attributes: c_ulong,
            content: *const c_void,
            length: usize,
            object: *mut u32,
        ) -> u32;
        pub fn _utee_storage_obj_read(
            object: c_ulong,
            content: *mut c_void,
            length: usize,
            count: *mut u64,
        ) -> u32;
        pub fn _utee_cryp_obj_close(object: c_ulong) -> u32;
    }
}

/// An open object.
///
/// # Invariants
///
/// It is open, and nobody else closes it.
struct Object(u32);

impl Object {
    /// Reads from its start, and returns the bytes read.
    fn read(&mut self, content: &mut [u8]) -> Result<u64, Refusal> {
        let mut count = 0;
        // SAFETY: as many bytes as `content` has are writable, and so is `count`. The
        // object is open, by the type invariant.
        let code = unsafe {
            syscall::_utee_storage_obj_read(
                self.0.into(),
                content.as_mut_ptr().cast(),
                content.len(),
                &mut count,
            )
        };
        done(code).map(|()| count)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: it is open, by the type invariant. What cannot be closed goes with
        // this instance.
        unsafe { syscall::_utee_cryp_obj_close(self.0.into()) };
    }
}

fn done(code: u32) -> Result<(), Refusal> {
    match code {
        result::SUCCESS => Ok(()),
        code => Err(Refusal::Tee(code)),
    }
}

/// The object's identifier.
const fn name(item: Item) -> &'static [u8] {
    match item {
        Item::DeviceKey => b"device key",
        Item::Time => b"time",
    }
}

impl Storage for PrivateStorage {
    fn load(&mut self, item: Item, content: &mut [u8]) -> Result<bool, Refusal> {
        let name = name(item);
        let mut object = 0;
        // SAFETY: `name` is readable, `object` writable.
        let code = unsafe {
            syscall::_utee_storage_obj_open(
                STORAGE,
                name.as_ptr().cast::<c_void>(),
                name.len(),
                READ,
                &mut object,
            )
        };
        if code == result::ITEM_NOT_FOUND {
            return Ok(false);
        }
        done(code)?;
        // INVARIANT: just opened.
        let read = Object(object).read(content)?;
        match usize::try_from(read) {
            Ok(read) if read == content.len() => Ok(true),
            _ => Err(Refusal::Tee(result::GENERIC)),
        }
    }

    fn store(&mut self, item: Item, content: &[u8]) -> Result<(), Refusal> {
        let name = name(item);
        let mut object = 0;
        // SAFETY: `name` and `content` are readable, `object` is writable.
        let code = unsafe {
            syscall::_utee_storage_obj_create(
                STORAGE,
                name.as_ptr().cast::<c_void>(),
                name.len(),
                WRITE | OVERWRITE,
                NO_ATTRIBUTES,
                content.as_ptr().cast::<c_void>(),
                content.len(),
                &mut object,
            )
        };
        done(code)?;
        // INVARIANT: just opened.
        drop(Object(object));
        Ok(())
    }
}

/// Seconds since 1970, as Linux says.
pub fn clock() -> u64 {
    let mut time = Time::new();
    time.ree_time();
    time.seconds.into()
}
