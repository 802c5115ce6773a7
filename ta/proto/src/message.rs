// SPDX-License-Identifier: MIT OR Apache-2.0

//! Structured messages between user space and the trusted application.
//!
//! On the wire a message is its version (`u16`), then its fields in order, in
//! [postcard](https://postcard.jamesmunns.com/wire-format)'s encoding. Each
//! message has exactly one encoding: [`decode`] refuses trailing bytes, padded
//! integers, unknown versions and everything longer than
//! [`Message::MAX_SIZE`], and it never panics.
//!
//! ```
//! use ringfence_proto::message::{decode, encode, Decrypt, Message};
//!
//! let request = Decrypt { key_id: [1; 16], counter: [2; 16], offset: 4096 };
//! let mut buffer = [0; Decrypt::MAX_SIZE];
//! let bytes = encode(&request, &mut buffer)?;
//! assert_eq!(decode::<Decrypt>(bytes), Ok(request));
//! # Ok::<(), ringfence_proto::message::EncodeError>(())
//! ```

use core::fmt;

use heapless::Vec;
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the messages in this file; the first field on the wire.
pub const VERSION: u16 = 2;

/// Most bytes of a `u16` in postcard's encoding.
const VARINT_U16: usize = 3;
/// Most bytes of a `u32` in postcard's encoding.
const VARINT_U32: usize = 5;
/// Most bytes of a `u64` in postcard's encoding.
const VARINT_U64: usize = 10;

/// Bytes of a content key (AES-128).
pub const CONTENT_KEY_SIZE: usize = 16;

/// Bytes of the device key (AES-256), and of the factory key above it.
pub const DEVICE_KEY_SIZE: usize = 32;

/// Bytes of a sample, or of a piece of one, that a command takes at most.
pub const MAX_SAMPLE: usize = 1 << 20;

/// Subsamples in one command at most.
pub const MAX_SUBSAMPLES: usize = 64;

/// Names a content key (a CENC key id).
pub type KeyId = [u8; 16];

/// A message that [`encode`] and [`decode`] know.
pub trait Message: Serialize + DeserializeOwned + sealed::Sealed {
    /// Most bytes of its encoding, version included.
    const MAX_SIZE: usize;
}

mod sealed {
    /// Keeps [`Message`](super::Message) to the messages of this module.
    pub trait Sealed {}
}

/// What the trusted application is and how it stands: answer to
/// [`command::INFO`](crate::command::INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// [`command::PROTOCOL_VERSION`](crate::command::PROTOCOL_VERSION) of the TA.
    pub protocol: u32,
    /// Whether the commands of test builds are there.
    pub test_commands: bool,
    /// Unit of protection, in bytes.
    pub granule: u32,
    /// Largest part of a range that the TA maps at once, in bytes.
    pub window: u32,
    /// Carveouts that the secure world knows.
    pub regions: u32,
    /// Ranges that are fenced now, quarantined ones included.
    pub ranges: u32,
    /// Ranges in quarantine.
    pub quarantined: u32,
    /// Ranges that can be fenced at once.
    pub max_ranges: u32,
    /// Content keys that this session has loaded.
    pub keys: u32,
    /// Content keys that a session can hold.
    pub max_keys: u32,
}

impl sealed::Sealed for Info {}
impl Message for Info {
    const MAX_SIZE: usize = VARINT_U16 + 1 + 9 * VARINT_U32;
}

/// The device key, wrapped for the trusted application by AES-256-GCM under the
/// factory key, with [`Provision::aad`] as additional authenticated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// Counts the device's keys: a later one has a greater number.
    pub serial: u32,
    /// GCM nonce.
    pub nonce: [u8; 12],
    /// The encrypted device key.
    pub wrapped_key: [u8; DEVICE_KEY_SIZE],
    /// GCM tag.
    pub tag: [u8; 16],
}

impl Provision {
    /// What no other message of this key ladder begins with.
    const LABEL: [u8; 24] = *b"ringfence device key v1\0";

    /// Bytes of [`aad`](Self::aad).
    pub const AAD_SIZE: usize = Self::LABEL.len() + 4;

    /// What is authenticated besides the key: a label, and the serial number in
    /// little endian.
    pub fn aad(&self) -> [u8; Self::AAD_SIZE] {
        let mut aad = [0; Self::AAD_SIZE];
        let (label, serial) = aad.split_at_mut(Self::LABEL.len());
        label.copy_from_slice(&Self::LABEL);
        serial.copy_from_slice(&self.serial.to_le_bytes());
        aad
    }
}

impl sealed::Sealed for Provision {}
impl Message for Provision {
    const MAX_SIZE: usize = VARINT_U16 + VARINT_U32 + 12 + DEVICE_KEY_SIZE + 16;
}

/// A content key, wrapped for the trusted application by AES-256-GCM under the
/// device key, with [`Licence::aad`] as additional authenticated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// The key's name.
    pub key_id: KeyId,
    /// The last second in which it can be loaded, counted from 1970; 0 for
    /// any.
    pub not_after: u64,
    /// GCM nonce.
    pub nonce: [u8; 12],
    /// The encrypted content key.
    pub wrapped_key: [u8; CONTENT_KEY_SIZE],
    /// GCM tag.
    pub tag: [u8; 16],
}

impl Licence {
    /// Bytes of [`aad`](Self::aad).
    pub const AAD_SIZE: usize = 16 + 8;

    /// What is authenticated besides the key: the key id, and the last second in
    /// little endian.
    pub fn aad(&self) -> [u8; Self::AAD_SIZE] {
        let mut aad = [0; Self::AAD_SIZE];
        let (key_id, not_after) = aad.split_at_mut(self.key_id.len());
        key_id.copy_from_slice(&self.key_id);
        not_after.copy_from_slice(&self.not_after.to_le_bytes());
        aad
    }
}

impl sealed::Sealed for Licence {}
impl Message for Licence {
    const MAX_SIZE: usize = VARINT_U16 + 16 + VARINT_U64 + 12 + CONTENT_KEY_SIZE + 16;
}

/// Where decrypted content goes, and with what it is decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decrypt {
    /// A key that was loaded in this session.
    pub key_id: KeyId,
    /// The first AES-CTR counter block.
    pub counter: [u8; 16],
    /// Where the first byte goes, in bytes from the start of the buffer.
    pub offset: u64,
}

impl sealed::Sealed for Decrypt {}
impl Message for Decrypt {
    const MAX_SIZE: usize = VARINT_U16 + 16 + 16 + VARINT_U64;
}

/// How samples are encrypted: ISO/IEC 23001-7, "Protection scheme definitions".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// AES-CTR over all encrypted bytes of a sample, one after the other.
    Cenc,
    /// AES-CBC over blocks picked by a [`Pattern`], beginning anew in each
    /// subsample.
    Cbcs,
}

/// Which blocks of 16 bytes `cbcs` encrypts, from the start of a subsample's
/// encrypted bytes on: so many, then so many not, and again. An incomplete run
/// of encrypted blocks at the end is clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// Encrypted blocks; 0 with 0 clear ones stands for every whole block.
    pub crypt: u8,
    /// Clear blocks.
    pub skip: u8,
}

/// A stretch of a sample: clear bytes, then encrypted ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subsample {
    /// Clear bytes.
    pub clear: u32,
    /// Encrypted bytes; with `cbcs` those that the pattern applies to.
    pub encrypted: u32,
}

/// Where a decrypted sample goes, and how it is encrypted.
///
/// A sample that is too long for one command, or has too many subsamples, goes
/// in pieces:
/// - `cenc`: a piece may begin anywhere; `iv` is the counter block of its first
///   encrypted byte, and `used` the bytes of that block's key stream that the
///   piece before has used.
/// - `cbcs`: a piece may begin anywhere in clear bytes, and at a multiple of the
///   pattern in encrypted ones. What such a piece has of the cut subsample is its
///   only subsample, and `iv` the last encrypted block before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecryptSample {
    /// A key that was loaded in this session.
    pub key_id: KeyId,
    /// How it is encrypted.
    pub scheme: Scheme,
    /// The first counter block (`cenc`; its second half alone counts, and wraps
    /// around), or the IV of each subsample (`cbcs`).
    pub iv: [u8; 16],
    /// Bytes of the first counter block's key stream to leave out: less than 16,
    /// and 0 for `cbcs`.
    pub used: u8,
    /// Which blocks are encrypted: 0 and 0 for `cenc`.
    pub pattern: Pattern,
    /// Where the first byte goes, in bytes from the start of the buffer.
    pub offset: u64,
    /// What is clear and what is encrypted, as many bytes as the sample has.
    pub subsamples: Vec<Subsample, MAX_SUBSAMPLES>,
}

impl sealed::Sealed for DecryptSample {}
impl Message for DecryptSample {
    const MAX_SIZE: usize =
        VARINT_U16 + 16 + 1 + 16 + 1 + 2 + VARINT_U64 + 1 + MAX_SUBSAMPLES * 2 * VARINT_U32;
}

/// What to take a keyed digest of (test builds only).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRequest {
    /// Key of the HMAC.
    pub key: [u8; 32],
    /// First byte, in bytes from the start of the buffer.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl fmt::Debug for DigestRequest {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestRequest")
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl sealed::Sealed for DigestRequest {}
impl Message for DigestRequest {
    const MAX_SIZE: usize = VARINT_U16 + 32 + 2 * VARINT_U64;
}

/// Where a compressed picture is, and where its pixels go: for
/// [`decoder::DECODE`](crate::decoder::DECODE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decode {
    /// The bitstream's first byte, in bytes from the start of its buffer.
    pub source_offset: u64,
    /// Bytes of the bitstream: at most
    /// [`MAX_SOURCE`](crate::decoder::MAX_SOURCE).
    pub source_length: u32,
    /// Handle of the buffer that the frame goes to, another one.
    pub frame: u64,
    /// The frame's first byte, in bytes from the start of that buffer: a
    /// multiple of 4.
    pub frame_offset: u64,
    /// Bytes from one line to the next: a multiple of 4, and four for each pixel
    /// at least. What is between two lines belongs to the frame, too, and is
    /// zeroed.
    pub stride: u32,
    /// Pixels of a line: at most [`MAX_WIDTH`](crate::decoder::MAX_WIDTH).
    pub width: u32,
    /// Lines. With the stride it makes at most
    /// [`MAX_FRAME`](crate::decoder::MAX_FRAME) bytes.
    pub height: u32,
}

impl sealed::Sealed for Decode {}
impl Message for Decode {
    const MAX_SIZE: usize = VARINT_U16 + 3 * VARINT_U64 + 4 * VARINT_U32;
}

/// Most bytes of any message that a client sends.
pub const LARGEST: usize = DecryptSample::MAX_SIZE;

const _: () = assert!(
    Provision::MAX_SIZE <= LARGEST
        && Licence::MAX_SIZE <= LARGEST
        && Decrypt::MAX_SIZE <= LARGEST
        && Decode::MAX_SIZE <= LARGEST
        && DigestRequest::MAX_SIZE <= LARGEST
);

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than the message can be.
    TooLong {
        /// Bytes given.
        length: usize,
        /// [`Message::MAX_SIZE`].
        max: usize,
    },
    /// Of another version than [`VERSION`].
    UnknownVersion(u16),
    /// Cut short, or with a field that cannot be.
    Malformed,
    /// Followed by this many bytes that do not belong to it.
    TrailingBytes(usize),
    /// Not written in its one encoding.
    NotCanonical,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, max } => {
                write!(f, "message of {length} bytes, at most {max} are allowed")
            }
            Self::UnknownVersion(version) => {
                write!(f, "message version {version}, only {VERSION} is known")
            }
            Self::Malformed => f.write_str("message is cut short or malformed"),
            Self::TrailingBytes(count) => write!(f, "{count} bytes after the message"),
            Self::NotCanonical => f.write_str("message is not in its canonical encoding"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The buffer is too small for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("buffer too small for the message")
    }
}

impl core::error::Error for EncodeError {}

/// Writes a message to the start of `buffer` and returns the bytes written.
///
/// A buffer of [`Message::MAX_SIZE`] bytes always suffices.
///
/// # Errors
///
/// [`EncodeError`] if `buffer` is too small; it may have been written to.
pub fn encode<'b, M: Message>(message: &M, buffer: &'b mut [u8]) -> Result<&'b [u8], EncodeError> {
    postcard::to_slice(&(VERSION, message), buffer)
        .map(|written| &*written)
        .map_err(|_| EncodeError)
}

/// Reads a message that takes up all of `bytes`.
///
/// # Errors
///
/// See [`DecodeError`]. The version is judged before anything behind it.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    if bytes.len() > M::MAX_SIZE {
        return Err(DecodeError::TooLong {
            length: bytes.len(),
            max: M::MAX_SIZE,
        });
    }
    let (version, body) =
        postcard::take_from_bytes::<u16>(bytes).map_err(|_| DecodeError::Malformed)?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let (message, rest) =
        postcard::take_from_bytes::<M>(body).map_err(|_| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes(rest.len()));
    }
    let same = postcard::serialize_with_flavor(&(VERSION, &message), Compare { rest: bytes })
        .map_err(|_| DecodeError::NotCanonical)?;
    if !same {
        return Err(DecodeError::NotCanonical);
    }
    Ok(message)
}

/// A sink that compares what is written to it with what is expected, so that
/// no second copy of a message is made.
struct Compare<'b> {
    rest: &'b [u8],
}

impl Flavor for Compare<'_> {
    /// Whether all that was expected has been written.
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.rest.split_first() {
            Some((expected, rest)) if *expected == byte => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(postcard::Error::SerializeBufferFull),
        }
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.rest.is_empty())
    }
}
