// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the foreign trusted application of the tests can be told.
//!
//! It is signed like any other that a product would load, and its UUID is none
//! that anybody has heard of.

/// Its UUID, in the byte order of RFC 4122.
pub const UUID: [u8; 16] = [
    0x5d, 0x1c, 0x8e, 0x6a, 0x20, 0xb4, 0x4f, 0x0e, 0x93, 0x7c, 0x1f, 0xa8, 0x46, 0xd3, 0x5b, 0x02,
];

/// [`UUID`] as text.
pub const UUID_TEXT: &str = "5d1c8e6a-20b4-4f0e-937c-1fa846d35b02";

/// Memref in: the UUID of another application, in: (its command, 0), in: two
/// numbers for it, in: two more.
///
/// Opens a session with the other one, calls the command with the numbers, as
/// far as they are not 0, and answers what it was answered.
pub const CALL: u32 = 1;
