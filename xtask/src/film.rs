// SPDX-License-Identifier: MIT OR Apache-2.0
//! Films for the player: a real clip as motion JPEG in an MP4 file, encrypted as ISO/IEC 23001-7 says
//! (scheme `cenc`), with a licence for its key.
//!
//! ffmpeg makes the pictures once ([`declare`]) and encrypts them for each use under a fresh key
//! ([`Pictures::encrypt`]). The unencrypted pictures stay on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use ringfence_proto::message::KeyId;

use crate::artefact::clip::Clip;
use crate::engine::{Plan, Step};
use crate::ladder::{random, ContentKey, Ladder};

/// Encodes pictures, and encrypts films.
const FFMPEG: &str = "ffmpeg";

/// What a film's pictures are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Pictures in a second of the clip.
    pub rate: u32,
    /// Pictures at most, from the start of the clip.
    pub count: u32,
    /// ffmpeg's quality of JPEG: 2 is best, 31 is worst.
    pub quality: u32,
}

/// A film before it is encrypted.
#[derive(Debug, Clone)]
pub struct Pictures {
    /// The step that makes it.
    pub step: Step,
    /// What the pictures are like.
    pub format: Format,
}

/// An encrypted film, and what belongs to it.
pub struct Film {
    /// The file to play.
    pub mp4: Vec<u8>,
    /// The licence for its key, encoded.
    pub licence: Vec<u8>,
    /// Names the key.
    pub key_id: KeyId,
    /// The pictures as they were before encryption: JPEG files.
    pub frames: Vec<Vec<u8>>,
}

/// Declares the pictures of a film from `clip`; `name` is the step's.
pub fn declare(plan: &mut Plan, name: &str, clip: &Clip, format: Format) -> Result<Pictures> {
    let from = clip.file();
    let step = plan
        .step(name)
        .needs(&clip.step)
        .param("format", format!("{format:?}"))
        .runs(move |job| {
            let plain = job.file(PLAIN);
            let mut encode = ffmpeg();
            encode.arg("-i").arg(&from).args(["-map", "0:v:0", "-an"]);
            encode.args(["-frames:v", &format.count.to_string()]);
            let Format {
                width,
                height,
                rate,
                ..
            } = format;
            encode.args(["-vf", &format!("fps={rate},scale={width}:{height}")]);
            // Baseline, 4:2:0, full range: what every JPEG decoder takes.
            encode.args(["-pix_fmt", "yuvj420p", "-c:v", "mjpeg"]);
            encode.args(["-q:v", &format.quality.to_string()]);
            job.run(encode.arg(&plain))?;
            fs::create_dir_all(job.file(FRAMES))?;
            let mut split = ffmpeg();
            split
                .arg("-i")
                .arg(&plain)
                .args(["-c", "copy", "-f", "image2"]);
            job.run(split.arg(job.file(FRAMES).join("%06d.jpg")))
        })?;
    Ok(Pictures { step, format })
}

/// The film before encryption, in the step's directory.
const PLAIN: &str = "plain.mp4";

/// The folder of its pictures there.
const FRAMES: &str = "frames";

impl Pictures {
    /// The pictures' files, in order.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let folder = self.step.file(FRAMES);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| folder.display().to_string())?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        ensure!(!files.is_empty(), "a film without pictures");
        Ok(files)
    }

    /// Encrypts the film under a fresh key, with a licence from `ladder`. `scratch` is an existing
    /// folder outside of the guest's reach.
    pub fn encrypt(&self, ladder: &Ladder, scratch: &Path) -> Result<Film> {
        let (key_id, key): (KeyId, ContentKey) = (random()?, random()?);
        let frames = self
            .files()?
            .into_iter()
            .map(|file| Ok(fs::read(file)?))
            .collect::<Result<_>>()?;
        let encrypted = tempfile::Builder::new()
            .prefix("film")
            .suffix(".mp4")
            .tempfile_in(scratch)?;
        let mut encrypt = ffmpeg();
        encrypt.arg("-y").arg("-i").arg(self.step.file(PLAIN));
        encrypt.args(["-c", "copy", "-encryption_scheme", "cenc-aes-ctr"]);
        encrypt.args([
            "-encryption_key",
            &hex(&key),
            "-encryption_kid",
            &hex(&key_id),
        ]);
        let output = encrypt
            .arg(encrypted.path())
            .output()
            .with_context(|| FFMPEG.to_owned())?;
        if !output.status.success() {
            bail!(
                "{FFMPEG}: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(Film {
            mp4: fs::read(encrypted.path())?,
            licence: ladder.licence(key_id, &key, 0)?,
            key_id,
            frames,
        })
    }
}

/// ffmpeg, which says nothing but errors, and reads nothing from a terminal.
fn ffmpeg() -> Command {
    let mut command = Command::new(FFMPEG);
    command.args(["-v", "error", "-nostdin"]);
    command
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
