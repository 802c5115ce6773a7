// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pictures of the guest's screen, and how much they are like others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use image::RgbImage;
use ringfence_tests::host_port::{digest, Reply};

/// Where a boot's pictures are, and those that they are compared with.
#[derive(Debug, Clone)]
pub struct Album {
    taken: PathBuf,
    originals: Option<PathBuf>,
}

impl Album {
    /// Pictures go to the directory `taken`; `originals` has others, all as `NAME.png`.
    pub fn new(taken: PathBuf, originals: Option<PathBuf>) -> Self {
        Self { taken, originals }
    }

    /// Where the picture of this name goes.
    pub fn place(&self, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.taken)?;
        file(&self.taken, name)
    }

    /// What was taken under this name.
    pub fn describe(&self, name: &str) -> Result<Reply> {
        let picture = open(&file(&self.taken, name)?)?;
        Ok(Reply::Picture {
            width: picture.width(),
            height: picture.height(),
            digest: digest(picture.as_raw()),
        })
    }

    /// How much a picture is like an original.
    pub fn compare(&self, picture: &str, with: &str) -> Result<Reply> {
        let originals = self.originals.as_deref();
        let originals = originals.context("this boot has no pictures to compare with")?;
        let psnr = psnr(
            &open(&file(&self.taken, picture)?)?,
            &open(&file(originals, with)?)?,
        )?;
        Ok(Reply::Likeness { psnr })
    }
}

/// The file of a picture whose name comes from the guest.
fn file(folder: &Path, name: &str) -> Result<PathBuf> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        (1..=64).contains(&name.len()) && name.chars().all(is_plain),
        "{name:?} is no name for a picture"
    );
    Ok(folder.join(format!("{name}.png")))
}

/// Reads a picture.
pub fn open(path: &Path) -> Result<RgbImage> {
    let picture = image::open(path).with_context(|| path.display().to_string())?;
    Ok(picture.into_rgb8())
}

/// A ratio that stands for equality, in dB: more than a single different pixel leaves.
pub const EQUAL: f64 = 120.0;

/// Peak signal-to-noise ratio of two pictures of one size, in dB.
pub fn psnr(one: &RgbImage, other: &RgbImage) -> Result<f64> {
    ensure!(
        one.dimensions() == other.dimensions(),
        "{:?} pixels are not {:?}",
        one.dimensions(),
        other.dimensions()
    );
    let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let samples = one.as_raw().len() as f64;
    let error: f64 = one.as_raw().iter().zip(other.as_raw()).map(square).sum();
    Ok(match error / samples {
        0.0 => EQUAL,
        mean => 10.0 * (255.0f64.powi(2) / mean).log10(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_falls_with_the_difference() {
        let grey = |value| RgbImage::from_pixel(16, 16, image::Rgb([value; 3]));
        let ratio = |value| psnr(&grey(100), &grey(value)).expect("one size");
        assert_eq!(ratio(100), EQUAL);
        assert!((ratio(101) - 48.13).abs() < 0.01);
        assert!(ratio(140) < 20.0);
        assert!(psnr(&grey(0), &RgbImage::new(16, 17)).is_err());
    }

    #[test]
    fn a_name_is_no_path() {
        let album = Album::new("/nowhere".into(), None);
        for name in ["", "../x", "a/b", "a.png", "A", &"a".repeat(65)] {
            assert!(file(&album.taken, name).is_err(), "{name}");
        }
        assert!(file(&album.taken, "frame-12").is_ok());
    }
}
