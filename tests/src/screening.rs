// SPDX-License-Identifier: MIT OR Apache-2.0

//! A film that is played before witnesses: what the host prepares, and what the
//! guest has seen.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How much a picture of the screen must be like the original, in dB.
pub const LIKENESS: f64 = 35.0;

/// Name of the file that says what is played.
pub const SCREENING: &str = "screening.json";

/// Name of the file that says what was seen.
pub const SEEN: &str = "seen.json";

/// What is played. Files are relative to the folder of the [`SCREENING`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Screening {
    /// What the film is.
    pub title: String,
    /// The encrypted film.
    pub film: PathBuf,
    /// The message with the device key.
    pub provision: PathBuf,
    /// The licence for its key.
    pub licence: PathBuf,
    /// A licence that names its key, and has another.
    pub wrong_licence: PathBuf,
    /// Pictures in it.
    pub frames: u32,
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Pictures at which it is stopped and looked at, counted from 0, in order.
    pub pauses: Vec<u32>,
    /// Images of pieces of compressed pictures, and of decoded ones: a
    /// [`Set`](crate::needles::Set).
    pub needles: PathBuf,
    /// The host's name of the pieces themselves.
    pub host_needles: String,
}

impl Screening {
    /// The host's name of an original.
    pub fn original(frame: u32) -> String {
        format!("original-{frame}")
    }

    /// The name of a picture of the screen.
    pub fn picture(frame: u32) -> String {
        format!("frame-{frame}")
    }
}

/// A picture of the screen, and what Linux could see of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// The picture's number.
    pub frame: u32,
    /// How much it is like the original, in dB.
    pub psnr: f64,
    /// Physical addresses of the memory that was on the screen, or was about to be:
    /// start and bytes.
    pub memory: Vec<(u64, u64)>,
    /// Pages that were read.
    pub readers: usize,
    /// Pages whose reader was killed.
    pub killed: usize,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Pictures, in order.
    pub sights: Vec<Sight>,
}

/// Reads a file of JSON.
pub fn read<T: DeserializeOwned>(path: &Path) -> std::io::Result<T> {
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

/// Writes a file of JSON.
pub fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    fs::write(path, serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SEEN);
        let seen = Seen {
            sights: vec![Sight {
                frame: 7,
                psnr: 41.5,
                memory: vec![(0x8000_0000, 4096)],
                readers: 2,
                killed: 2,
            }],
        };
        write(&path, &seen).unwrap();
        assert_eq!(read::<Seen>(&path).unwrap(), seen);
        assert!(read::<Screening>(&path).is_err());
    }
}
