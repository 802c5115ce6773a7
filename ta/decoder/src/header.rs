// SPDX-License-Identifier: MIT OR Apache-2.0

//! What comes before a picture's entropy-coded data, read strictly.
//!
//! Names and numbers are those of ITU-T T.81, annex B. Only what decides the
//! picture is kept: tables, the frame header and the scan header. Applications'
//! data and comments are stepped over, and everything that a baseline picture
//! in one scan has no use for is refused.

use ringfence_codec::MAX_KEPT;
use ringfence_proto::decoder::MAX_WIDTH;

use crate::refusal::Feature::{
    ColourSpace, Components, Height, Precision, Process, Sampling as Density, Scans, Width,
};
use crate::refusal::PictureError::{self, Malformed, NotAPicture, Truncated, Unsupported};
use crate::source::Source;

/// Markers, the byte after 0xff.
mod marker {
    pub const SOF0: u8 = 0xc0;
    pub const SOF1: u8 = 0xc1;
    pub const SOF3: u8 = 0xc3;
    pub const DHT: u8 = 0xc4;
    pub const SOF5: u8 = 0xc5;
    pub const SOF7: u8 = 0xc7;
    pub const JPG: u8 = 0xc8;
    pub const SOF9: u8 = 0xc9;
    pub const SOF11: u8 = 0xcb;
    pub const DAC: u8 = 0xcc;
    pub const SOF13: u8 = 0xcd;
    pub const SOF15: u8 = 0xcf;
    pub const SOI: u8 = 0xd8;
    pub const SOS: u8 = 0xda;
    pub const DQT: u8 = 0xdb;
    pub const DRI: u8 = 0xdd;
    pub const APP0: u8 = 0xe0;
    pub const APP14: u8 = 0xee;
    pub const APP15: u8 = 0xef;
    pub const COM: u8 = 0xfe;
    pub const PREFIX: u8 = 0xff;
}

/// Densities of luminance and of each chrominance, as the frame header has them:
/// across in the upper four bits, down in the lower. Two ways to say 4:2:2, and
/// 4:4:4, are in use; the last two are ffmpeg's.
const DENSITIES: [[u8; COLOURS]; 6] = [
    [0x11, 0x11, 0x11],
    [0x21, 0x11, 0x11],
    [0x12, 0x11, 0x11],
    [0x22, 0x11, 0x11],
    [0x22, 0x12, 0x12],
    [0x12, 0x12, 0x12],
];

/// Components of a picture in colour.
const COLOURS: usize = 3;

/// A frame header (B.2.2).
#[derive(Clone, Copy, Debug)]
struct Frame {
    width: u16,
    height: u16,
    ids: [u8; COLOURS],
    components: usize,
}

/// A picture's header, and what of it the codec gets to see.
#[derive(Clone, Debug)]
pub struct Header {
    /// Pixels of a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
    /// Whether it has no colour.
    pub grey: bool,
    /// The first byte of entropy-coded data.
    pub scan: usize,
    kept: [u8; MAX_KEPT],
    length: usize,
}

/// Takes bytes off a source one after the other.
struct Cursor<'s, S: Source + ?Sized> {
    source: &'s S,
    offset: usize,
}

impl<S: Source + ?Sized> Cursor<'_, S> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], PictureError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), PictureError> {
        if self.source.copy(self.offset, to) != to.len() {
            return Err(Truncated);
        }
        // There are as many bytes: the sum is at most the source's length.
        self.offset += to.len();
        Ok(())
    }

    fn skip(&mut self, length: usize) -> Result<(), PictureError> {
        self.offset = self
            .offset
            .checked_add(length)
            .filter(|offset| *offset <= self.source.length())
            .ok_or(Truncated)?;
        Ok(())
    }

    /// The next marker, of which any number of 0xff may come before.
    fn marker(&mut self) -> Result<u8, PictureError> {
        if self.take()? != [marker::PREFIX] {
            return Err(Malformed("no marker where a segment begins"));
        }
        loop {
            match self.take()? {
                [marker::PREFIX] => (),
                [marker] => return Ok(marker),
            }
        }
    }

    /// Bytes of a segment's content, from its length.
    fn segment(&mut self) -> Result<usize, PictureError> {
        usize::from(u16::from_be_bytes(self.take()?))
            .checked_sub(2)
            .ok_or(Malformed("a segment's length"))
    }
}

impl Header {
    /// Reads all that comes before the entropy-coded data.
    ///
    /// # Errors
    ///
    /// See [`PictureError`]; never [`PictureError::OtherSize`].
    pub fn read<S: Source + ?Sized>(source: &S) -> Result<Self, PictureError> {
        let mut from = Cursor { source, offset: 0 };
        if !matches!(from.take(), Ok([marker::PREFIX, marker::SOI])) {
            return Err(NotAPicture);
        }
        let mut header = Self {
            width: 0,
            height: 0,
            grey: false,
            scan: 0,
            kept: [0; MAX_KEPT],
            length: 0,
        };
        header.keep(&[marker::PREFIX, marker::SOI])?;
        let mut frame = None;
        loop {
            let marker = from.marker()?;
            match marker {
                marker::APP14 => adobe(&mut from)?,
                marker::APP0..=marker::APP15 | marker::COM => {
                    let length = from.segment()?;
                    from.skip(length)?;
                }
                marker::DQT | marker::DHT | marker::DRI => {
                    let length = from.segment()?;
                    if marker == marker::DRI && length != 2 {
                        return Err(Malformed("the restart interval's length"));
                    }
                    header.keep_segment(marker, length, &mut from)?;
                }
                marker::SOF0 => {
                    if frame.is_some() {
                        return Err(Malformed("two frame headers"));
                    }
                    frame = Some(header.frame(&mut from)?);
                }
                marker::SOS => {
                    let frame = frame.ok_or(Malformed("a scan without a frame header"))?;
                    header.scan(&frame, &mut from)?;
                    return Ok(Self {
                        width: frame.width,
                        height: frame.height,
                        grey: frame.components == 1,
                        scan: from.offset,
                        ..header
                    });
                }
                marker::DAC => return Err(Unsupported(Process(9))),
                marker::JPG => return Err(Malformed("a reserved marker")),
                marker::SOF1..=marker::SOF3
                | marker::SOF5..=marker::SOF7
                | marker::SOF9..=marker::SOF11
                | marker::SOF13..=marker::SOF15 => {
                    return Err(Unsupported(Process(marker & 0xf)));
                }
                _ => return Err(Malformed("a marker that is not for headers")),
            }
        }
    }

    /// The segments for the codec, from the first marker to the scan header.
    pub fn kept(&self) -> &[u8] {
        &self.kept[..self.length]
    }

    fn room(&mut self, length: usize) -> Result<&mut [u8], PictureError> {
        let start = self.length;
        let room = self
            .kept
            .get_mut(start..start.saturating_add(length))
            .ok_or(Malformed("more tables than a picture can use"))?;
        self.length = start + length;
        Ok(room)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), PictureError> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn keep_segment<S: Source + ?Sized>(
        &mut self,
        marker: u8,
        length: usize,
        from: &mut Cursor<'_, S>,
    ) -> Result<(), PictureError> {
        // CAST: a segment's length was 16 bits wide, these two included.
        let size = (length + 2) as u16;
        self.keep(&[marker::PREFIX, marker])?;
        self.keep(&size.to_be_bytes())?;
        from.fill(self.room(length)?)
    }

    /// The frame header (B.2.2): what of it is not supported is refused here.
    fn frame<S: Source + ?Sized>(
        &mut self,
        from: &mut Cursor<'_, S>,
    ) -> Result<Frame, PictureError> {
        let length = from.segment()?;
        let [precision, h1, h0, w1, w0, components] = from.take()?;
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        if length != 6 + 3 * usize::from(components) {
            return Err(Malformed("the frame header's length"));
        }
        match (precision, components, width, height) {
            (8, 1 | 3, 1.., 1..) if u32::from(width) <= MAX_WIDTH => (),
            (8, 1 | 3, 1.., 1..) => return Err(Unsupported(Width(width))),
            (8, 1 | 3, 1.., 0) => return Err(Unsupported(Height)),
            (8, 1 | 3, 0, _) => return Err(Malformed("lines without pixels")),
            (8, ..) => return Err(Unsupported(Components(components))),
            (bits, ..) => return Err(Unsupported(Precision(bits))),
        }
        let mut frame = Frame {
            width,
            height,
            ids: [0; COLOURS],
            components: components.into(),
        };
        self.keep(&[marker::PREFIX, marker::SOF0, 0, (length + 2) as u8])?;
        self.keep(&[precision, h1, h0, w1, w0, components])?;
        let mut densities = [0; COLOURS];
        for (index, said) in densities.iter_mut().enumerate().take(frame.components) {
            let [id, density, table] = from.take()?;
            if frame.ids[..index].contains(&id) {
                return Err(Malformed("two components of one name"));
            }
            frame.ids[index] = id;
            *said = density;
            // Of a single component's blocks each is one step, whatever the
            // density is said to be (A.2.2).
            let density = if frame.components == 1 { 0x11 } else { density };
            self.keep(&[id, density, table])?;
        }
        if frame.components == COLOURS && !DENSITIES.contains(&densities) {
            return Err(Unsupported(Density));
        }
        if frame.ids == *b"RGB" {
            return Err(Unsupported(ColourSpace));
        }
        Ok(frame)
    }

    /// The scan header (B.2.3), which must name all components.
    fn scan<S: Source + ?Sized>(
        &mut self,
        frame: &Frame,
        from: &mut Cursor<'_, S>,
    ) -> Result<(), PictureError> {
        let length = from.segment()?;
        let [components] = from.take()?;
        if usize::from(components) != frame.components {
            return Err(Unsupported(Scans));
        }
        if length != 4 + 2 * frame.components {
            return Err(Malformed("the scan header's length"));
        }
        self.keep(&[
            marker::PREFIX,
            marker::SOS,
            0,
            (length + 2) as u8,
            components,
        ])?;
        for expected in &frame.ids[..frame.components] {
            let [id, tables] = from.take()?;
            if id != *expected {
                return Err(Malformed("the scan's components"));
            }
            self.keep(&[id, tables])?;
        }
        let spectrum = from.take()?;
        if spectrum != [0, 63, 0] {
            return Err(Malformed("a scan of a part of the spectrum"));
        }
        self.keep(&spectrum)
    }
}

/// Steps over Adobe's segment, unless it says that the colours are not what they
/// seem.
fn adobe<S: Source + ?Sized>(from: &mut Cursor<'_, S>) -> Result<(), PictureError> {
    let length = from.segment()?;
    let Some(rest) = length.checked_sub(12) else {
        return from.skip(length);
    };
    let content: [u8; 12] = from.take()?;
    /// The transform that is YCbCr.
    const YCBCR: u8 = 1;
    if content.starts_with(b"Adobe") && content[11] != YCBCR {
        return Err(Unsupported(ColourSpace));
    }
    from.skip(rest)
}
