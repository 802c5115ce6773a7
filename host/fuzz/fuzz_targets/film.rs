// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads hostile films, and cuts their samples into commands.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = checks::read(bytes);
});
