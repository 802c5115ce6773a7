// SPDX-License-Identifier: MIT OR Apache-2.0

//! Operations of a random run, and their form in bytes for the fuzzer.

use super::{address, Faults, PAGES};
use ringfence_firewall::extent::GRANULE;

/// What the TA, the normal world or fate may do.
#[derive(Clone, Debug)]
pub enum Operation {
    Protect {
        start: u64,
        size: u64,
    },
    Unprotect {
        start: u64,
        size: u64,
    },
    UnprotectListed {
        index: usize,
    },
    Map {
        start: u64,
        size: u64,
    },
    MapListed {
        index: usize,
        offset: u64,
        size: u64,
    },
    Unmap {
        va: u64,
        size: u64,
    },
    UnmapWindow {
        index: usize,
    },
    NormalWorldWrites {
        page: u64,
    },
    TaWrites,
    TaDies,
    Fail {
        faults: Faults,
    },
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u64> {
        Some(u64::from(u16::from_le_bytes([self.u8()?, self.u8()?])))
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    /// Mostly a page of the machine or right beside; rarely anything at all.
    fn start(&mut self) -> Option<u64> {
        match self.u8()? {
            0 => self.u64(),
            1 => Some(address(self.u16()? % PAGES) + self.u16()?),
            _ => Some(address(self.u16()? % (PAGES + 4)).wrapping_sub(GRANULE)),
        }
    }

    fn size(&mut self) -> Option<u64> {
        match self.u8()? {
            0 => self.u64(),
            1 => self.u16(),
            2..=127 => Some((1 + self.u16()? % 20) * GRANULE),
            _ => Some((self.u16()? % PAGES) * GRANULE),
        }
    }

    fn faults(&mut self) -> Option<Faults> {
        Some(match self.u8()? % 5 {
            0 => Faults::None,
            1 => Faults::Nth(self.u8()?.into()),
            2 => Faults::Two(self.u8()?.into(), self.u8()?.into()),
            3 => Faults::From(self.u8()?.into()),
            _ => Faults::Pattern(self.u64()? as u32),
        })
    }

    fn operation(&mut self) -> Option<Operation> {
        Some(match self.u8()? % 14 {
            0..=3 => Operation::Protect {
                start: self.start()?,
                size: self.size()?,
            },
            4 => Operation::Unprotect {
                start: self.start()?,
                size: self.size()?,
            },
            5 | 6 => Operation::UnprotectListed {
                index: self.u8()?.into(),
            },
            7 => Operation::Map {
                start: self.start()?,
                size: self.size()?,
            },
            8 => Operation::MapListed {
                index: self.u8()?.into(),
                offset: self.u16()? * GRANULE,
                size: self.size()?,
            },
            9 => Operation::Unmap {
                va: self.u64()?,
                size: self.size()?,
            },
            10 => Operation::UnmapWindow {
                index: self.u8()?.into(),
            },
            11 => Operation::NormalWorldWrites { page: self.u16()? },
            12 => match self.u8()? % 4 {
                0 => Operation::TaDies,
                _ => Operation::TaWrites,
            },
            _ => Operation::Fail {
                faults: self.faults()?,
            },
        })
    }
}

impl Operation {
    /// The operations that these bytes spell, until they end.
    pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let mut bytes = Bytes(bytes);
        std::iter::from_fn(move || bytes.operation())
    }
}
