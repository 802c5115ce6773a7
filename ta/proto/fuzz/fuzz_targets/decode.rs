// SPDX-License-Identifier: MIT OR Apache-2.0

//! Feeds hostile bytes to every reader of the protocol.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::every_reader(bytes));
