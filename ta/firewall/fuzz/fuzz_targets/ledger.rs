// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the operations that the fuzzer's bytes spell, on the machine and under
//! the checks of the tests.

#![no_main]

#[path = "../../tests/simulation/mod.rs"]
mod simulation;

use simulation::{Operation, World};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut world = World::default();
    for operation in Operation::decode(bytes) {
        world.apply(operation);
    }
    world.recover();
});
