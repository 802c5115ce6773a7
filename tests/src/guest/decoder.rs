// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder's commands, rightly and wrongly used, and pictures for it.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use optee_teec::{ParamNone, ParamType, ParamValue};
use ringfence::proto::decoder::{self, DECODER_UUID};
use ringfence::proto::message::Decode;
use ringfence_decoder::frame::Layout;
use ringfence_decoder::picture;
use ringfence_decoder::refusal::Refusal;

use super::ta::{self, Code, Ta};

/// A session of the decoder.
pub struct Decoder(Ta);

impl Decoder {
    /// Opens one.
    pub fn open() -> Result<Self, Code> {
        Ta::of(DECODER_UUID).map(Self)
    }

    /// Decodes one picture; returns its width and height.
    pub fn decode(&mut self, source: u64, request: &Decode) -> Result<(u32, u32), Code> {
        let message = ta::encoded(request);
        self.decode_message(source, &message)
    }

    /// As [`decode`](Self::decode), with any bytes as the message.
    pub fn decode_message(&mut self, source: u64, message: &[u8]) -> Result<(u32, u32), Code> {
        let (source, message) = (ta::number(source), ta::bytes(message));
        let (_, _, size, _) =
            self.0
                .invoke(decoder::DECODE, source, message, ta::answer(), ParamNone)?;
        Ok((size.a(), size.b()))
    }

    /// Calls a command of the firewall (test builds).
    pub fn ask(&mut self, command: u32, first: u64, second: u64) -> Result<(), Code> {
        let command = ParamValue::new(command, 0, ParamType::ValueInput);
        let (first, second) = (ta::number(first), ta::number(second));
        self.0
            .invoke(decoder::ASK, command, first, second, ParamNone)
            .map(drop)
    }

    /// Keeps a buffer mapped until this session closes (test builds).
    pub fn hold(&mut self, handle: u64) -> Result<(), Code> {
        let handle = ta::number(handle);
        self.0
            .invoke(decoder::HOLD, handle, ParamNone, ParamNone, ParamNone)
            .map(drop)
    }

    /// Makes the next picture the last of this session (test builds).
    pub fn doom(&mut self) -> Result<(), Code> {
        self.0.bare(decoder::DOOM)
    }
}

/// A compressed picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// What it is.
    pub name: String,
    /// The JPEG.
    pub bytes: Vec<u8>,
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

impl Picture {
    /// A picture in colour, with chrominance so dense.
    pub fn coloured(width: u16, height: u16, sampling: SamplingFactor) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 85);
        encoder.set_sampling_factor(sampling);
        encoder.encode(&pixels(width, height), width, height, ColorType::Rgb)?;
        Ok(Self {
            name: format!("{width} x {height}, {sampling:?}"),
            bytes,
            width: width.into(),
            height: height.into(),
        })
    }

    /// One of the decoder's own test pictures.
    pub fn stored(name: &str, bytes: &[u8]) -> anyhow::Result<Self> {
        let header = ringfence_decoder::header::Header::read(bytes)?;
        Ok(Self {
            name: name.to_owned(),
            bytes: bytes.to_vec(),
            width: header.width.into(),
            height: header.height.into(),
        })
    }

    /// What the decoder must make of these bytes in a frame of this picture's size:
    /// the frame, or the result code.
    pub fn expected(&self, bytes: &[u8], stride: u32) -> Result<Vec<u8>, Code> {
        let layout = Layout::new(self.width, self.height, stride).map_err(|error| error.code())?;
        let mut frame = vec![0; layout.size()];
        picture::decode(bytes, &mut frame, &layout)
            .map_err(|error| Refusal::Picture(error).code())?;
        Ok(frame)
    }
}

/// Something to see: red, green, blue.
fn pixels(width: u16, height: u16) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..u32::from(height) {
        for x in 0..u32::from(width) {
            let edge = if (x / 24 + y / 24) % 2 == 0 { 64 } else { 0 };
            let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 28;
            pixels.extend([
                (x * 191 / u32::from(width)) as u8 + edge,
                (y * 191 / u32::from(height)) as u8 + noise as u8,
                ((x + y) % 256) as u8 / 2 + edge,
            ]);
        }
    }
    pixels
}
