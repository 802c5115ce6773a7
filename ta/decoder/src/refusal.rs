// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a picture, or a command, is refused.

use core::fmt;

use ringfence_proto::command::result;
use ringfence_proto::decoder::{result as decoder, MAX_WIDTH};
use ringfence_proto::message::DecodeError;

/// What a picture has that is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A process other than baseline, by the low half of its marker: progressive
    /// (2), lossless (3), arithmetic (9 and more) and their kin.
    Process(u8),
    /// Samples of so many bits.
    Precision(u8),
    /// So many components: neither grey nor colour.
    Components(u8),
    /// Components that are no luminance and chrominance.
    ColourSpace,
    /// Chrominance of an unusual density.
    Sampling,
    /// Components in several scans.
    Scans,
    /// Lines of so many pixels.
    Width(u16),
    /// Lines whose number follows the picture.
    Height,
}

/// Why a picture is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureError {
    /// It does not begin as a JPEG does.
    NotAPicture,
    /// It breaks the format; the text says where.
    Malformed(&'static str),
    /// It ends before its end.
    Truncated,
    /// It is of a kind that is not decoded.
    Unsupported(Feature),
    /// It has this many pixels in a line, and this many lines.
    OtherSize(u16, u16),
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(number) => write!(f, "process {number}, only baseline (0) is decoded"),
            Self::Precision(bits) => write!(f, "samples of {bits} bits, only 8 are decoded"),
            Self::Components(number) => write!(f, "{number} components, only 1 and 3 are decoded"),
            Self::ColourSpace => f.write_str("a colour space other than YCbCr"),
            Self::Sampling => f.write_str("chrominance other than 4:4:4, 4:2:2, 4:4:0 or 4:2:0"),
            Self::Scans => f.write_str("components in several scans"),
            Self::Width(width) => write!(f, "lines of {width} pixels, at most {MAX_WIDTH}"),
            Self::Height => f.write_str("a number of lines that follows the picture"),
        }
    }
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPicture => f.write_str("no JPEG"),
            Self::Malformed(what) => write!(f, "malformed picture: {what}"),
            Self::Truncated => f.write_str("picture is cut short"),
            Self::Unsupported(feature) => write!(f, "picture not supported: {feature}"),
            Self::OtherSize(width, height) => write!(f, "picture is {width} x {height}"),
        }
    }
}

impl core::error::Error for PictureError {}

/// Why a command is refused; [`Refusal::code`] is what the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Parameters of other types than the command has.
    ParameterTypes,
    /// A memory reference does not hold the message that the command takes.
    Message(DecodeError),
    /// No such command in this build.
    UnknownCommand,
    /// The handle named another range a moment ago, or does not name any now.
    UnknownHandle,
    /// A frame that can't be: no pixels, too many, or lines that do not fit their
    /// stride.
    Layout,
    /// No bytes, too many, or bytes outside the buffer.
    OutOfBounds,
    /// Bitstream and frame in one buffer.
    SameBuffer,
    /// The picture is at fault.
    Picture(PictureError),
    /// The other application or the firewall says what cannot be.
    SecureWorld,
    /// OP-TEE, the other application or the firewall refused, with this result.
    Tee(u32),
}

impl Refusal {
    /// The result code for the client.
    pub const fn code(&self) -> u32 {
        match self {
            Self::ParameterTypes
            | Self::Message(_)
            | Self::Layout
            | Self::OutOfBounds
            | Self::SameBuffer => result::BAD_PARAMETERS,
            Self::UnknownCommand => result::NOT_SUPPORTED,
            Self::UnknownHandle => result::ITEM_NOT_FOUND,
            Self::Picture(error) => match error {
                PictureError::NotAPicture
                | PictureError::Malformed(_)
                | PictureError::Truncated => decoder::BAD_FORMAT,
                PictureError::Unsupported(_) => decoder::UNSUPPORTED,
                PictureError::OtherSize(..) => decoder::OTHER_SIZE,
            },
            Self::SecureWorld => result::GENERIC,
            Self::Tee(code) => *code,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParameterTypes => f.write_str("wrong parameter types"),
            Self::Message(error) => error.fmt(f),
            Self::UnknownCommand => f.write_str("no such command"),
            Self::UnknownHandle => f.write_str("no such handle"),
            Self::Layout => f.write_str("no frame has that layout"),
            Self::OutOfBounds => f.write_str("no bytes, too many, or bytes outside the buffer"),
            Self::SameBuffer => f.write_str("bitstream and frame in one buffer"),
            Self::Picture(error) => error.fmt(f),
            Self::SecureWorld => f.write_str("the secure world breaks its protocol"),
            Self::Tee(code) => write!(f, "refused with {code:#010x}"),
        }
    }
}

impl core::error::Error for Refusal {}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Message(error)
    }
}

impl From<PictureError> for Refusal {
    fn from(error: PictureError) -> Self {
        Self::Picture(error)
    }
}

#[cfg(feature = "optee")]
impl From<optee_utee::Error> for Refusal {
    /// Hands on what OP-TEE, or another application, says.
    fn from(error: optee_utee::Error) -> Self {
        Self::Tee(error.raw_code())
    }
}
