// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which processors are at work: all of them share the clock that counts.

use std::fs;
use std::path::Path;

use anyhow::Context;
use rustix::thread::{sched_setaffinity, CpuSet};

/// What switches a processor on and off.
fn switch(number: usize) -> String {
    format!("/sys/devices/system/cpu/cpu{number}/online")
}

/// Keeps this thread, and those that it starts, on the last processor: a move to
/// another one costs instructions, and interrupts go to the first.
pub fn stay_on_last() -> anyhow::Result<()> {
    let last = (1..)
        .take_while(|&number| Path::new(&switch(number)).exists())
        .last();
    let mut set = CpuSet::new();
    set.set(last.unwrap_or_default());
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// Only the first processor is on, until this is dropped.
///
/// That is for machines that are busy: firmware has a processor that is off spin, and
/// time passes slowly while the others rest.
pub struct Alone {
    off: Vec<usize>,
}

impl Alone {
    /// Switches the others off.
    pub fn new() -> anyhow::Result<Self> {
        let mut this = Self { off: Vec::new() };
        for number in (1..).take_while(|&number| Path::new(&switch(number)).exists()) {
            fs::write(switch(number), "0").with_context(|| switch(number))?;
            this.off.push(number);
        }
        Ok(this)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        for &number in &self.off {
            if let Err(error) = fs::write(switch(number), "1") {
                eprintln!("{}: {error}", switch(number));
            }
        }
        if let Err(error) = stay_on_last() {
            eprintln!("a processor to stay on: {error:#}");
        }
    }
}
