// SPDX-License-Identifier: MIT OR Apache-2.0

//! What it costs a process to map a buffer and to write to each of its pages.

use anyhow::Context;
use ringfence::control::Control;
use ringfence::request::Request;
use ringfence_tests::bench::{Counter, Spread, TouchFigures};
use ringfence_tests::guest::allocation;
use ringfence_tests::guest::mapping::{Mapping, BLOCK};

use crate::{counter, rounds};

/// Bytes of the buffer.
const SIZE: u64 = 32 << 20;
/// Rounds that count.
const ROUNDS: u32 = 10;

/// How a mapping lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where blocks fit.
    Aligned,
    /// A page beside that.
    Shifted,
}

/// Measures heaps whose buffers the CPU may map.
pub fn measure(counter: &Counter, heaps: &[&str]) -> anyhow::Result<Vec<TouchFigures>> {
    let mut figures = Vec::new();
    for heap in heaps {
        for place in [Place::Aligned, Place::Shifted] {
            let touched =
                one(counter, heap, place).with_context(|| format!("{heap}, {place:?}"))?;
            figures.push(TouchFigures {
                heap: (*heap).to_owned(),
                aligned: place == Place::Aligned,
                size: SIZE,
                touch: touched,
            });
        }
    }
    Ok(figures)
}

fn one(counter: &Counter, heap: &str, place: Place) -> anyhow::Result<Spread> {
    let shift = match place {
        Place::Aligned => 0,
        Place::Shifted => 4096,
    };
    let request = Request::new(SIZE).from(heap).aligned_to(BLOCK as u64);
    let mut touches = Vec::new();
    for round in 0..rounds::WARM_UP + ROUNDS {
        // Heaps that can't align are asked as they can.
        let buffer = match Control::open()?.allocate(&request) {
            Ok(allocation) => allocation.buffer,
            Err(_) => allocation::allocate_size(&allocation::open(heap)?, SIZE)?,
        };
        let start = counter::now();
        let mapping = Mapping::beside_block(&buffer, usize::try_from(SIZE)?, shift)?;
        mapping.touch();
        let touched = counter::now();
        drop((mapping, buffer));
        rounds::rest(heap)?;
        if round >= rounds::WARM_UP {
            touches.push((touched - start) * counter.instructions_per_step);
        }
    }
    Spread::of(touches).context("no round")
}
