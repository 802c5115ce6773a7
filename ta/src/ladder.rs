// SPDX-License-Identifier: MIT OR Apache-2.0

//! The key ladder: the factory key opens a device key, which is kept in secure
//! storage, and the device key opens licences.
//!
//! # What time is worth
//!
//! A licence has a last second, and the TA has no clock of its own: the time is
//! what Linux says. So the latest time that was ever said is kept in memory, and in
//! secure storage beside it, and counts when it is later than the clock. A clock
//! that is turned back after a licence was seen to have ended thus brings nothing.
//!
//! Secure storage takes a supplicant in Linux that answers, and everybody's
//! commands wait as long as it takes. So an instance reads the stored time once,
//! and replaces it when it is [`TIME_STEP`] behind, or when a licence is refused
//! that the stored time would not refuse: such a verdict holds for the next
//! instances as well.
//!
//! What remains: when an instance ends, up to [`TIME_STEP`] can be forgotten in
//! which no licence was refused. A Linux whose clock was never right can use a
//! licence after its end, and whoever can put back the files of secure storage as
//! they were before puts back the time, and the device key, with them, for the next
//! instance of the TA. Storage in a replay-protected memory block (RPMB) refuses
//! that, and a clock that the secure world alone sets refuses the former. Linux can
//! also make licences end at once, by setting the clock ahead; it can stop playing
//! anyway.

use ringfence_proto::message::{Licence, Provision, CONTENT_KEY_SIZE, DEVICE_KEY_SIZE};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// How far, in seconds, the stored time may be behind the latest one that was seen.
pub const TIME_STEP: u64 = 3600;

/// What is kept in secure storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The device key behind its serial number.
    DeviceKey,
    /// The latest time.
    Time,
}

/// Objects that outlive the TA, which nobody else can read or forge.
pub trait Storage {
    /// Fills `content` with an object, if there is one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when it cannot be read, or has another size.
    fn load(&mut self, item: Item, content: &mut [u8]) -> Result<bool, Refusal>;

    /// Creates or replaces an object, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when it cannot be written.
    fn store(&mut self, item: Item, content: &[u8]) -> Result<(), Refusal>;
}

/// A device key, zeroed when it goes.
#[derive(Default)]
pub struct DeviceKey(Zeroizing<[u8; DEVICE_KEY_SIZE]>);

impl DeviceKey {
    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; DEVICE_KEY_SIZE] {
        &self.0
    }

    /// Compares in a time that does not depend on the keys.
    fn is(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(other.0.iter());
        differences.fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// Bytes of the serial number in a stored device key.
const SERIAL_SIZE: usize = 4;

/// The rungs of the ladder, over secure storage.
///
/// An instance reads the device key and the time once, when they are first needed,
/// and keeps them in memory that OP-TEE zeroes with the instance. So loading a
/// licence hardly ever depends on tee-supplicant, for which everybody would have to
/// wait.
pub struct Ladder<S> {
    storage: S,
    /// The device key and its serial number, once they were read.
    device: Option<(u32, DeviceKey)>,
    /// The stored time, in seconds since 1970, once it was read; 0 for none.
    stored: Option<u64>,
    /// The latest time that this instance has seen, in seconds since 1970.
    latest: u64,
}

impl<S: Storage> Ladder<S> {
    /// A ladder that has looked at nothing yet.
    pub const fn new(storage: S) -> Self {
        Self {
            storage,
            device: None,
            stored: None,
            latest: 0,
        }
    }

    /// The stored device key and its serial number.
    fn device_key(&mut self) -> Result<Option<&(u32, DeviceKey)>, Refusal> {
        if self.device.is_none() {
            let mut record = Zeroizing::new([0; SERIAL_SIZE + DEVICE_KEY_SIZE]);
            if !self.storage.load(Item::DeviceKey, &mut *record)? {
                return Ok(None);
            }
            self.remember(&record);
        }
        Ok(self.device.as_ref())
    }

    /// Keeps the device key of a record. The bytes are copied into their place: a
    /// moved key would leave a copy behind.
    fn remember(&mut self, record: &[u8; SERIAL_SIZE + DEVICE_KEY_SIZE]) {
        let (serial, key) = self.device.insert((0, DeviceKey::default()));
        let (stored_serial, stored_key) = record.split_at(SERIAL_SIZE);
        let mut bytes = [0; SERIAL_SIZE];
        bytes.copy_from_slice(stored_serial);
        *serial = u32::from_le_bytes(bytes);
        key.0.copy_from_slice(stored_key);
    }

    /// PROVISION: keeps a device key, which `unseal` decrypts and authenticates
    /// under the factory key.
    ///
    /// The key that is stored already is welcome again, whatever its serial
    /// number.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forged`] from `unseal`, [`Refusal::RolledBack`] for another key
    /// that is no newer than the stored one, or what the storage says. The stored
    /// key is the old one then.
    pub fn provision(
        &mut self,
        provision: &Provision,
        unseal: impl FnOnce(&Provision, &mut [u8; DEVICE_KEY_SIZE]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut key = DeviceKey::default();
        unseal(provision, &mut key.0)?;
        if let Some((serial, stored)) = self.device_key()? {
            match (provision.serial <= *serial, stored.is(&key)) {
                (true, true) => return Ok(()),
                (true, false) => return Err(Refusal::RolledBack),
                (false, _) => {}
            }
        }
        let mut record = Zeroizing::new([0; SERIAL_SIZE + DEVICE_KEY_SIZE]);
        let (serial, bytes) = record.split_at_mut(SERIAL_SIZE);
        serial.copy_from_slice(&provision.serial.to_le_bytes());
        bytes.copy_from_slice(key.bytes());
        self.storage.store(Item::DeviceKey, &*record)?;
        self.remember(&record);
        Ok(())
    }

    /// Opens a licence into `key`: `unseal` decrypts and authenticates it under
    /// the device key, and `clock` is asked for Linux's time when the licence has
    /// an end.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotProvisioned`], [`Refusal::Forged`] from `unseal`,
    /// [`Refusal::Expired`], or what the storage says. `key` may hold anything
    /// then.
    pub fn open(
        &mut self,
        licence: &Licence,
        key: &mut [u8; CONTENT_KEY_SIZE],
        clock: impl FnOnce() -> u64,
        unseal: impl FnOnce(&DeviceKey, &Licence, &mut [u8; CONTENT_KEY_SIZE]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let (_, device_key) = self.device_key()?.ok_or(Refusal::NotProvisioned)?;
        unseal(device_key, licence, key)?;
        match licence.not_after {
            0 => Ok(()),
            not_after => self.must_not_be_over(not_after, clock()),
        }
    }

    /// Refuses what ends with the second `not_after`, by the clock or the latest
    /// time that was seen.
    fn must_not_be_over(&mut self, not_after: u64, clock: u64) -> Result<(), Refusal> {
        let stored = self.stored_time()?;
        self.latest = self.latest.max(stored).max(clock);
        let over = self.latest > not_after;
        let forgotten = over && stored <= not_after;
        if forgotten || self.latest - stored >= TIME_STEP {
            self.storage.store(Item::Time, &self.latest.to_le_bytes())?;
            self.stored = Some(self.latest);
        }
        match over {
            true => Err(Refusal::Expired),
            false => Ok(()),
        }
    }

    /// The time that the next instance will read.
    fn stored_time(&mut self) -> Result<u64, Refusal> {
        if let Some(stored) = self.stored {
            return Ok(stored);
        }
        let mut record = [0; 8];
        let stored = match self.storage.load(Item::Time, &mut record)? {
            true => u64::from_le_bytes(record),
            false => 0,
        };
        self.stored = Some(stored);
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    /// Storage in memory, which can fail.
    #[derive(Default)]
    struct Memory {
        key: Option<Vec<u8>>,
        time: Option<Vec<u8>>,
        broken: bool,
        loads: usize,
        stores: usize,
    }

    impl Memory {
        fn item(&mut self, item: Item) -> &mut Option<Vec<u8>> {
            match item {
                Item::DeviceKey => &mut self.key,
                Item::Time => &mut self.time,
            }
        }
    }

    const BROKEN: Refusal = Refusal::Tee(0xf010_0003);

    impl Storage for Memory {
        fn load(&mut self, item: Item, content: &mut [u8]) -> Result<bool, Refusal> {
            if self.broken {
                return Err(BROKEN);
            }
            self.loads += 1;
            let Some(stored) = self.item(item) else {
                return Ok(false);
            };
            content.copy_from_slice(stored);
            Ok(true)
        }

        fn store(&mut self, item: Item, content: &[u8]) -> Result<(), Refusal> {
            if self.broken {
                return Err(BROKEN);
            }
            self.stores += 1;
            *self.item(item) = Some(content.to_vec());
            Ok(())
        }
    }

    fn provision(serial: u32, key: u8) -> Provision {
        Provision {
            serial,
            nonce: [0; 12],
            wrapped_key: [key; 32],
            tag: [0; 16],
        }
    }

    fn bring(ladder: &mut Ladder<Memory>, serial: u32, key: u8) -> Result<(), Refusal> {
        ladder.provision(&provision(serial, key), |provision, key| {
            *key = provision.wrapped_key;
            Ok(())
        })
    }

    /// Opens a licence that ends at `not_after` at the time `clock`; the device key
    /// it was opened with.
    fn open(ladder: &mut Ladder<Memory>, not_after: u64, clock: u64) -> Result<u8, Refusal> {
        let licence = Licence {
            key_id: [0; 16],
            not_after,
            nonce: [0; 12],
            wrapped_key: [0; 16],
            tag: [0; 16],
        };
        let mut key = [0; 16];
        ladder.open(
            &licence,
            &mut key,
            || clock,
            |device, _, key| {
                key.fill(device.bytes()[31]);
                Ok(())
            },
        )?;
        Ok(key[0])
    }

    #[test]
    fn licences_need_a_device_key() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(open(&mut ladder, 0, 0), Err(Refusal::NotProvisioned));
        assert_eq!(bring(&mut ladder, 0, 7), Ok(()));
        assert_eq!(open(&mut ladder, 0, 0), Ok(7));
    }

    #[test]
    fn a_later_device_key_replaces_and_an_earlier_one_does_not() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 5, 1), Ok(()));
        for serial in [0, 4, 5] {
            assert_eq!(bring(&mut ladder, serial, 2), Err(Refusal::RolledBack));
            assert_eq!(bring(&mut ladder, serial, 1), Ok(()), "the same key");
        }
        assert_eq!(ladder.storage.stores, 1, "nothing was rewritten");
        assert_eq!(bring(&mut ladder, 6, 2), Ok(()));
        assert_eq!(open(&mut ladder, 0, 0), Ok(2));
        assert_eq!(bring(&mut ladder, 5, 1), Err(Refusal::RolledBack));
        assert_eq!(bring(&mut ladder, u32::MAX, 2), Ok(()));
        assert_eq!(bring(&mut ladder, 7, 3), Err(Refusal::RolledBack));
    }

    #[test]
    fn a_forged_device_key_changes_nothing() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 1), Ok(()));
        let forged = ladder.provision(&provision(2, 2), |provision, key| {
            *key = provision.wrapped_key;
            Err(Refusal::Forged)
        });
        assert_eq!(forged, Err(Refusal::Forged));
        assert_eq!(open(&mut ladder, 0, 0), Ok(1));
    }

    #[test]
    fn a_licence_is_good_to_its_last_second() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        assert_eq!(open(&mut ladder, 1000, 999), Ok(9));
        assert_eq!(open(&mut ladder, 1000, 1000), Ok(9));
        assert_eq!(open(&mut ladder, 1000, 1001), Err(Refusal::Expired));
        assert_eq!(open(&mut ladder, 0, u64::MAX), Ok(9), "without an end");
        assert_eq!(open(&mut ladder, u64::MAX, 1002), Ok(9));
    }

    #[test]
    fn a_clock_that_is_turned_back_brings_nothing() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        assert_eq!(open(&mut ladder, 1000, 2000), Err(Refusal::Expired));
        assert_eq!(open(&mut ladder, 1000, 5), Err(Refusal::Expired));
        // The next instance knows it from storage,
        let mut next = Ladder::new(ladder.storage);
        assert_eq!(open(&mut next, 1000, 5), Err(Refusal::Expired));
        // and this one without it.
        next.storage.time = None;
        assert_eq!(open(&mut next, 1999, 5), Err(Refusal::Expired));
        assert_eq!(open(&mut next, 2000, 5), Ok(9));
    }

    #[test]
    fn storage_is_asked_for_the_time_once_and_then_by_steps() {
        const START: u64 = 1_800_000_000;
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        assert_eq!(open(&mut ladder, u64::MAX, START), Ok(9));
        let (loads, stores) = (ladder.storage.loads, ladder.storage.stores);
        for second in 0..TIME_STEP {
            assert_eq!(open(&mut ladder, u64::MAX, START + second), Ok(9));
        }
        assert_eq!(ladder.storage.stores, stores);
        assert_eq!(open(&mut ladder, u64::MAX, START + TIME_STEP), Ok(9));
        assert_eq!(ladder.storage.stores, stores + 1);
        assert_eq!(ladder.storage.loads, loads);
        // This is how much a new instance forgets, and not a second more.
        assert_eq!(
            open(&mut ladder, u64::MAX, START + 2 * TIME_STEP - 1),
            Ok(9)
        );
        let mut next = Ladder::new(ladder.storage);
        assert_eq!(open(&mut next, START + TIME_STEP, 5), Ok(9));
        let last = START + TIME_STEP - 1;
        assert_eq!(open(&mut next, last, 5), Err(Refusal::Expired));
    }

    #[test]
    fn an_end_that_was_seen_is_kept_at_once() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        for end in [1000, 1001, 1500] {
            assert_eq!(open(&mut ladder, end, end), Ok(9));
            assert_eq!(open(&mut ladder, end, end + 1), Err(Refusal::Expired));
            let stores = ladder.storage.stores;
            assert_eq!(open(&mut ladder, end, end + 2), Err(Refusal::Expired));
            assert_eq!(ladder.storage.stores, stores, "it is known");
            ladder = Ladder::new(ladder.storage);
            assert_eq!(open(&mut ladder, end, 5), Err(Refusal::Expired));
        }
        // A verdict that cannot be kept is one all the same.
        ladder.storage.broken = true;
        assert_eq!(open(&mut ladder, 1600, 1601), Err(BROKEN));
        assert_eq!(open(&mut ladder, 1600, 5), Err(BROKEN));
        ladder.storage.broken = false;
        assert_eq!(open(&mut ladder, 1600, 5), Err(Refusal::Expired));
        let mut next = Ladder::new(ladder.storage);
        assert_eq!(open(&mut next, 1600, 5), Err(Refusal::Expired));
    }

    #[test]
    fn time_that_cannot_be_kept_opens_nothing() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        ladder.storage.broken = true;
        assert_eq!(open(&mut ladder, 10, 5), Err(BROKEN));
        assert_eq!(bring(&mut ladder, 2, 1), Err(BROKEN));
        // What this instance knows it need not ask for, and no more than that.
        assert_eq!(open(&mut ladder, 0, 0), Ok(9));
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        let mut next = Ladder::new(ladder.storage);
        assert_eq!(open(&mut next, 0, 0), Err(BROKEN));
        assert_eq!(bring(&mut next, 1, 9), Err(BROKEN));
    }

    #[test]
    fn a_forged_licence_does_not_move_the_time() {
        let mut ladder = Ladder::new(Memory::default());
        assert_eq!(bring(&mut ladder, 1, 9), Ok(()));
        let licence = Licence {
            key_id: [0; 16],
            not_after: 1,
            nonce: [0; 12],
            wrapped_key: [0; 16],
            tag: [0; 16],
        };
        let outcome = ladder.open(
            &licence,
            &mut [0; 16],
            || panic!("the clock is asked for licences that are ours"),
            |_, _, _| Err(Refusal::Forged),
        );
        assert_eq!(outcome, Err(Refusal::Forged));
        assert_eq!(ladder.latest, 0);
    }
}
