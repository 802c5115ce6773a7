// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prepares content as a provider would: encrypts the main job's clip under a fresh key, with a
//! licence for the trusted application, and says what must come out. Tests get films, and licences
//! that are not to be taken, besides.
//!
//! What goes into the guest is ciphertext, a licence that only the trusted application can open, and
//! digests under a key. The plaintext stays on the host, as needles for searching the guest's memory.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aes::Aes128;
use anyhow::{ensure, Context, Result};
use ctr::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr128BE;
use hmac::{Hmac, KeyInit, Mac};
use ringfence_tests::content::{self, Ending, Frame, KnownKey};
use ringfence_tests::job::{Digest, Job};
use sha2::Sha256;

use crate::artefact::clip::Clip;
use crate::film::Pictures;
use crate::ladder::{random, ContentKey, Ladder};
use crate::stack::Stack;
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

/// Prepares all content for one guest in the directory `into`.
pub fn prepare(ladder: &Ladder, stack: &Stack, into: &Path) -> Result<Content> {
    fs::create_dir_all(into)?;
    prepare_tests(ladder, &stack.film, into)?;
    prepare_clip(ladder, &stack.clip, into)
}

/// Name of the message with the device key.
const PROVISION: &str = "provision.bin";

/// Encrypts `clip` into the directory `into`.
fn prepare_clip(ladder: &Ladder, clip: &Clip, into: &Path) -> Result<Content> {
    let plaintext = fs::read(clip.file())?;
    let content_key: ContentKey = random()?;
    let (key_id, digest_key): ([u8; 16], [u8; 32]) = (random()?, random()?);
    // The lower half counts blocks and must not overflow, as in CENC.
    let mut counter: [u8; 16] = random()?;
    counter[8..].fill(0);

    let mut ciphertext = plaintext.clone();
    Ctr128BE::<Aes128>::new(&content_key.into(), &counter.into()).apply_keystream(&mut ciphertext);
    let digests = plaintext
        .chunks(usize::try_from(BUFFER_SIZE)?)
        .map(|content| digest(&digest_key, content));
    let job = Job {
        title: clip.title.clone(),
        heap: HEAP.to_owned(),
        ciphertext: "clip.enc".into(),
        provision: PROVISION.into(),
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
    fs::write(into.join(&job.ciphertext), &ciphertext)?;
    fs::write(into.join(&job.provision), ladder.provision()?)?;
    fs::write(
        into.join(&job.licence),
        ladder.licence(key_id, &content_key, 0)?,
    )?;
    job.write(&into.join("job.json"))?;
    Ok(Content {
        directory: into.to_owned(),
        needles: Needles::new(NEEDLES, &sample(&plaintext)?)?,
    })
}

/// HMAC-SHA256, as the trusted application's digest command makes it.
fn digest(key: &[u8; 32], content: &[u8]) -> Result<Digest> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("the digest's key")?;
    mac.update(content);
    Ok(Digest(mac.finalize().into_bytes().into()))
}

/// How long a licence lasts that ends, in seconds: longer than any guest runs.
const LASTING: u64 = 7 * 24 * 3600;

/// Prepares what tests of content take.
fn prepare_tests(ladder: &Ladder, pictures: &Pictures, into: &Path) -> Result<()> {
    let renewed = ladder.renewed()?;
    let (key_id, key): ([u8; 16], ContentKey) = (random()?, random()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let not_after = now + LASTING;
    let file = |name: &str, bytes: Vec<u8>| -> Result<PathBuf> {
        fs::write(into.join(name), bytes)?;
        Ok(name.into())
    };
    let films = ["film", "other-film"].map(|name| -> Result<content::Film> {
        let film = pictures.encrypt(ladder, into)?;
        let digest_key = random()?;
        let frames = film.frames.iter().map(|frame| {
            Ok(Frame {
                size: frame.len().try_into()?,
                digest: digest(&digest_key, frame)?,
            })
        });
        let wrong = ladder.licence(film.key_id, &random()?, 0)?;
        Ok(content::Film {
            frames: frames.collect::<Result<_>>()?,
            mp4: file(&format!("{name}.mp4"), film.mp4)?,
            licence: file(&format!("{name}.licence"), film.licence)?,
            wrong_licence: file(&format!("{name}-wrong.licence"), wrong)?,
            width: pictures.format.width,
            height: pictures.format.height,
            digest_key,
        })
    });
    content::Content {
        provision: PROVISION.into(),
        renewed: file("renewed.bin", renewed.provision()?)?,
        restored: file("restored.bin", ladder.again().again().provision()?)?,
        known: KnownKey {
            key_id,
            key,
            licence: file("known.licence", ladder.licence(key_id, &key, 0)?)?,
        },
        expired: file("expired.licence", ladder.licence(key_id, &key, 1)?)?,
        ending: Ending {
            licence: file("ending.licence", ladder.licence(key_id, &key, not_after)?)?,
            not_after,
        },
        of_renewed: file("renewed.licence", renewed.licence(key_id, &key, 0)?)?,
        films: films.into_iter().collect::<Result<_>>()?,
    }
    .write(into)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
