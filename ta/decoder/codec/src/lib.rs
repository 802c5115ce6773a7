// SPDX-License-Identifier: MIT OR Apache-2.0

//! The codec, zune-jpeg, and what it gets to read of a bitstream.
//!
//! It is a crate of its own for the sake of its profile. A function of zune-jpeg
//! that is generic, or small, is compiled in the crate that calls it, and as that
//! crate is compiled: among them the loop that makes pixels of samples, which
//! takes five times the instructions when its sums are checked for overflow. So
//! this crate, which has no unsafe code, is compiled without such checks in the
//! trusted application, and the rest of the application with them.

#![no_std]
#![forbid(unsafe_code)]

mod feed;

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::JpegDecoder;

pub use feed::MAX_KEPT;
use feed::{End, Feed};

/// Bytes that are copied out piece by piece.
pub trait Source {
    /// How many there are; always the same.
    fn length(&self) -> usize;

    /// Copies the bytes from `offset` on, as many as `to` has or as there are;
    /// returns how many these were.
    fn copy(&self, offset: usize, to: &mut [u8]) -> usize;
}

impl Source for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn copy(&self, offset: usize, to: &mut [u8]) -> usize {
        let from = self.get(offset..).unwrap_or_default();
        let length = from.len().min(to.len());
        to[..length].copy_from_slice(&from[..length]);
        length
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn length(&self) -> usize {
        (**self).length()
    }

    fn copy(&self, offset: usize, to: &mut [u8]) -> usize {
        (**self).copy(offset, to)
    }
}

/// What is known of a picture before the codec sees it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'h> {
    /// Pixels of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Whether it has no colour.
    pub grey: bool,
    /// The segments that the codec reads first, at most [`MAX_KEPT`] bytes.
    pub kept: &'h [u8],
    /// Where in the source the entropy-coded data begins.
    pub scan: usize,
}

impl Known<'_> {
    /// Bytes that a pixel takes: its grey level, or blue, green, red and one that
    /// is not used.
    pub const fn depth(&self) -> usize {
        match self.grey {
            true => 1,
            false => 4,
        }
    }
}

/// Why there is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bitstream ends before the picture.
    Truncated,
    /// This of the bitstream is wrong.
    Malformed(&'static str),
}

/// Decodes one picture into `pixels`, one line after the other.
///
/// On an error they may hold a part of the picture.
///
/// # Errors
///
/// See [`Error`].
///
/// # Panics
///
/// If `kept` has more than [`MAX_KEPT`] bytes.
#[inline(never)]
pub fn decode(source: &dyn Source, known: &Known<'_>, pixels: &mut [u8]) -> Result<(), Error> {
    let colours = match known.grey {
        true => ColorSpace::Luma,
        false => ColorSpace::BGRA,
    };
    assert!(known.kept.len() <= MAX_KEPT, "the header is too long");
    let options = DecoderOptions::new_safe()
        .set_strict_mode(true)
        .set_max_width(known.width)
        .set_max_height(known.height)
        .jpeg_set_out_colorspace(colours);
    let mut feed = Feed::new(source, known.kept, known.scan);
    let outcome = JpegDecoder::new_with_options(&mut feed, options).decode_into(pixels);
    // That the bitstream ended badly is the better reason.
    match feed.finish() {
        End::Picture => outcome.map_err(|error| Error::Malformed(reason(&error))),
        End::Marker => Err(Error::Malformed("a marker inside the scan")),
        End::Source => Err(Error::Truncated),
    }
}

/// What of a picture the codec did not like.
const fn reason(error: &DecodeErrors) -> &'static str {
    match error {
        DecodeErrors::HuffmanDecode(_) => "a Huffman table, or a code that is not in it",
        DecodeErrors::DqtError(_) => "a quantization table",
        DecodeErrors::SosError(_) => "the scan header",
        DecodeErrors::SofError(_) => "the frame header",
        DecodeErrors::MCUError(_) => "a block",
        DecodeErrors::ExhaustedData => "too little data",
        DecodeErrors::FormatStatic(reason) => reason,
        _ => "the codec refused it",
    }
}
