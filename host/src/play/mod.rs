// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plays an encrypted film: this side finds out what is encrypted and how, the
//! secure world decrypts and decodes, and a device shows.
//!
//! | module | does |
//! |---|---|
//! | [`boxes`] | finds the boxes of an MP4 file |
//! | [`mp4`] | reads the film that they describe |
//! | [`protection`] | reads how its samples are encrypted |
//! | [`cut`] | cuts a sample into commands |
//! | [`player`] | takes frame by frame through decryption, decoding, and to the screen |
//! | [`pace`] | says when a frame is due, and when it is too late |
//! | [`display`] | a screen that is a device |
//!
//! Ciphertext, IVs and handles are all that passes through this process: neither a
//! key nor a decrypted byte.

pub mod boxes;
pub mod cut;
pub mod display;
pub mod mp4;
pub mod pace;
pub mod player;
pub mod protection;

pub use boxes::BoxError;
pub use mp4::Movie;
pub use player::{Event, Player, Report};
