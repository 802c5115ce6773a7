// SPDX-License-Identifier: MIT OR Apache-2.0

//! The CPU's counter, and how many instructions one of its steps is.
//!
//! Under `-icount shift=0` QEMU lets one nanosecond of guest time pass with every
//! instruction, of any CPU and at any exception level, and none while all CPUs
//! wait. The counter's frequency is the machine's choice (1 GHz, or 62.5 MHz with
//! older CPUs), so the factor is measured with a loop of known length.

use std::arch::asm;

use anyhow::{ensure, Context};
use ringfence_tests::bench::{Counter, Spread};

/// Turns of the shorter loop. The longer one has twice as many.
const TURNS: u64 = 8000;

/// Instructions in a turn of the loop.
const TURN: u64 = 2;

/// How often each loop is timed: the quickest had no interrupt in it.
const TRIES: usize = 32;

/// The counter now.
#[inline(always)]
pub fn now() -> u64 {
    let steps: u64;
    // SAFETY: Linux lets user space read this counter; nothing else is touched.
    unsafe {
        asm!("isb", "mrs {}, cntvct_el0", out(reg) steps, options(nomem, nostack, preserves_flags));
    }
    steps
}

fn hertz() -> u64 {
    let hertz: u64;
    // SAFETY: Linux lets user space read this register; nothing else is touched.
    unsafe {
        asm!("mrs {}, cntfrq_el0", out(reg) hertz, options(nomem, nostack, preserves_flags));
    }
    hertz
}

/// Steps that a loop of `turns` turns takes, with those for reading the counter.
fn quickest(turns: u64) -> u64 {
    let time = || {
        let start = now();
        // SAFETY: The loop counts a register down to 0, which ends it, for `turns` is not 0.
        unsafe {
            asm!(
                "2:",
                "subs {turns}, {turns}, #1",
                "b.ne 2b",
                turns = inout(reg) turns.max(1) => _,
                options(nomem, nostack),
            );
        }
        now() - start
    };
    (0..TRIES).map(|_| time()).min().unwrap_or_default()
}

/// Finds out how many instructions a step of the counter is.
///
/// # Errors
///
/// When it is no whole number, or not the same twice: then time does not count
/// instructions.
pub fn calibrate() -> anyhow::Result<Counter> {
    let (once, twice, thrice) = (quickest(TURNS), quickest(2 * TURNS), quickest(3 * TURNS));
    let instructions = TURNS * TURN;
    let steps = twice.saturating_sub(once);
    ensure!(
        steps > 0 && thrice - twice == steps && instructions.is_multiple_of(steps),
        "time does not count instructions here: {instructions} of them took {steps} and {} steps \
         of the counter; boot with -icount shift=0",
        thrice.saturating_sub(twice),
    );
    let instructions_per_step = instructions / steps;
    let overhead = (0..TRIES)
        .map(|_| {
            let start = now();
            now() - start
        })
        .min()
        .unwrap_or_default();
    Ok(Counter {
        hertz: hertz(),
        instructions_per_step,
        overhead: overhead * instructions_per_step,
    })
}

/// Instructions of a call of the secure world: the median of so many rounds.
///
/// # Errors
///
/// When a call fails.
pub fn median(
    counter: &Counter,
    rounds: u32,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut calls = Vec::new();
    // The first one fills caches of both worlds.
    for round in 0..=rounds {
        let start = now();
        call()?;
        let end = now();
        if round > 0 {
            calls.push((end - start) * counter.instructions_per_step);
        }
    }
    Ok(Spread::of(calls).context("no rounds")?.median)
}
