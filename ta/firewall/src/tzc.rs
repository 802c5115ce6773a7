// SPDX-License-Identifier: MIT OR Apache-2.0

//! A barrier of few windows: an address space controller like Arm's TZC-400.
//!
//! The controller sits between the interconnect and the memory, and lets the
//! normal world through but where a *region* of its says otherwise. There are
//! eight of these beside the background, of any length in pages. Ranges that
//! touch each other share one; to open the middle of a window takes another.
//!
//! A region's bounds are several registers, which do not change at once, and two
//! regions of one filter must never overlap. So the gates are closed while a
//! window is moved: accesses wait in the interconnect, and none of them sees the
//! windows half moved.
//!
//! Registers and their numbers: *CoreLink TZC-400 TrustZone Address Space
//! Controller, Technical Reference Manual* (Arm DDI 0504), chapter 3.

use core::num::NonZeroU32;

use crate::extent::{Extent, Step};
use crate::platform::{Abilities, Barrier, Refused};

/// Offsets of registers in bytes, and what is in them.
pub mod register {
    /// Number of regions less one in bits 0 to 4, number of filters less one in
    /// bits 24 and 25.
    pub const BUILD_CONFIG: u32 = 0x000;
    /// Bit n: the gate of filter n is to be open; bit 16 + n: it is open.
    pub const GATE_KEEPER: u32 = 0x008;
    /// Registers of region 0, the background. Those of the others follow.
    pub const REGION: u32 = 0x100;
    /// Bytes from a region's registers to the next one's.
    pub const REGION_STRIDE: u32 = 0x20;
    /// In a region: lower half of the first address.
    pub const BASE_LOW: u32 = 0x00;
    /// In a region: upper half of the first address.
    pub const BASE_HIGH: u32 = 0x04;
    /// In a region: lower half of the last address.
    pub const TOP_LOW: u32 = 0x08;
    /// In a region: upper half of the last address.
    pub const TOP_HIGH: u32 = 0x0c;
    /// In a region: the secure world may read (bit 30) and write (bit 31), and
    /// the filters that the region is enabled for (bits 0 to 3).
    pub const ATTRIBUTES: u32 = 0x10;
    /// In a region: who of the normal world may read and write.
    pub const ID_ACCESS: u32 = 0x14;
}

/// [`register::ATTRIBUTES`]: the secure world reads and writes.
const SECURE_ONLY: u32 = 0b11 << 30;

/// Looks at the gates until they are given up.
const PATIENCE: u32 = 1_000;

/// The most windows of a controller: regions but the background.
const MAX_WINDOWS: usize = 8;

/// The registers of a controller, or of a simulation.
pub trait Registers {
    /// Reads the register at an offset.
    fn read(&mut self, offset: u32) -> u32;
    /// Writes the register at an offset. Writes take effect in program order.
    fn write(&mut self, offset: u32, value: u32);
}

/// A controller, all regions of which but the background are ours.
///
/// # Invariants
/// - Between two calls region `n + 1` covers `windows[n]`, for the secure world
///   only, and is disabled when that is `None`; the gates are open.
/// - No two windows overlap or touch.
pub struct Controller<R> {
    registers: R,
    granule: u64,
    filters: u32,
    count: usize,
    windows: [Option<Extent>; MAX_WINDOWS],
}

impl<R: Registers> Controller<R> {
    /// Takes a controller over, whose background lets everybody through, and
    /// disables all its other regions. The board may want windows to be
    /// multiples of `granule` bytes.
    pub fn new(mut registers: R, granule: u64) -> Self {
        let config = registers.read(register::BUILD_CONFIG);
        let count = ((config & 0x1f) as usize).min(MAX_WINDOWS);
        let filters = (config >> 24 & 0b11) + 1;
        // INVARIANT: nothing is covered, and `set` disables each region.
        let mut this = Self {
            registers,
            granule,
            filters: (1 << filters) - 1,
            count,
            windows: [None; MAX_WINDOWS],
        };
        for index in 0..count {
            this.set(index, None);
        }
        this.registers.write(register::GATE_KEEPER, this.filters);
        this
    }

    /// The registers.
    pub fn registers(&self) -> &R {
        &self.registers
    }

    fn write(&mut self, index: usize, offset: u32, value: u32) {
        // CAST: there are eight regions at most.
        let region = register::REGION + (index as u32 + 1) * register::REGION_STRIDE;
        self.registers.write(region + offset, value);
    }

    /// Makes a region cover an extent or nothing. The gates are closed, or else
    /// nothing is covered by it.
    fn set(&mut self, index: usize, window: Option<Extent>) {
        self.windows[index] = window;
        self.write(index, register::ATTRIBUTES, 0);
        let Some(window) = window else {
            return;
        };
        let (base, top) = (window.start(), window.end() - 1);
        // CAST: halves of a register pair.
        self.write(index, register::BASE_LOW, base as u32);
        self.write(index, register::BASE_HIGH, (base >> 32) as u32);
        self.write(index, register::TOP_LOW, top as u32);
        self.write(index, register::TOP_HIGH, (top >> 32) as u32);
        self.write(index, register::ID_ACCESS, 0);
        self.write(index, register::ATTRIBUTES, SECURE_ONLY | self.filters);
    }

    /// Moves windows while nobody gets through.
    fn gated(&mut self, change: impl FnOnce(&mut Self)) -> Result<(), Refused> {
        self.registers.write(register::GATE_KEEPER, 0);
        let closed = (0..PATIENCE)
            .any(|_| self.registers.read(register::GATE_KEEPER) >> 16 & self.filters == 0);
        if closed {
            change(self);
        }
        // Nothing has to be waited for: who comes early waits at the gate.
        self.registers.write(register::GATE_KEEPER, self.filters);
        if closed {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    fn find(&self, is: impl Fn(&Extent) -> bool) -> Option<(usize, Extent)> {
        self.windows
            .iter()
            .enumerate()
            .find_map(|(index, window)| window.filter(&is).map(|window| (index, window)))
    }

    fn vacant(&self) -> Result<usize, Refused> {
        self.windows
            .iter()
            .take(self.count)
            .position(Option::is_none)
            .ok_or(Refused)
    }
}

/// The extent from one address to another, which are in this order and aligned.
fn between(start: u64, end: u64) -> Option<Extent> {
    Extent::new(start, end - start)
}

impl<R: Registers> Barrier for Controller<R> {
    fn abilities(&self) -> Abilities {
        Abilities {
            granule: self.granule,
            // A controller without regions lets no range be fenced; the ledger
            // has no other word for it than one window, which is refused here.
            // CAST: there are eight at most.
            windows: NonZeroU32::new(self.count as u32).or(Some(NonZeroU32::MIN)),
            step: Step::Whole,
        }
    }

    fn fence(&mut self, extent: Extent) -> Result<(), Refused> {
        if !extent.is_aligned(self.granule) || self.find(|other| other.overlaps(&extent)).is_some()
        {
            return Err(Refused);
        }
        let below = self.find(|window| window.end() == extent.start());
        let above = self.find(|window| window.start() == extent.end());
        let start = below.map_or(extent.start(), |(_, window)| window.start());
        let end = above.map_or(extent.end(), |(_, window)| window.end());
        let window = between(start, end);
        let index = match (below, above) {
            (Some((index, _)), _) | (None, Some((index, _))) => index,
            (None, None) => self.vacant()?,
        };
        self.gated(|this| {
            if let (Some(_), Some((other, _))) = (below, above) {
                this.set(other, None);
            }
            this.set(index, window);
        })
    }

    fn open(&mut self, extent: Extent) -> Result<(), Refused> {
        let (index, window) = self
            .find(|window| window.contains(&extent))
            .ok_or(Refused)?;
        let below = between(window.start(), extent.start());
        let above = between(extent.end(), window.end());
        match (below, above) {
            (Some(_), Some(_)) => {
                let other = self.vacant()?;
                self.gated(|this| {
                    this.set(index, below);
                    this.set(other, above);
                })
            }
            (rest, None) | (None, rest) => self.gated(|this| this.set(index, rest)),
        }
    }
}
