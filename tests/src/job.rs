// SPDX-License-Identifier: MIT OR Apache-2.0

//! The job file of the main scenario: which encrypted clip to decrypt into
//! protected buffers, and what must come out.
//!
//! The clip is cut into buffers of [`Job::buffer_size`] bytes (the last one
//! may hold less), and each buffer is decrypted in pieces of
//! [`Job::piece_size`] bytes. The guest never gets the plaintext: it gets a
//! digest of what each buffer must hold, keyed so that only the secure world's
//! digest command and whoever wrote this file can have computed it.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes in an AES block, and so in a step of the counter.
pub const BLOCK: u64 = 16;

/// HMAC-SHA256 of a buffer's content under [`Job::digest_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "hex::serde")] pub [u8; 32]);

/// What the main scenario has to do. Byte strings are hexadecimal in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What the clip is, for the report: title and licence.
    pub title: String,
    /// Name of the heap that the buffers come from.
    pub heap: String,
    /// AES-128-CTR ciphertext of the clip; relative to the job file's folder.
    pub ciphertext: PathBuf,
    /// postcard message `Provision` with the device key; relative to the job file's folder.
    pub provision: PathBuf,
    /// postcard message `Licence` for the key; relative to the job file's folder.
    pub licence: PathBuf,
    /// Bytes of the clip, and of the ciphertext.
    pub size: u64,
    /// Bytes of each buffer: a multiple of 4096.
    pub buffer_size: u64,
    /// Bytes handed to one decrypt command: a multiple of 16.
    pub piece_size: u64,
    /// Names the content key in the licence.
    #[serde(with = "hex::serde")]
    pub key_id: [u8; 16],
    /// Counter block of the clip's first byte; it counts up by one each 16
    /// bytes, as a 128-bit big-endian number.
    #[serde(with = "hex::serde")]
    pub counter: [u8; 16],
    /// Key of [`Job::digests`].
    #[serde(with = "hex::serde")]
    pub digest_key: [u8; 32],
    /// What each buffer's content must digest to, in order.
    pub digests: Vec<Digest>,
    /// Name of the host's set of plaintext needles, see [`crate::host_port`].
    pub needles: String,
}

/// A job file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The job file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a job.
    #[error("{path} is not a job file: {source}")]
    Syntax {
        /// The job file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The numbers in it don't fit each other.
    #[error("the job contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Job {
    /// Reads and checks a job file.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let text = fs::read(path).map_err(|source| JobError::File {
            path: path.to_owned(),
            source,
        })?;
        let job: Self = serde_json::from_slice(&text).map_err(|source| JobError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        job.check()?;
        Ok(job)
    }

    /// Checks and writes a job file.
    pub fn write(&self, path: &Path) -> Result<(), JobError> {
        self.check()?;
        let mut text = serde_json::to_vec_pretty(self).map_err(|source| JobError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        text.push(b'\n');
        fs::write(path, text).map_err(|source| JobError::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Checks that the numbers fit each other.
    pub fn check(&self) -> Result<(), JobError> {
        if self.size == 0 {
            return Err(JobError::Contradiction("the clip is empty"));
        }
        if self.buffer_size == 0 || !self.buffer_size.is_multiple_of(4096) {
            return Err(JobError::Contradiction(
                "buffer_size is not a multiple of 4096",
            ));
        }
        if self.piece_size == 0 || !self.piece_size.is_multiple_of(BLOCK) {
            return Err(JobError::Contradiction(
                "piece_size is not a multiple of 16",
            ));
        }
        if self.size.div_ceil(self.buffer_size) != self.digests.len() as u64 {
            return Err(JobError::Contradiction(
                "there is not exactly one digest a buffer",
            ));
        }
        Ok(())
    }

    /// Which bytes of the clip each buffer holds, in order.
    pub fn contents(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        (0..self.size.div_ceil(self.buffer_size)).map(|n| {
            let start = n * self.buffer_size;
            start..self.size.min(start.saturating_add(self.buffer_size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Job {
        Job {
            title: "a clip".into(),
            heap: "protected-video".into(),
            ciphertext: "clip.enc".into(),
            provision: "provision.bin".into(),
            licence: "licence.bin".into(),
            size: 10_000,
            buffer_size: 4096,
            piece_size: 1024,
            key_id: [1; 16],
            counter: [2; 16],
            digest_key: [3; 32],
            digests: vec![Digest([4; 32]); 3],
            needles: "clip".into(),
        }
    }

    #[test]
    fn the_last_buffer_holds_the_rest() {
        let job = job();
        assert_eq!(
            job.contents().collect::<Vec<_>>(),
            [0..4096, 4096..8192, 8192..10_000]
        );
        let exact = Job { size: 8192, ..job };
        assert_eq!(exact.contents().count(), 2);
    }

    #[test]
    fn a_job_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job.json");
        job().write(&path).unwrap();
        assert_eq!(Job::read(&path).unwrap(), job());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&"04".repeat(32)), "digests are hexadecimal");
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |job: Job| job.check().unwrap_err().to_string();
        assert!(refused(Job { size: 0, ..job() }).contains("empty"));
        assert!(refused(Job {
            buffer_size: 100,
            ..job()
        })
        .contains("4096"));
        assert!(refused(Job {
            piece_size: 17,
            ..job()
        })
        .contains("16"));
        assert!(refused(Job {
            digests: vec![],
            ..job()
        })
        .contains("digest"));
        assert!(job().check().is_ok());
    }

    #[test]
    fn a_word_too_many_is_refused() {
        let mut value = serde_json::to_value(job()).unwrap();
        value["plaintext"] = "clip.mp4".into();
        assert!(serde_json::from_value::<Job>(value).is_err());
    }
}
