// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encrypted content with a licence, as the host prepares it for the scenario.
//!
//! The guest has no key to encrypt anything with, so tests of the content
//! commands use the scenario's clip. `RINGFENCE_JOB` says where its job file
//! is, if not on the share.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use ringfence::content::advance;
use ringfence::proto::message::{
    Decrypt, DecryptSample, DigestRequest, Licence, Message, Pattern, Provision, Scheme, Subsample,
};
use ringfence_tests::guest::ta::{self, expect_done, Ta};
use ringfence_tests::job::Job;
use sha2::Sha256;

const DEFAULT_JOB: &str = "/mnt/share/job.json";

fn job_path() -> PathBuf {
    PathBuf::from(env::var_os("RINGFENCE_JOB").unwrap_or(DEFAULT_JOB.into()))
}

/// Where a file is that the job names.
pub fn path(name: &Path) -> anyhow::Result<String> {
    let path = job_path().with_file_name(name);
    Ok(path.to_str().context("a path that is no text")?.to_owned())
}

/// A message in a file that the host has prepared.
pub fn read_message<M: Message>(name: &Path) -> anyhow::Result<M> {
    ta::message(path(name)?.as_ref())
}

/// Brings a device key.
pub fn provision(name: &Path) -> anyhow::Result<()> {
    let provision: Provision = read_message(name)?;
    expect_done(Ta::open()?.provision(&provision), "PROVISION")
}

/// The start of the scenario's clip.
pub struct Fixture {
    /// The device key that its licence is sealed under.
    pub provision: Provision,
    /// Its licence.
    pub licence: Licence,
    /// The job.
    pub job: Job,
    /// The first buffer's ciphertext.
    pub ciphertext: Vec<u8>,
}

impl Fixture {
    /// Reads it, and brings the trusted application the device key that its licence
    /// takes.
    pub fn read() -> anyhow::Result<Self> {
        let job = Job::read(&job_path())?;
        let provision = read_message(&job.provision)?;
        expect_done(Ta::open()?.provision(&provision), "PROVISION")?;
        let licence = read_message(&job.licence)?;
        let first = job.contents().next().context("the clip is empty")?;
        let mut ciphertext = Vec::new();
        File::open(path(&job.ciphertext)?)
            .context("the clip")?
            .take(first.end)
            .read_to_end(&mut ciphertext)?;
        anyhow::ensure!(
            ciphertext.len() as u64 == first.end,
            "the clip is cut short"
        );
        Ok(Self {
            provision,
            licence,
            job,
            ciphertext,
        })
    }

    /// How to decrypt from `offset` in the clip to the same offset in a buffer.
    pub fn request(&self, offset: u64) -> Decrypt {
        Decrypt {
            key_id: self.job.key_id,
            counter: advance(self.job.counter, offset / 16),
            offset,
        }
    }

    /// How to decrypt the clip's first bytes as a sample.
    pub fn sample(&self, length: u32) -> DecryptSample {
        DecryptSample {
            key_id: self.job.key_id,
            scheme: Scheme::Cenc,
            iv: self.job.counter,
            used: 0,
            pattern: Pattern::default(),
            offset: 0,
            subsamples: [Subsample {
                clear: 0,
                encrypted: length,
            }]
            .into_iter()
            .collect(),
        }
    }

    /// Decrypts the first buffer's content whole, and checks its digest.
    pub fn decrypt(&self, ta: &mut Ta, handle: u64) -> anyhow::Result<()> {
        expect_done(ta.load_licence(&self.licence), "LOAD_LICENCE")?;
        let written = expect_done(
            ta.decrypt(handle, &self.request(0), &self.ciphertext),
            "DECRYPT",
        )?;
        anyhow::ensure!(
            written == self.ciphertext.len() as u64,
            "{written} bytes written"
        );
        self.expect_content(ta, handle)
    }

    /// Fails unless a buffer holds the clip's first content.
    pub fn expect_content(&self, ta: &mut Ta, handle: u64) -> anyhow::Result<()> {
        let digest = expect_done(
            ta.digest(
                handle,
                &DigestRequest {
                    key: self.job.digest_key,
                    offset: 0,
                    length: self.ciphertext.len() as u64,
                },
            ),
            "DIGEST",
        )?;
        anyhow::ensure!(
            digest == self.job.digests[0].0,
            "the buffer does not hold the clip's plaintext"
        );
        Ok(())
    }
}

/// The key of the digests that tests make up themselves.
const KEY: [u8; 32] = [0x42; 32];

/// Fails unless a buffer's first `length` bytes are zeros for the secure world.
pub fn expect_zeros(ta: &mut Ta, handle: u64, length: u64) -> anyhow::Result<()> {
    let digest = expect_done(
        ta.digest(
            handle,
            &DigestRequest {
                key: KEY,
                offset: 0,
                length,
            },
        ),
        "DIGEST",
    )?;
    let mut expected = Hmac::<Sha256>::new_from_slice(&KEY)?;
    for _ in 0..length / 4096 {
        expected.update(&[0; 4096]);
    }
    expected.update(&vec![0; (length % 4096) as usize]);
    anyhow::ensure!(
        digest == <[u8; 32]>::from(expected.finalize().into_bytes()),
        "the secure world does not see zeros"
    );
    Ok(())
}
