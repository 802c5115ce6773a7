// SPDX-License-Identifier: MIT OR Apache-2.0
//! The provider's side of the key ladder: a device key sealed under the factory key, which the
//! trusted application was built with, and content keys sealed under the device key.
//!
//! All that one guest gets must come from one ladder: the trusted application takes no other device
//! key of the same serial number.

use std::fs;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use anyhow::{anyhow, Context, Result};
use ringfence_proto::message::{
    encode, KeyId, Licence, Message, Provision, CONTENT_KEY_SIZE, DEVICE_KEY_SIZE,
};

use crate::artefact::ta;
use crate::cache::Cache;

/// A content key (AES-128).
pub type ContentKey = [u8; CONTENT_KEY_SIZE];

/// A device key, and the factory key above it.
#[derive(Clone)]
pub struct Ladder {
    factory: Vec<u8>,
    device: [u8; DEVICE_KEY_SIZE],
    serial: u32,
}

impl Ladder {
    /// A new device key for this cache's trusted application, the first of its device.
    pub fn new(cache: &Cache) -> Result<Self> {
        Ok(Self {
            factory: fs::read(ta::factory_key(cache)?)?,
            device: random()?,
            serial: 1,
        })
    }

    /// Another device key, which replaces this one.
    pub fn renewed(&self) -> Result<Self> {
        Ok(Self {
            device: random()?,
            ..self.again()
        })
    }

    /// The same device key, to replace the one that came after it.
    pub fn again(&self) -> Self {
        Self {
            serial: self.serial + 1,
            ..self.clone()
        }
    }

    /// The message that brings the device key to the trusted application, encoded.
    pub fn provision(&self) -> Result<Vec<u8>> {
        let mut provision = Provision {
            serial: self.serial,
            nonce: random()?,
            wrapped_key: [0; DEVICE_KEY_SIZE],
            tag: [0; 16],
        };
        let (key, tag) = seal(
            &self.factory,
            &self.device,
            &provision.nonce,
            &provision.aad(),
        )?;
        provision.wrapped_key = key.as_slice().try_into()?;
        provision.tag = tag;
        encoded(&provision)
    }

    /// A licence for a content key, encoded. `not_after` is its last second since 1970, or 0.
    pub fn licence(&self, key_id: KeyId, key: &ContentKey, not_after: u64) -> Result<Vec<u8>> {
        let mut licence = Licence {
            key_id,
            not_after,
            nonce: random()?,
            wrapped_key: [0; CONTENT_KEY_SIZE],
            tag: [0; 16],
        };
        let (wrapped, tag) = seal(&self.device, key, &licence.nonce, &licence.aad())?;
        licence.wrapped_key = wrapped.as_slice().try_into()?;
        licence.tag = tag;
        encoded(&licence)
    }
}

/// Seals a key under another by AES-256-GCM; the ciphertext and the tag.
fn seal(under: &[u8], key: &[u8], nonce: &[u8; 12], aad: &[u8]) -> Result<(Vec<u8>, [u8; 16])> {
    let cipher = Aes256Gcm::new_from_slice(under).context("a key of 32 bytes")?;
    let mut sealed = cipher
        .encrypt(&Nonce::from(*nonce), Payload { msg: key, aad })
        .map_err(|_| anyhow!("seal a key"))?;
    let tag = sealed.split_off(key.len());
    Ok((sealed, tag.as_slice().try_into()?))
}

fn encoded<M: Message>(message: &M) -> Result<Vec<u8>> {
    let mut buffer = vec![0; M::MAX_SIZE];
    let bytes = encode(message, &mut buffer).map_err(|error| anyhow!("{error}"))?;
    Ok(bytes.to_vec())
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_proto::message::decode;

    fn ladder() -> Ladder {
        Ladder {
            factory: vec![5; 32],
            device: [6; 32],
            serial: 7,
        }
    }

    fn open(under: &[u8], nonce: [u8; 12], sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
        let cipher = Aes256Gcm::new_from_slice(under).expect("a key of 32 bytes");
        cipher
            .decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad })
            .ok()
    }

    #[test]
    fn a_licence_opens_with_its_own_id_and_end_only() {
        let bytes = ladder().licence([9; 16], &[7; 16], 1000).expect("sealed");
        let licence: Licence = decode(&bytes).expect("a licence");
        let sealed = [&licence.wrapped_key[..], &licence.tag].concat();
        let open = |licence: Licence| open(&[6; 32], licence.nonce, &sealed, &licence.aad());
        assert_eq!(open(licence), Some(vec![7; 16]));
        let key_id = [8; 16];
        assert_eq!(open(Licence { key_id, ..licence }), None);
        let not_after = 1001;
        assert_eq!(
            open(Licence {
                not_after,
                ..licence
            }),
            None
        );
    }

    #[test]
    fn a_device_key_opens_with_its_own_serial_number_only() {
        let bytes = ladder().provision().expect("sealed");
        let provision: Provision = decode(&bytes).expect("a device key");
        assert_eq!(provision.serial, 7);
        let sealed = [&provision.wrapped_key[..], &provision.tag].concat();
        let open =
            |provision: Provision| open(&[5; 32], provision.nonce, &sealed, &provision.aad());
        assert_eq!(open(provision), Some(vec![6; 32]));
        let serial = 8;
        assert_eq!(
            open(Provision {
                serial,
                ..provision
            }),
            None
        );
    }

    #[test]
    fn a_renewed_key_is_another_and_later() {
        let (first, second) = (ladder(), ladder().renewed().expect("random numbers"));
        assert_ne!(first.device, second.device);
        assert_eq!(second.serial, 8);
        assert_eq!(first.again().device, first.device);
    }
}
