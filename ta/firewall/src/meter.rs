// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the firewall's work costs: calls of the firmware, zeroed blocks, and how
//! long they take. Test builds measure; in others this is nothing.

/// Ticks of the physical counter, and counts.
#[derive(Clone, Copy, Default)]
pub struct Meter {
    /// Calls of the firmware.
    pub calls: u32,
    /// Blocks that were zeroed.
    pub scrubs: u32,
    /// Ticks in the firmware.
    pub firmware: u64,
    /// Ticks for zeroing blocks, their windows included.
    pub scrubbing: u64,
    /// Ticks of these in the zeroing loop itself.
    pub zeroing: u64,
}

/// The physical counter now.
#[cfg(all(feature = "test-injection", target_arch = "aarch64"))]
fn now() -> u64 {
    let ticks: u64;
    // SAFETY: OP-TEE's core may read this register; nothing else is touched.
    unsafe {
        core::arch::asm!(
            "isb",
            "mrs {}, cntpct_el0",
            out(reg) ticks,
            options(nomem, nostack, preserves_flags)
        );
    }
    ticks
}

#[cfg(not(all(feature = "test-injection", target_arch = "aarch64")))]
fn now() -> u64 {
    0
}

impl Meter {
    /// Nothing was measured yet.
    pub const fn new() -> Self {
        Self {
            calls: 0,
            scrubs: 0,
            firmware: 0,
            scrubbing: 0,
            zeroing: 0,
        }
    }

    /// What was measured since the last time.
    #[cfg(feature = "test-injection")]
    pub fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    /// Counts a call of the firmware.
    pub fn firmware<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = now();
        let answer = call();
        self.firmware = self.firmware.wrapping_add(now().wrapping_sub(start));
        self.calls = self.calls.wrapping_add(1);
        answer
    }

    /// Counts the zeroing of a block.
    pub fn scrub<T>(&mut self, scrub: impl FnOnce(&mut Self) -> T) -> T {
        let start = now();
        let answer = scrub(self);
        self.scrubbing = self.scrubbing.wrapping_add(now().wrapping_sub(start));
        self.scrubs = self.scrubs.wrapping_add(1);
        answer
    }

    /// Counts the bare loop in it.
    pub fn bare(&mut self, zero: impl FnOnce()) {
        let start = now();
        zero();
        self.zeroing = self.zeroing.wrapping_add(now().wrapping_sub(start));
    }
}
