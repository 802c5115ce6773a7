// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder, a second trusted application: from a compressed picture in one
//! protected buffer to pixels in another.
//!
//! It knows no keys. Each [`Decoder`] has an instance of it to itself: when a
//! bitstream kills that one, nobody else's is touched, and a new one can be
//! opened.

use ringfence_proto::command;
use ringfence_proto::decoder::result;

use crate::buffer::Handle;
use crate::error;

/// A compressed picture: one baseline JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bitstream {
    /// Names its buffer.
    pub handle: Handle,
    /// Its first byte, from the start of the buffer.
    pub offset: u64,
    /// Bytes, at most
    /// [`MAX_SOURCE`](ringfence_proto::decoder::MAX_SOURCE).
    pub length: u32,
}

/// Where pixels go: blue, green, red and 255 for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Names its buffer, another one than the bitstream's.
    pub handle: Handle,
    /// Its first byte, from the start of the buffer: a multiple of 4.
    pub offset: u64,
    /// Bytes from one line to the next: a multiple of 4, and four for each pixel
    /// at least. What is between two lines is zeroed.
    pub stride: u32,
    /// Pixels of a line, at most
    /// [`MAX_WIDTH`](ringfence_proto::decoder::MAX_WIDTH).
    pub width: u32,
    /// Lines. With the stride, at most
    /// [`MAX_FRAME`](ringfence_proto::decoder::MAX_FRAME) bytes.
    pub height: u32,
}

/// Why a picture was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// BAD_FORMAT.
    #[error(
        "the bitstream is no JPEG, is malformed or cut short; the key or the film may be wrong"
    )]
    BadFormat,
    /// UNSUPPORTED.
    #[error("only baseline JPEGs of 8 bits, grey or YCbCr 4:4:4, 4:2:2, 4:4:0 or 4:2:0 in one scan, of at most 2048 pixels a line are decoded; encode it so")]
    Unsupported,
    /// OTHER_SIZE.
    #[error("the picture has another size than the frame; make the frame that size")]
    OtherSize,
    /// BAD_PARAMETERS.
    #[error("no frame has that layout, or bitstream or frame do not lie in their buffers, which must be two; check offsets, stride and size")]
    BadParameters,
    /// OUT_OF_MEMORY.
    #[error("as many decoders are open as there may be, or the secure world has no memory left; close one")]
    Crowded,
    /// TARGET_DEAD.
    #[error(
        "the decoder has crashed over this bitstream; open another, and leave the picture out"
    )]
    Dead,
    /// Anything that any trusted application may answer.
    #[error("{0}")]
    Other(error::Refusal),
}

impl From<u32> for Refusal {
    /// From a result of the TEE client API other than success.
    fn from(code: u32) -> Self {
        match code {
            result::BAD_FORMAT => Self::BadFormat,
            result::UNSUPPORTED => Self::Unsupported,
            result::OTHER_SIZE => Self::OtherSize,
            command::result::BAD_PARAMETERS => Self::BadParameters,
            command::result::OUT_OF_MEMORY => Self::Crowded,
            command::result::TARGET_DEAD => Self::Dead,
            code => Self::Other(code.into()),
        }
    }
}

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
pub use client::Decoder;

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
mod client {
    use optee_teec::{
        Context, Operation, ParamNone, ParamTmpRef, ParamType, ParamValue, Session, Uuid,
    };
    use ringfence_proto::command::{self, split};
    use ringfence_proto::decoder;
    use ringfence_proto::message::{self, Decode, Message};

    use super::{Bitstream, Frame};
    use crate::buffer::Handle;
    use crate::error::Error;
    use crate::play::player::{self, Picture};

    /// An open session of the decoder.
    pub struct Decoder {
        // The session keeps the context alive.
        session: Session,
    }

    impl Decoder {
        /// Opens one. It is part of OP-TEE's image, so that tee-supplicant is not
        /// needed.
        ///
        /// # Errors
        ///
        /// [`Error::NoSecureWorld`] if there is no TEE or no decoder,
        /// [`Error::Decoder`] if there are too many already.
        pub fn open() -> Result<Self, Error> {
            let refused = |error: optee_teec::Error| match error.raw_code() {
                command::result::ITEM_NOT_FOUND => Error::NoSecureWorld,
                code => Error::Decoder(code.into()),
            };
            let mut context = Context::new().map_err(refused)?;
            let session = context
                .open_session(Uuid::from_bytes(decoder::DECODER_UUID))
                .map_err(refused)?;
            Ok(Self { session })
        }

        /// Decodes one picture, which must have the frame's size.
        ///
        /// # Errors
        ///
        /// [`Error::Decoder`]; the frame may hold a part of the picture then.
        pub fn decode(&mut self, from: &Bitstream, to: &Frame) -> Result<(), Error> {
            let request = Decode {
                source_offset: from.offset,
                source_length: from.length,
                frame: to.handle.raw(),
                frame_offset: to.offset,
                stride: to.stride,
                width: to.width,
                height: to.height,
            };
            let mut buffer = [0; Decode::MAX_SIZE];
            let message = message::encode(&request, &mut buffer)
                .expect("MAX_SIZE bytes suffice for every message");
            let (high, low) = split(from.handle.raw());
            let mut operation = Operation::new(
                0,
                ParamValue::new(high, low, ParamType::ValueInput),
                ParamTmpRef::new_input(message),
                ParamValue::new(0, 0, ParamType::ValueOutput),
                ParamNone,
            );
            self.session
                .invoke_command(decoder::DECODE, &mut operation)
                .map_err(|error| Error::Decoder(error.raw_code().into()))?;
            let size = operation.parameters().2;
            if (size.a(), size.b()) != (to.width, to.height) {
                return Err(Error::Answer("a picture of another size"));
            }
            Ok(())
        }
    }

    impl player::Decode for Decoder {
        fn decode(&mut self, source: Handle, length: u32, picture: &Picture) -> Result<(), Error> {
            let from = Bitstream {
                handle: source,
                offset: 0,
                length,
            };
            let to = Frame {
                handle: picture.handle,
                offset: 0,
                stride: picture.stride,
                width: picture.width,
                height: picture.height,
            };
            Decoder::decode(self, &from, &to)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_becomes_advice() {
        let says = |code: u32| Refusal::from(code).to_string();
        assert!(says(0xffff_0005).contains("cut short"));
        assert!(says(0xffff_0009).contains("baseline"));
        assert!(says(0xffff_0004).contains("another size"));
        assert!(says(0xffff_0006).contains("stride"));
        assert!(says(0xffff_000c).contains("close one"));
        assert!(says(0xffff_3024).contains("open another"));
        assert!(says(0xffff_000d).contains("in use"));
        assert!(says(0xffff_0008).contains("handle"));
        assert!(says(0x1234).contains("0x00001234"));
    }
}
