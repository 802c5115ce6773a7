// SPDX-License-Identifier: MIT OR Apache-2.0

//! The policy of the Ringfence trusted application (TA), free of the TEE, so
//! that it is tested on any host.
//!
//! | module | decides |
//! |---|---|
//! | [`instance`] | what each command does, over a [`firewall::Firewall`] |
//! | [`handles`] | how a protected range is named |
//! | [`policy`] | which content commands a use case opens to |
//! | [`windows`] | which bytes of a range a command touches, piece by piece |
//! | [`firewall`] | how a piece is mapped, and that it never stays mapped |
//! | [`ladder`] | how a licence is opened: device key, secure storage, time |
//! | [`sample`] | how a sample's clear and encrypted bytes reach their places |
//! | [`keys`] | which content keys a session holds, and for how long |
//! | [`shared`] | that memory shared with the normal world is read once |
//! | [`refusal`] | what the client is told |
//! | [`derail`] | how a command goes wrong on purpose, in test builds |
//!
//! The binary `ringfence-ta` joins it to OP-TEE: entry points, cryptography,
//! storage, and the session to the firewall in OP-TEE's core. What the decoder's
//! binary needs for that as well is the module `entry`, which is there with the
//! feature `entry` only.
//!
//! # Trust
//!
//! Everything that comes from the normal world is hostile: numbers, messages,
//! and shared memory that changes while it is read. The firewall is trusted,
//! and its ledger is the only truth about protected ranges; the table of
//! handles here is a cache of it that a new instance builds again. Nothing
//! here panics on what a client sends. The one deliberate panic is for a
//! window that cannot be unmapped: the TA's death takes its address space, and
//! so the window, with it.

#![no_std]

pub mod derail;
#[cfg(feature = "entry")]
pub mod entry;
pub mod firewall;
pub mod handles;
pub mod instance;
pub mod keys;
pub mod ladder;
pub mod policy;
pub mod refusal;
pub mod sample;
pub mod shared;
pub mod windows;
