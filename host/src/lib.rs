// SPDX-License-Identifier: MIT OR Apache-2.0

//! User space's side of Ringfence: dma-buf heaps on memory that is set aside
//! at boot, and buffers in them that the secure world fences off.
//!
//! | module | what it gives |
//! |---|---|
//! | [`heap`] | the heaps of this system, and allocation |
//! | [`request`] | allocation with wishes, of heaps in order of preference, in one call |
//! | [`fallback`] | allocation from the first of several heaps that has room |
//! | [`profile`] | which heaps those are, in a file of the board's |
//! | [`buffer`] | an owned dma-buf, and what the driver says of any dma-buf |
//! | [`play`] | playing an encrypted film |
//! | [`content`] | cutting content into decrypt commands (pure) |
//! | `secure` | the trusted application's client (feature `tee`, aarch64) |
//! | [`decoder`] | the decoder's client, and why it refuses |
//! | [`status`] | the whole picture: heaps and secure world |
//! | [`control`], [`uapi`] | the driver's control device, and its C structures |
//! | [`error`] | everything that can go wrong, and what to do about it |
//!
//! ```no_run
//! use ringfence::control::Control;
//! use ringfence::heap::Heap;
//!
//! let buffer = Heap::open("protected-video")?.allocate(1 << 20)?;
//! let info = Control::open()?.buffer(&buffer)?;
//! assert!(info.protected && !info.cpu_access);
//! # Ok::<(), ringfence::error::Error>(())
//! ```

pub mod buffer;
pub mod content;
pub mod control;
pub mod decoder;
pub mod error;
pub mod fallback;
pub mod heap;
pub mod play;
pub mod profile;
pub mod request;
#[cfg(all(feature = "tee", target_arch = "aarch64"))]
pub mod secure;
pub mod status;
pub mod uapi;

pub use ringfence_proto as proto;
