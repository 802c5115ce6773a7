// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two kinds of hardware that keep the normal world out: a granule protection
//! table, and an address space controller by its registers.

use ringfence_firewall::extent::{Extent, BLOCK, GRANULE};
use ringfence_firewall::tzc::{register, Controller, Registers};
use ringfence_firewall::{Abilities, Barrier, Refused};

/// A barrier, and what it does to accesses of the normal world.
pub trait Hardware: Barrier {
    /// Which of the pages from `base` on it keeps the normal world out of.
    fn fenced(&self, base: u64, pages: u64) -> Vec<bool>;

    /// Whether any page of these is fenced, by absolute number.
    fn any_fenced(&self, first: u64, pages: u64) -> bool {
        self.fenced(first * GRANULE, pages).contains(&true)
    }
}

/// A bit for each page.
pub struct Table {
    base: u64,
    fenced: Vec<bool>,
}

impl Table {
    pub fn new(base: u64, pages: u64) -> Self {
        Self {
            base,
            fenced: vec![false; pages as usize],
        }
    }

    fn block(&mut self, block: Extent) -> &mut [bool] {
        assert_eq!(
            block.start() / BLOCK,
            (block.end() - 1) / BLOCK,
            "one step, one block"
        );
        let first = (block.start() - self.base) / GRANULE;
        &mut self.fenced[first as usize..][..(block.size() / GRANULE) as usize]
    }
}

impl Barrier for Table {
    fn abilities(&self) -> Abilities {
        Abilities::TABLE
    }

    fn fence(&mut self, block: Extent) -> Result<(), Refused> {
        self.block(block).fill(true);
        Ok(())
    }

    fn open(&mut self, block: Extent) -> Result<(), Refused> {
        self.block(block).fill(false);
        Ok(())
    }
}

impl Hardware for Table {
    fn fenced(&self, base: u64, pages: u64) -> Vec<bool> {
        let first = (base - self.base) / GRANULE;
        self.fenced[first as usize..][..pages as usize].to_vec()
    }
}

/// One region of the controller, as its registers say.
#[derive(Clone, Copy, Default)]
struct Region {
    base: u64,
    top: u64,
    attributes: u32,
    id_access: u32,
}

impl Region {
    fn is_enabled(&self) -> bool {
        self.attributes & 0xf != 0
    }
}

/// The registers of a controller with one filter, which panic when they are
/// used as the manual forbids.
pub struct Simulated {
    regions: Vec<Region>,
    /// Whether the normal world gets to the filter at all.
    gate_open: bool,
    /// Reads until a gate that is told to close is closed.
    slowness: u32,
    waiting: u32,
}

impl Simulated {
    /// `windows` regions beside the background.
    pub fn new(windows: usize) -> Self {
        let mut regions = vec![Region::default(); windows + 1];
        // Out of reset a controller may have anything; firmware leaves this.
        regions[0] = Region {
            base: 0,
            top: u64::MAX,
            attributes: 0xc000_0001,
            id_access: u32::MAX,
        };
        Self {
            regions,
            gate_open: true,
            slowness: 3,
            waiting: 0,
        }
    }

    /// Whether an access of the normal world to this address gets through.
    fn lets_through(&self, address: u64) -> bool {
        let region =
            self.regions.iter().rev().find(|region| {
                region.is_enabled() && (region.base..=region.top).contains(&address)
            });
        region.is_some_and(|region| region.id_access != 0)
    }

    fn check(&self) {
        if !self.gate_open {
            return;
        }
        let enabled: Vec<_> = self.regions[1..]
            .iter()
            .filter(|region| region.is_enabled())
            .collect();
        for (index, one) in enabled.iter().enumerate() {
            assert!(one.base < one.top, "an empty region is enabled");
            assert_eq!(one.id_access, 0, "a window lets the normal world through");
            assert_eq!(one.attributes >> 30, 0b11, "the secure world is kept out");
            for other in &enabled[index + 1..] {
                assert!(
                    one.top < other.base || other.top < one.base,
                    "enabled regions overlap"
                );
            }
        }
    }
}

impl Registers for Simulated {
    fn read(&mut self, offset: u32) -> u32 {
        match offset {
            register::BUILD_CONFIG => self.regions.len() as u32 - 1,
            register::GATE_KEEPER if self.gate_open => {
                self.waiting = self.waiting.saturating_sub(1);
                self.gate_open = self.waiting > 0;
                1 << 16
            }
            register::GATE_KEEPER => 0,
            _ => panic!("register {offset:#x} is read"),
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        if offset == register::GATE_KEEPER {
            if value & 1 != 0 {
                self.gate_open = true;
                self.check();
            } else {
                self.waiting = self.slowness;
            }
            return;
        }
        let region = (offset - register::REGION) / register::REGION_STRIDE;
        let field = (offset - register::REGION) % register::REGION_STRIDE;
        assert!(region > 0, "the background is not ours");
        let open = self.gate_open;
        let region = &mut self.regions[region as usize];
        assert!(
            !open || !region.is_enabled(),
            "a window is moved with the gate open"
        );
        let low = |old: u64, value: u32| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64, value: u32| old & 0xffff_ffff | u64::from(value) << 32;
        match field {
            // The hardware has no bits below the page.
            register::BASE_LOW => region.base = low(region.base, value & !0xfff),
            register::BASE_HIGH => region.base = high(region.base, value),
            register::TOP_LOW => region.top = low(region.top, value | 0xfff),
            register::TOP_HIGH => region.top = high(region.top, value),
            register::ATTRIBUTES => region.attributes = value,
            register::ID_ACCESS => region.id_access = value,
            _ => panic!("register {offset:#x} is written"),
        }
        self.check();
    }
}

impl Hardware for Controller<Simulated> {
    fn fenced(&self, base: u64, pages: u64) -> Vec<bool> {
        assert!(self.registers().gate_open, "the normal world is stuck");
        // A region's bounds are pages' bounds: one address speaks for its page.
        (0..pages)
            .map(|page| !self.registers().lets_through(base + page * GRANULE))
            .collect()
    }
}
