// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands of the decoder, a second trusted application.
//!
//! It turns compressed pictures in one protected buffer into pixels in another,
//! and is apart from the application that has the keys, so that a hostile
//! bitstream never meets one.
//!
//! Its handles are those of the other application, which it asks for the ranges
//! that they name ([`command::RESOLVE`](crate::command::RESOLVE)).

/// UUID of the decoder, in the byte order of RFC 4122.
pub const DECODER_UUID: [u8; 16] = [
    0x5b, 0x1c, 0x7e, 0x62, 0x94, 0xd0, 0x4f, 0x3a, 0x8c, 0x1b, 0x2f, 0x60, 0xad, 0x3e, 0x97, 0xc5,
];

/// [`DECODER_UUID`] as text.
pub const DECODER_UUID_TEXT: &str = "5b1c7e62-94d0-4f3a-8c1b-2f60ad3e97c5";

/// Anybody. In: handle of the bitstream's buffer, memref in: a postcard
/// [`Decode`](crate::message::Decode) message, out: (width, height).
///
/// Decodes one baseline JPEG into pixels of four bytes: blue, green, red, 255.
/// A picture that is refused half the way leaves its beginning in the frame.
pub const DECODE: u32 = 0x400;

/// Test builds of the decoder only. In: (command, 0), in: two numbers, in: two
/// more.
///
/// Calls a command of the firewall with the numbers, as far as they are not 0,
/// and room for a third, and answers what it was answered.
pub const ASK: u32 = 0x4f0;

/// Test builds of the decoder only. In: handle.
///
/// Maps the first page of the buffer, and keeps it mapped until the session
/// closes.
pub const HOLD: u32 = 0x4f1;

/// Test builds of the decoder only.
///
/// The next [`DECODE`] of this session panics when the picture is decoded and
/// both buffers are still mapped.
pub const DOOM: u32 = 0x4f2;

/// Bytes of a bitstream, at most.
pub const MAX_SOURCE: u32 = 1 << 20;

/// Bytes of a frame, at most, padding included.
pub const MAX_FRAME: u32 = 4 << 20;

/// Pixels of a line, at most.
pub const MAX_WIDTH: u32 = 2048;

/// Bytes of a pixel.
pub const PIXEL: u32 = 4;

/// Sessions of the decoder that can be open at once, each of which takes memory
/// of the secure world for itself.
pub const MAX_SESSIONS: usize = 8;

/// Results of [`DECODE`] beside those of [`command::result`](crate::command::result).
pub mod result {
    /// The picture has another size than the message says
    /// (`TEE_ERROR_EXCESS_DATA`).
    pub const OTHER_SIZE: u32 = 0xffff_0004;
    /// The bitstream is malformed, or cut short (`TEE_ERROR_BAD_FORMAT`).
    pub const BAD_FORMAT: u32 = 0xffff_0005;
    /// A picture that is no baseline JPEG of 8 bits, or of an unusual form
    /// (`TEE_ERROR_NOT_IMPLEMENTED`).
    pub const UNSUPPORTED: u32 = 0xffff_0009;
}
