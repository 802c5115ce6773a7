// SPDX-License-Identifier: MIT OR Apache-2.0

//! The wire protocol of the Ringfence trusted application (TA).
//!
//! These parties speak to each other:
//!
//! | module | between | form |
//! |---|---|---|
//! | [`command`] | Linux (kernel and user space) and the TA | command numbers, values, fixed records |
//! | [`message`] | user space and the TA | versioned [postcard](https://postcard.jamesmunns.com) messages inside memory references |
//! | [`decoder`] | user space and the second TA, which decodes pictures | command numbers, values |
//! | [`firewall`] | the TAs and the pseudo-TA in OP-TEE's core | command numbers, values, fixed records |
//!
//! Every number here is part of an interface between separately built
//! programs; `tests/wire.rs` pins all of them. [`command`] is also compiled
//! into the Linux module from this very file, so it stands on `core` alone.

#![no_std]
#![forbid(unsafe_code)]

pub mod command;
pub mod decoder;
pub mod firewall;
pub mod message;
