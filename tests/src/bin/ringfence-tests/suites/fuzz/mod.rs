// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random calls of everything that user space can call.
//!
//! `RINGFENCE_FUZZ_SECONDS` is how long each test takes, and `RINGFENCE_SEED`
//! what it does: the seed of a run is printed.

mod application;
mod device;

use std::time::{Duration, Instant};

use super::soak::setting;
use super::Test;

pub const TESTS: &[Test] = &[
    ("ioctls_of_heaps", device::heaps),
    ("ioctls_of_the_control_device", device::control),
    ("ioctls_of_a_buffer", device::buffer),
    ("arguments_at_the_edge_of_memory", device::edges),
    ("arguments_that_change_meanwhile", device::races),
    ("commands_of_the_application", application::commands),
    ("memory_references_out_of_bounds", application::bounds),
];

/// Random numbers, for a while.
struct Chance {
    random: fastrand::Rng,
    end: Instant,
}

impl Chance {
    /// Says by which seed it can be had again.
    fn new() -> anyhow::Result<Self> {
        let seed = setting("RINGFENCE_SEED", fastrand::u64(..))?;
        let seconds = setting("RINGFENCE_FUZZ_SECONDS", 1)?;
        print!("RINGFENCE_SEED={seed} ");
        Ok(Self {
            random: fastrand::Rng::with_seed(seed),
            end: Instant::now() + Duration::from_secs(seconds),
        })
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// A number as programs get wrong: small, large, next to a power of two, or
    /// anything.
    fn number(&mut self) -> u64 {
        let near = 1_u64 << self.random.u32(0..64);
        match self.random.u32(0..8) {
            0 => 0,
            1 => u64::MAX,
            2 => near,
            3 => near.wrapping_sub(1),
            4 => near.wrapping_add(1),
            5 => self.random.u64(0..64),
            6 => self.random.u64(0..1 << 16) * 4096,
            _ => self.random.u64(..),
        }
    }

    /// One of the choices.
    fn one<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.random.usize(0..choices.len())]
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            let number = self.number().to_ne_bytes();
            word.copy_from_slice(&number[..word.len()]);
        }
    }
}
