// SPDX-License-Identifier: MIT OR Apache-2.0

//! The content keys of one session.

use heapless::Vec;
use ringfence_proto::message::{KeyId, Licence, CONTENT_KEY_SIZE};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// Content keys that a session holds at most.
pub const MAX_KEYS: usize = 8;

/// A content key, zeroed when it goes.
#[derive(Default)]
pub struct ContentKey(Zeroizing<[u8; CONTENT_KEY_SIZE]>);

impl ContentKey {
    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; CONTENT_KEY_SIZE] {
        &self.0
    }
}

/// The content keys that were loaded in one session; they go with it.
#[derive(Default)]
pub struct KeyStore {
    keys: Vec<(KeyId, ContentKey), MAX_KEYS>,
}

impl KeyStore {
    /// Loads the key of a licence, which `unwrap` decrypts and authenticates.
    ///
    /// A key that is loaded already is replaced; but a licence that is refused
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] before anything is decrypted, or what `unwrap` says.
    pub fn load(
        &mut self,
        licence: &Licence,
        unwrap: impl FnOnce(&Licence, &mut [u8; CONTENT_KEY_SIZE]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let place = self.keys.iter().position(|(id, _)| *id == licence.key_id);
        if place.is_none() && self.keys.is_full() {
            return Err(Refusal::Full);
        }
        // A moved key leaves a copy behind: the bytes are copied into the slot
        // instead, and the scratch key is zeroed on every way out.
        let mut scratch = ContentKey::default();
        unwrap(licence, &mut scratch.0)?;
        if place.is_none() {
            let empty = ContentKey::default();
            self.keys
                .push((licence.key_id, empty))
                .map_err(|_| Refusal::Full)?;
        }
        let slot = match place {
            Some(place) => self.keys.get_mut(place),
            None => self.keys.last_mut(),
        };
        let (_, key) = slot.ok_or(Refusal::Full)?;
        key.0.copy_from_slice(scratch.bytes());
        Ok(())
    }

    /// The key of this name.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownKey`] if it was not loaded.
    pub fn get(&self, key_id: &KeyId) -> Result<&ContentKey, Refusal> {
        self.keys
            .iter()
            .find(|(id, _)| id == key_id)
            .map(|(_, key)| key)
            .ok_or(Refusal::UnknownKey)
    }

    /// Keys loaded.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is loaded.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn licence(id: u8, key: u8) -> Licence {
        Licence {
            key_id: [id; 16],
            not_after: 0,
            nonce: [0; 12],
            wrapped_key: [key; 16],
            tag: [0; 16],
        }
    }

    /// Takes the wrapped key for the key.
    fn open(licence: &Licence, key: &mut [u8; 16]) -> Result<(), Refusal> {
        *key = licence.wrapped_key;
        Ok(())
    }

    /// Writes to the key, then refuses, as authenticated decryption may.
    fn forged(licence: &Licence, key: &mut [u8; 16]) -> Result<(), Refusal> {
        *key = licence.wrapped_key;
        Err(Refusal::Forged)
    }

    fn loaded(store: &KeyStore, id: u8) -> Option<[u8; 16]> {
        store.get(&[id; 16]).ok().map(|key| *key.bytes())
    }

    #[test]
    fn a_key_is_known_once_its_licence_is_accepted() {
        let mut store = KeyStore::default();
        assert_eq!(store.get(&[1; 16]).err(), Some(Refusal::UnknownKey));
        assert_eq!(store.load(&licence(1, 0xaa), forged), Err(Refusal::Forged));
        assert!(store.is_empty());
        assert_eq!(store.load(&licence(1, 0xaa), open), Ok(()));
        assert_eq!(loaded(&store, 1), Some([0xaa; 16]));
        assert_eq!(loaded(&store, 2), None);
    }

    #[test]
    fn a_new_licence_replaces_and_a_forged_one_does_not() {
        let mut store = KeyStore::default();
        assert_eq!(store.load(&licence(1, 0xaa), open), Ok(()));
        assert_eq!(store.load(&licence(1, 0xbb), forged), Err(Refusal::Forged));
        assert_eq!(loaded(&store, 1), Some([0xaa; 16]));
        assert_eq!(store.load(&licence(1, 0xcc), open), Ok(()));
        assert_eq!(loaded(&store, 1), Some([0xcc; 16]));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_full_store_takes_known_keys_only() {
        let mut store = KeyStore::default();
        for id in 0..MAX_KEYS as u8 {
            assert_eq!(store.load(&licence(id, id), open), Ok(()));
        }
        let unasked = |_: &Licence, _: &mut [u8; 16]| -> Result<(), Refusal> {
            panic!("a full store must not decrypt")
        };
        assert_eq!(store.load(&licence(0xff, 1), unasked), Err(Refusal::Full));
        assert_eq!(store.load(&licence(0, 0xdd), open), Ok(()));
        assert_eq!(loaded(&store, 0), Some([0xdd; 16]));
        assert_eq!(store.len(), MAX_KEYS);
    }
}
