// SPDX-License-Identifier: MIT OR Apache-2.0

//! The ledger of protected memory, the core of the firewall pseudo-TA.
//!
//! The firewall runs in OP-TEE's core and answers to the Ringfence TA, and in
//! little to the decoder. It knows which ranges of the declared carveouts are fenced off from the
//! normal world, and it is the only one that knows for certain: the TA and the
//! kernel rebuild their own tables from its LIST after a crash or a reload.
//!
//! | module | role |
//! |---|---|
//! | [`caller`] | who may call, and for what |
//! | [`extent`] | a page-aligned stretch of physical memory, and its cutting into steps |
//! | [`platform`] | what the ledger asks of the machine, as traits |
//! | [`ledger`] | policy: what is allowed, in which order, and what happens when a step fails |
//! | [`windows`] | how many windows of a barrier fenced ranges take |
//! | [`tzc`] | a barrier of few windows: a controller like Arm's TZC-400 |
//! | `meter` | what all that costs, in test builds; feature `optee` |
//! | `optee` | entry points for the C shim and the shim as a [`Platform`]; feature `optee` |
//!
//! # What always holds
//! - A page is fenced exactly when a range of the ledger covers it.
//! - A caller can map a range that is fenced on its own, and named parts of a
//!   region that is fenced as a whole; a part is zeroed before it loses its name.
//! - No range is mapped into two address spaces.
//! - No page is opened but after it was zeroed while fenced, and nobody has it
//!   mapped then.
//! - Of a failed command nothing is left, or else the range is quarantined:
//!   still fenced, still in the ledger, refused to everything but UNPROTECT.
//!
//! # Building it for OP-TEE
//! OP-TEE links the crate as a static library, which needs a target without
//! floating point, position-independent code and no standard library:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Crelocation-model=pic" cargo build \
//!     --package ringfence-firewall --lib --profile firewall --features optee \
//!     --target aarch64-unknown-none-softfloat \
//!     -Zbuild-std=core,panic_abort -Zbuild-std-features=
//! ```
//!
//! Only on such a target it is `no_std`: on the host the standard library lends
//! it a panic handler, so that `cargo test --workspace` needs nothing special.

#![cfg_attr(target_os = "none", no_std)]

pub mod caller;
pub mod extent;
pub mod ledger;
#[cfg(feature = "optee")]
mod meter;
#[cfg(feature = "optee")]
mod optee;
pub mod platform;
pub mod tzc;
pub mod windows;

pub use caller::{Caller, CallerId, Callers, Role};
pub use extent::{Extent, Step};
pub use ledger::{Error, Ledger, RegionError};
pub use platform::{Abilities, Barrier, Platform, Refused};
