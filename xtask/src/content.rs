// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prepares the main job's content as a provider would: encrypts the clip under a fresh key, wraps
//! that key for the trusted application, and says what must come out.
//!
//! What goes into the guest is ciphertext, a licence that only the trusted application can open, and
//! digests under a key. The plaintext stays on the host, as needles for searching the guest's memory.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use aes::Aes128;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use anyhow::{anyhow, ensure, Context, Result};
use ctr::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr128BE;
use hmac::{Hmac, Mac};
use ringfence_proto::message::{encode, Licence, Message, CONTENT_KEY_SIZE};
use ringfence_tests::job::{Digest, Job};
use sha2::Sha256;

use crate::artefact::clip::Clip;
use crate::artefact::ta;
use crate::cache::Cache;
use crate::vm::search::{Needles, NEEDLE_SIZE};

/// Heap that the buffers come from.
const HEAP: &str = "protected-video";

/// Bytes of each buffer.
const BUFFER_SIZE: u64 = 256 << 10;

/// Bytes of ciphertext handed to one command.
const PIECE_SIZE: u64 = 64 << 10;

/// Name of the set of needles, for the guest's requests.
const NEEDLES: &str = "clip";

/// Bytes between two needles: coprime to every block size, so that all alignments occur.
const NEEDLE_STRIDE: usize = 4099;

/// Distinct byte values that a needle has at least: fewer may occur in memory by chance.
const NEEDLE_VARIETY: usize = 12;

/// The prepared content.
pub struct Content {
    /// The directory for the guest, which has `job.json`.
    pub directory: PathBuf,
    /// Samples of the plaintext.
    pub needles: Needles,
}

/// Encrypts `clip` into the directory `into`.
pub fn prepare(cache: &Cache, clip: &Clip, into: &Path) -> Result<Content> {
    let plaintext = fs::read(clip.file())?;
    let content_key: [u8; CONTENT_KEY_SIZE] = random()?;
    let (key_id, digest_key): ([u8; 16], [u8; 32]) = (random()?, random()?);
    // The lower half counts blocks and must not overflow, as in CENC.
    let mut counter: [u8; 16] = random()?;
    counter[8..].fill(0);

    let mut ciphertext = plaintext.clone();
    Ctr128BE::<Aes128>::new(&content_key.into(), &counter.into()).apply_keystream(&mut ciphertext);
    let licence = wrap(
        &content_key,
        key_id,
        &fs::read(ta::provisioning_key(cache)?)?,
    )?;
    let mut encoded = [0; Licence::MAX_SIZE];
    let encoded =
        encode(&licence, &mut encoded).map_err(|error| anyhow!("encode the licence: {error}"))?;

    let digests = plaintext
        .chunks(usize::try_from(BUFFER_SIZE)?)
        .map(|content| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(&digest_key).context("the digest's key")?;
            mac.update(content);
            Ok(Digest(mac.finalize().into_bytes().into()))
        });
    let job = Job {
        title: clip.title.clone(),
        heap: HEAP.to_owned(),
        ciphertext: "clip.enc".into(),
        licence: "licence.bin".into(),
        size: plaintext.len() as u64,
        buffer_size: BUFFER_SIZE,
        piece_size: PIECE_SIZE,
        key_id,
        counter,
        digest_key,
        digests: digests.collect::<Result<_>>()?,
        needles: NEEDLES.to_owned(),
    };
    fs::create_dir_all(into)?;
    fs::write(into.join(&job.ciphertext), &ciphertext)?;
    fs::write(into.join(&job.licence), encoded)?;
    job.write(&into.join("job.json"))?;
    Ok(Content {
        directory: into.to_owned(),
        needles: Needles::new(NEEDLES, &sample(&plaintext)?)?,
    })
}

/// Wraps a content key for the trusted application.
fn wrap(
    content_key: &[u8; CONTENT_KEY_SIZE],
    key_id: [u8; 16],
    provisioning: &[u8],
) -> Result<Licence> {
    let cipher = Aes256Gcm::new_from_slice(provisioning).context("the provisioning key")?;
    let nonce: [u8; 12] = random()?;
    let payload = Payload {
        msg: content_key,
        aad: &key_id,
    };
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| anyhow!("wrap the content key"))?;
    let (wrapped, tag) = sealed.split_at(CONTENT_KEY_SIZE);
    Ok(Licence {
        key_id,
        nonce,
        wrapped_key: wrapped.try_into()?,
        tag: tag.try_into()?,
    })
}

/// Samples of the plaintext that would not be in memory by chance.
fn sample(plaintext: &[u8]) -> Result<Vec<[u8; NEEDLE_SIZE]>> {
    let is_telling =
        |bytes: &&[u8; NEEDLE_SIZE]| bytes.iter().collect::<HashSet<_>>().len() >= NEEDLE_VARIETY;
    let starts = (0..plaintext.len()).step_by(NEEDLE_STRIDE);
    let samples: HashSet<[u8; NEEDLE_SIZE]> = starts
        .filter_map(|start| plaintext.get(start..)?.first_chunk())
        .filter(is_telling)
        .copied()
        .collect();
    ensure!(
        samples.len() >= 16,
        "the clip gives only {} needles",
        samples.len()
    );
    Ok(samples.into_iter().collect())
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_only_with_its_own_id() {
        let (content_key, key_id) = ([7; 16], [9; 16]);
        let licence = wrap(&content_key, key_id, &[5; 32]).expect("wrapped");
        let sealed = [&licence.wrapped_key[..], &licence.tag].concat();
        let open = |aad: &[u8]| {
            let cipher = Aes256Gcm::new_from_slice(&[5; 32]).expect("a key of 32 bytes");
            cipher.decrypt(&Nonce::from(licence.nonce), Payload { msg: &sealed, aad })
        };
        assert_eq!(open(&key_id).expect("the right id"), content_key);
        assert!(open(&[8; 16]).is_err());
    }

    #[test]
    fn needles_are_telling_parts_of_the_plaintext() {
        let mut plaintext = vec![0; NEEDLE_STRIDE * 40];
        let noise = (0..plaintext.len() / 2).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
        plaintext.splice(..noise.len(), noise);
        let needles = sample(&plaintext).expect("half of it is noise");
        assert!(needles.len() <= 21);
        for needle in needles {
            assert!(plaintext
                .windows(NEEDLE_SIZE)
                .any(|window| window == needle));
        }
        assert!(sample(&vec![0; NEEDLE_STRIDE * 40]).is_err());
    }
}
