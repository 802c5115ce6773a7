// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two protected buffers, and the way of a picture from one to the other.

use std::path::Path;

use aes::Aes128;
use anyhow::Context;
use ctr::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr128BE;
use hmac::{Hmac, KeyInit, Mac};
use ringfence::buffer::Buffer;
use ringfence::proto::message::{Decode, Decrypt, DigestRequest, Licence};
use ringfence_tests::content::{Content, KnownKey};
use ringfence_tests::guest::decoder::{Decoder, Picture};
use ringfence_tests::guest::memory::PhysicalRange;
use ringfence_tests::guest::ta::{expect_done, Code, Ta};
use sha2::Sha256;

use super::super::fixture;
use super::super::protect::handle;
use super::super::region::{self, VIDEO};

/// Key of the digests.
const DIGEST_KEY: [u8; 32] = [0x42; 32];

/// Where content is encrypted from.
const COUNTER: [u8; 16] = [7; 16];

/// A buffer for a bitstream and one for a frame, and the applications.
pub struct Stage {
    pub ta: Ta,
    pub decoder: Decoder,
    pub source: Buffer,
    pub source_range: PhysicalRange,
    pub frame: Buffer,
    pub frame_range: PhysicalRange,
    pub source_handle: u64,
    pub frame_handle: u64,
    known: KnownKey,
}

/// Where a frame lies in its buffer.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub source_offset: u64,
    pub frame_offset: u64,
    /// Bytes between two lines.
    pub padding: u32,
}

/// At the start of both buffers, line after line.
pub const PLAIN: Place = Place {
    source_offset: 0,
    frame_offset: 0,
    padding: 0,
};

/// Opens the decoder.
pub fn open() -> anyhow::Result<Decoder> {
    expect_done(Decoder::open(), "a session of the decoder")
}

impl Stage {
    /// Buffers of these sizes, and a key to put bitstreams into the first one with.
    pub fn new(source: u64, frame: u64) -> anyhow::Result<Self> {
        let share = fixture::path(Path::new("."))?;
        let content = Content::read(Path::new(&share)).context("the content")?;
        fixture::provision(&content.provision)?;
        let licence: Licence = fixture::read_message(&content.known.licence)?;
        let mut ta = Ta::open()?;
        expect_done(ta.load_licence(&licence), "LOAD_LICENCE")?;
        let (source, source_range) = region::allocate(VIDEO, source)?;
        let (frame, frame_range) = region::allocate(VIDEO, frame)?;
        Ok(Self {
            ta,
            decoder: open()?,
            source_handle: handle(&source)?,
            frame_handle: handle(&frame)?,
            source,
            source_range,
            frame,
            frame_range,
            known: content.known,
        })
    }

    /// Has bytes decrypted into the bitstream's buffer.
    pub fn put(&mut self, bytes: &[u8], offset: u64) -> Result<u64, Code> {
        let mut ciphertext = bytes.to_vec();
        let mut cipher = Ctr128BE::<Aes128>::new(&self.known.key.into(), &COUNTER.into());
        cipher.apply_keystream(&mut ciphertext);
        let request = Decrypt {
            key_id: self.known.key_id,
            counter: COUNTER,
            offset,
        };
        self.ta.decrypt(self.source_handle, &request, &ciphertext)
    }

    /// How to decode a picture of `length` bytes.
    pub fn request(&self, picture: &Picture, length: usize, place: Place) -> Decode {
        Decode {
            source_offset: place.source_offset,
            source_length: length as u32,
            frame: self.frame_handle,
            frame_offset: place.frame_offset,
            stride: 4 * picture.width + place.padding,
            width: picture.width,
            height: picture.height,
        }
    }

    /// Decodes these bytes as that picture, and fails unless the outcome is the
    /// library's: the same frame, or the same refusal. Returns whether there is a
    /// frame.
    pub fn decode(
        &mut self,
        picture: &Picture,
        bytes: &[u8],
        place: Place,
    ) -> anyhow::Result<bool> {
        let what = &picture.name;
        expect_done(self.put(bytes, place.source_offset), "DECRYPT")?;
        let request = self.request(picture, bytes.len(), place);
        let outcome = self.decoder.decode(self.source_handle, &request);
        match (outcome, picture.expected(bytes, request.stride)) {
            (Ok(size), Ok(frame)) => {
                anyhow::ensure!(size == (picture.width, picture.height), "{what}: {size:?}");
                self.expect_frame(&frame, place.frame_offset)
                    .with_context(|| what.clone())?;
                Ok(true)
            }
            (Err(code), Err(expected)) if code == expected => Ok(false),
            (outcome, expected) => anyhow::bail!(
                "{what}: {outcome:x?}, not {:x?}",
                expected.map(|frame| frame.len())
            ),
        }
    }

    /// Fails unless the frame's buffer holds these bytes.
    pub fn expect_frame(&mut self, frame: &[u8], offset: u64) -> anyhow::Result<()> {
        let request = DigestRequest {
            key: DIGEST_KEY,
            offset,
            length: frame.len() as u64,
        };
        let digest = expect_done(self.ta.digest(self.frame_handle, &request), "DIGEST")?;
        let mut expected = Hmac::<Sha256>::new_from_slice(&DIGEST_KEY)?;
        expected.update(frame);
        anyhow::ensure!(
            digest == <[u8; 32]>::from(expected.finalize().into_bytes()),
            "the frame is not what the library makes of it"
        );
        Ok(())
    }
}
