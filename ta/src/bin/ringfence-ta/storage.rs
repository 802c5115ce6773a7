// SPDX-License-Identifier: MIT OR Apache-2.0

//! Secure storage, and Linux's clock.
//!
//! OP-TEE encrypts and authenticates the objects under keys of the device and of
//! this TA; tee-supplicant keeps the files.

use optee_utee::{DataFlag, ObjectStorageConstants, PersistentObject, Time};
use ringfence_proto::command::result;
use ringfence_ta::ladder::{Item, Storage};
use ringfence_ta::refusal::Refusal;

use crate::firewall_session::tee;

/// This TA's private storage.
pub struct PrivateStorage;

/// The object's identifier.
const fn name(item: Item) -> &'static [u8] {
    match item {
        Item::DeviceKey => b"device key",
        Item::Time => b"time",
    }
}

impl Storage for PrivateStorage {
    fn load(&mut self, item: Item, content: &mut [u8]) -> Result<bool, Refusal> {
        let opened = PersistentObject::open(
            ObjectStorageConstants::Private,
            name(item),
            DataFlag::ACCESS_READ,
        );
        let mut object = match opened {
            Ok(object) => object,
            Err(error) if error.raw_code() == result::ITEM_NOT_FOUND => return Ok(false),
            Err(error) => return Err(tee(error)),
        };
        let read = object.read(content).map_err(tee)?;
        match usize::try_from(read) {
            Ok(read) if read == content.len() => Ok(true),
            _ => Err(Refusal::Tee(result::GENERIC)),
        }
    }

    fn store(&mut self, item: Item, content: &[u8]) -> Result<(), Refusal> {
        PersistentObject::create(
            ObjectStorageConstants::Private,
            name(item),
            DataFlag::ACCESS_WRITE | DataFlag::OVERWRITE,
            None,
            content,
        )
        .map(drop)
        .map_err(tee)
    }
}

/// Seconds since 1970, as Linux says.
pub fn clock() -> u64 {
    let mut time = Time::new();
    time.ree_time();
    time.seconds.into()
}
