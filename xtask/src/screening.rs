// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prepares the playing of a film before witnesses: the encrypted film with its licence for the guest,
//! and for the host the pictures as they were, and pieces of them to look for.
//!
//! The guest gets images of the pieces, for a search of its own: see [`ringfence_tests::needles`].

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, bail, ensure, Context, Result};
use ringfence_decoder::{frame::Layout, picture};
use ringfence_tests::needles::{is_telling, Keys, Set, NEEDLE_SIZE};
use ringfence_tests::screening::{self, SCREENING};

use crate::film::{Format, Pictures};
use crate::ladder::{random, Ladder};
use crate::vm::search::Needles;

/// The host's name of the pieces.
const NEEDLES: &str = "film";

/// Pictures of which pieces are looked for.
const SAMPLED: usize = 10;

/// Pieces of each compressed picture, and of each decoded one.
const PIECES: usize = 24;

/// Bytes at the start of a compressed picture that others have as well: its tables.
const TABLES: usize = 1024;

type Piece = [u8; NEEDLE_SIZE];

/// A prepared film.
pub struct Screening {
    /// What it is.
    pub title: String,
    /// The directory for the guest.
    pub share: PathBuf,
    /// Pictures of the unencrypted film, as ffmpeg decodes them.
    pub originals: PathBuf,
    /// Pieces of it.
    pub needles: Needles,
}

impl Screening {
    /// Encrypts a film into `directory/share`, which may be there already. It is to be stopped at
    /// `pauses`.
    pub fn prepare(
        ladder: &Ladder,
        title: &str,
        pictures: &Pictures,
        directory: &Path,
        pauses: &[u32],
    ) -> Result<Self> {
        let (share, originals) = (directory.join("share"), directory.join("originals"));
        for folder in [&share, &originals] {
            fs::create_dir_all(folder)?;
        }
        let film = pictures.encrypt(ladder, directory)?;
        let count = u32::try_from(film.frames.len())?;
        let mut set = Set::new(Keys {
            mask: u64::from_le_bytes(random()?),
            factor: u64::from_le_bytes(random()?),
            weights: [u64::from_le_bytes(random()?), u64::from_le_bytes(random()?)],
        });
        let mut all = HashSet::new();
        for frame in sampled(count, pauses) {
            let jpeg = &film.frames[frame as usize];
            let compressed = pieces(jpeg.get(TABLES..).unwrap_or_default(), 1)
                .with_context(|| format!("compressed picture {frame}"))?;
            let decoded = pieces(&decode(jpeg, pictures.format)?, 4)
                .with_context(|| format!("decoded picture {frame}"))?;
            set.add(&format!("compressed picture {frame}"), &compressed);
            set.add(&format!("decoded picture {frame}"), &decoded);
            all.extend(compressed);
            all.extend(decoded);
        }
        let files = pictures.files()?;
        for &frame in pauses {
            let name = screening::Screening::original(frame);
            let file = files.get(frame as usize).context("a pause after the end")?;
            original(file, &originals.join(format!("{name}.png")))?;
        }
        let played = screening::Screening {
            title: title.to_owned(),
            film: "screening.mp4".into(),
            provision: "screening-provision.bin".into(),
            licence: "screening.licence".into(),
            wrong_licence: "screening-wrong.licence".into(),
            frames: count,
            width: pictures.format.width,
            height: pictures.format.height,
            pauses: pauses.to_vec(),
            needles: "screening-needles.json".into(),
            host_needles: NEEDLES.to_owned(),
        };
        fs::write(share.join(&played.film), &film.mp4)?;
        fs::write(share.join(&played.provision), ladder.provision()?)?;
        fs::write(share.join(&played.licence), &film.licence)?;
        let wrong = ladder.licence(film.key_id, &random()?, 0)?;
        fs::write(share.join(&played.wrong_licence), wrong)?;
        screening::write(&share.join(&played.needles), &set)?;
        screening::write(&share.join(SCREENING), &played)?;
        let all: Vec<Piece> = all.into_iter().collect();
        Ok(Self {
            title: played.title,
            share,
            originals,
            needles: Needles::new(NEEDLES, &all)?,
        })
    }
}

/// Numbers of the pictures that are looked for: those at the pauses, and others all over the film.
fn sampled(count: u32, pauses: &[u32]) -> Vec<u32> {
    let spread = (0..count).step_by((count as usize / SAMPLED).max(1));
    let mut chosen: Vec<u32> = pauses.to_vec();
    chosen.extend(spread.filter(|frame| !pauses.contains(frame)));
    chosen.truncate(SAMPLED);
    chosen
}

/// Pieces from all over some bytes that are not in memory by chance, each at a multiple of `step`.
fn pieces(bytes: &[u8], step: usize) -> Result<Vec<Piece>> {
    let distance = (bytes.len() / PIECES / step * step).max(step);
    let mut found = Vec::new();
    for start in (0..bytes.len()).step_by(distance) {
        // The next one in this part that will do.
        let candidates = (start..start + distance).step_by(step);
        let mut telling = candidates
            .filter_map(|at| bytes.get(at..)?.first_chunk::<NEEDLE_SIZE>())
            .filter(|piece| is_telling(*piece));
        found.extend(telling.next());
    }
    ensure!(found.len() >= PIECES / 2, "only {} pieces", found.len());
    Ok(found)
}

/// Decodes a picture as the trusted application does: blue, green, red and 255 for each pixel.
fn decode(jpeg: &[u8], format: Format) -> Result<Vec<u8>> {
    let layout = Layout::new(format.width, format.height, 4 * format.width)
        .map_err(|_| anyhow!("no layout for {format:?}"))?;
    let mut frame = vec![0; layout.size()];
    picture::decode(jpeg, &mut frame, &layout)
        .map_err(|error| anyhow!("decode a picture: {error:?}"))?;
    Ok(frame)
}

/// Has ffmpeg decode a picture.
fn original(jpeg: &Path, png: &Path) -> Result<()> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-i"])
        .arg(jpeg)
        .args(["-sws_flags", "accurate_rnd+full_chroma_int"])
        .args(["-pix_fmt", "rgb24"])
        .arg(png)
        .output()
        .context("ffmpeg")?;
    if !output.status.success() {
        bail!("ffmpeg: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_at_the_pauses_are_looked_for() {
        let chosen = sampled(48, &[4, 20, 47]);
        assert_eq!(chosen.len(), SAMPLED);
        assert!([4, 20, 47].iter().all(|frame| chosen.contains(frame)));
        assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), SAMPLED);
        assert_eq!(sampled(3, &[]), [0, 1, 2]);
    }

    #[test]
    fn pieces_are_telling_and_aligned() {
        let noise: Vec<u8> = (0..8192_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for piece in pieces(&noise, 4).expect("noise") {
            let mut aligned = noise.chunks_exact(4).enumerate();
            assert!(aligned.any(|(at, _)| noise[4 * at..].starts_with(&piece)));
        }
        assert!(pieces(&[7; 8192], 1).is_err());
    }
}
