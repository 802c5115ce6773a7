// SPDX-License-Identifier: MIT OR Apache-2.0

//! One picture, from its bitstream to a frame.

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::JpegDecoder;

use crate::feed::Feed;
use crate::frame::Layout;
use crate::header::Header;
use crate::refusal::PictureError;
use crate::source::Source;

/// Bytes of heap that a picture takes, at most: some lines of it, by the widest
/// one that is decoded, and nothing that grows with its height or with its
/// bitstream. A test holds this.
pub const MEMORY: usize = 512 * 1024;

/// Decodes one picture, of exactly the size that the layout says, into all of a
/// frame.
///
/// On an error the frame may hold a part of the picture.
///
/// # Errors
///
/// See [`PictureError`].
///
/// # Panics
///
/// If the frame has not as many bytes as the layout says.
pub fn decode<S: Source + ?Sized>(
    source: &S,
    frame: &mut [u8],
    layout: &Layout,
) -> Result<(), PictureError> {
    assert_eq!(frame.len(), layout.size(), "the frame is the layout's");
    let header = Header::read(source)?;
    let size = (usize::from(header.width), usize::from(header.height));
    if size != (layout.width(), layout.height()) {
        return Err(PictureError::OtherSize(header.width, header.height));
    }
    let (colours, depth) = match header.grey {
        true => (ColorSpace::Luma, 1),
        false => (ColorSpace::BGRA, 4),
    };
    let options = DecoderOptions::new_safe()
        .set_strict_mode(true)
        .set_max_width(layout.width())
        .set_max_height(layout.height())
        .jpeg_set_out_colorspace(colours);
    let mut feed = Feed::new(source, &header);
    let outcome = JpegDecoder::new_with_options(&mut feed, options)
        .decode_into(&mut frame[..layout.packed(depth)]);
    // That the bitstream ended badly is the better reason.
    feed.finish()?;
    outcome.map_err(|error| PictureError::Malformed(reason(&error)))?;
    if header.grey {
        layout.colour(frame);
    }
    layout.spread(frame);
    Ok(())
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
