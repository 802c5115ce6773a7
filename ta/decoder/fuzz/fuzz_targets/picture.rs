// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decodes hostile bitstreams.

#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = checks::decode_guarded(bytes, |decode| decode());
});
