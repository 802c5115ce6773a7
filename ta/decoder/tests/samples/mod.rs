// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pictures made up for tests, and how they compare.

#![allow(dead_code, reason = "each test uses another part")]

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// A picture with smooth parts, edges and some noise: red, green, blue.
pub fn pixels(width: u16, height: u16) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            let edge = if (x / 24 + y / 24) % 2 == 0 { 64 } else { 0 };
            let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 28;
            pixels.extend([
                (x * 255 / u32::from(width)).min(191) as u8 + edge,
                (y * 191 / u32::from(height)) as u8 + noise as u8,
                ((x + y) % 256) as u8 / 2 + edge,
            ]);
        }
    }
    pixels
}

/// How a picture is compressed.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub width: u16,
    pub height: u16,
    /// `None` for a picture without colour.
    pub sampling: Option<SamplingFactor>,
    /// Blocks between two restart markers; 0 for none.
    pub restart: u16,
    pub quality: u8,
}

impl Form {
    pub const fn of(width: u16, height: u16) -> Self {
        Self {
            width,
            height,
            sampling: Some(SamplingFactor::F_2_2),
            restart: 0,
            quality: 92,
        }
    }

    /// Compresses the picture.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, self.quality);
        if self.restart != 0 {
            encoder.set_restart_interval(self.restart);
        }
        let pixels = pixels(self.width, self.height);
        let outcome = match self.sampling {
            Some(sampling) => {
                encoder.set_sampling_factor(sampling);
                encoder.encode(&pixels, self.width, self.height, ColorType::Rgb)
            }
            None => {
                let grey: Vec<u8> = pixels.chunks(3).map(|pixel| pixel[1]).collect();
                encoder.encode(&grey, self.width, self.height, ColorType::Luma)
            }
        };
        outcome.expect("a picture");
        bytes
    }

    /// How much a decoded frame is like the picture, in decibels.
    pub fn likeness(&self, frame: &[u8], stride: usize) -> f64 {
        let (mut squares, mut count) = (0.0, 0);
        let pixels = pixels(self.width, self.height);
        for (line, wanted) in frame
            .chunks(stride)
            .zip(pixels.chunks(usize::from(self.width) * 3))
        {
            for (got, wanted) in line.chunks(4).zip(wanted.chunks(3)) {
                assert_eq!(got[3], 255);
                let wanted = match self.sampling {
                    Some(_) => [wanted[2], wanted[1], wanted[0]],
                    None => [wanted[1]; 3],
                };
                for (got, wanted) in got.iter().zip(wanted) {
                    squares += (f64::from(*got) - f64::from(wanted)).powi(2);
                    count += 1;
                }
            }
        }
        10.0 * (255.0 * 255.0 * f64::from(count) / squares).log10()
    }
}

/// Every density of chrominance that is decoded, and none.
pub const SAMPLINGS: [Option<SamplingFactor>; 5] = [
    Some(SamplingFactor::F_1_1),
    Some(SamplingFactor::F_2_1),
    Some(SamplingFactor::F_1_2),
    Some(SamplingFactor::F_2_2),
    None,
];
