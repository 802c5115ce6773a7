// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the host prepares for tests of content: keys that a test may know, licences
//! that are not to be taken, device keys, and films.
//!
//! Files are relative to the folder of [`FILE`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::job::Digest;

/// Name of the file that describes all the others.
pub const FILE: &str = "content.json";

/// The prepared content. Byte strings are hexadecimal in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The device key that all licences are sealed under, unless said otherwise.
    pub provision: PathBuf,
    /// A later device key.
    pub renewed: PathBuf,
    /// The first device key again, after the later one.
    pub restored: PathBuf,
    /// A content key that is no secret, to encrypt with in the guest.
    pub known: KnownKey,
    /// A licence for the known key that has ended long ago.
    pub expired: PathBuf,
    /// A licence for the known key that ends.
    pub ending: Ending,
    /// A licence for the known key, sealed under the later device key.
    pub of_renewed: PathBuf,
    /// Films of the same pictures, each under a key of its own.
    pub films: Vec<Film>,
}

/// A content key that is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownKey {
    /// Its name.
    #[serde(with = "hex::serde")]
    pub key_id: [u8; 16],
    /// The key.
    #[serde(with = "hex::serde")]
    pub key: [u8; 16],
    /// A licence that does not end.
    pub licence: PathBuf,
}

/// A licence with an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// The licence.
    pub licence: PathBuf,
    /// Its last second since 1970.
    pub not_after: u64,
}

/// An encrypted film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Film {
    /// The file to play.
    pub mp4: PathBuf,
    /// The licence for its key.
    pub licence: PathBuf,
    /// A licence that gives another key under the same name.
    pub wrong_licence: PathBuf,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Key of the frames' digests.
    #[serde(with = "hex::serde")]
    pub digest_key: [u8; 32],
    /// What the frames are after decryption, in order.
    pub frames: Vec<Frame>,
}

/// A frame of a film, after decryption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Bytes.
    pub size: u32,
    /// What they digest to.
    pub digest: Digest,
}

impl Content {
    /// Reads the description in a folder.
    ///
    /// # Errors
    ///
    /// If there is none, or it is damaged.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(FILE))?)?)
    }

    /// Writes the description into a folder.
    ///
    /// # Errors
    ///
    /// If it can't be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(FILE), serde_json::to_vec_pretty(self)?)
    }
}
