// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder: a trusted application that turns compressed pictures in one
//! protected buffer into pixels in another, as a video processor's firmware
//! would. This library is free of the TEE, so that it is tested on any host.
//!
//! | module | decides |
//! |---|---|
//! | [`header`] | which pictures are decoded at all, before the codec sees a byte |
//! | [`source`] | how bitstreams are read: each byte once, into private memory |
//! | [`frame`] | how pixels lie in memory |
//! | [`picture`] | one picture, from bitstream to frame |
//! | [`job`] | one command: which memory it may touch, and for how long |
//! | [`refusal`] | what the client is told |
//! | [`ringfence_codec`] | the codec, and what it gets to read of a bitstream |
//!
//! # Trust
//!
//! The bitstream is hostile, and so is everything else that the normal world
//! sends. The codec (zune-jpeg, without its features, so that it has no unsafe
//! code) sees only what the strict [`header`] lets through: one scan of a
//! baseline picture, and tables. What it allocates depends on the picture's
//! width alone, and is at most [`picture::MEMORY`]. If it panics all the same,
//! OP-TEE ends this one session's instance, its windows go with its address
//! space, and nobody else notices.
//!
//! # Memory that nobody else changes
//!
//! A frame is written through a slice, which promises that nobody else writes to
//! it meanwhile. In the normal world the CPU can't: the range is fenced, and the
//! fence can't be opened as long as a window is mapped. No other application
//! can, and neither can another instance of this one: the firewall maps a range
//! for one of them at a time. The windows of one command do not overlap: they
//! are of two buffers, and ranges of the ledger are disjoint. What is left are
//! devices that Linux lets attach to the buffer. They can spoil a picture, and no
//! more: what is in a frame is written and moved, and decides nothing; and a
//! bitstream, which does decide, is copied once, piece by piece, before it is
//! looked at.

#![no_std]

pub mod frame;
pub mod header;
pub mod job;
pub mod picture;
pub mod refusal;
pub mod source;
