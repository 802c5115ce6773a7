// SPDX-License-Identifier: MIT OR Apache-2.0

//! One picture, from its bitstream to a frame.

use ringfence_codec::{Error, Known};

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
    let known = Known {
        width: layout.width(),
        height: layout.height(),
        grey: header.grey,
        kept: header.kept(),
        scan: header.scan,
    };
    let pixels = &mut frame[..layout.packed(known.depth())];
    ringfence_codec::decode(&source, &known, pixels).map_err(|error| match error {
        Error::Truncated => PictureError::Truncated,
        Error::Malformed(reason) => PictureError::Malformed(reason),
    })?;
    if header.grey {
        layout.colour(frame);
    }
    layout.spread(frame);
    Ok(())
}
