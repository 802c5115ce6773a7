// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the operations that the fuzzer's bytes spell, on a machine that they
//! choose, and under the checks of the tests.

#![no_main]

#[path = "../../tests/simulation/mod.rs"]
mod simulation;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simulation::World::run(bytes));
