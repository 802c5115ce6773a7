// SPDX-License-Identifier: MIT OR Apache-2.0

//! Operations of a random run, and their form in bytes for the fuzzer.

use super::{address, Faults, APPLICATIONS, PAGES, RECORD, RECORD_PAGES};
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
    ProtectRegion,
    ReleaseListed {
        index: usize,
    },
    Name {
        start: u64,
        size: u64,
    },
    Forget {
        start: u64,
        size: u64,
    },
    Scrub {
        start: u64,
        size: u64,
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
    DeviceWrites {
        page: u64,
    },
    TaWrites,
    /// The application that calls panics.
    TaDies,
    /// Another application calls from now on.
    Switch {
        application: usize,
    },
    /// The application that calls closes its session, and opens another.
    Reopen,
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

    /// Mostly a page of the region that is fenced as a whole.
    fn start_inside(&mut self) -> Option<u64> {
        match self.u8()? {
            0 => self.start(),
            _ => Some(address(RECORD + self.u16()? % (RECORD_PAGES + 2))),
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
        Some(match self.u8()? % 22 {
            0..=3 => Operation::Protect {
                start: self.start()?,
                size: self.size()?,
            },
            4 => Operation::Unprotect {
                start: self.start()?,
                size: self.size()?,
            },
            5 | 6 => Operation::ReleaseListed {
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
            13 => Operation::Fail {
                faults: self.faults()?,
            },
            14 | 15 => Operation::ProtectRegion,
            16 | 17 => Operation::Name {
                start: self.start_inside()?,
                size: self.size()?,
            },
            18 => Operation::Forget {
                start: self.start_inside()?,
                size: self.size()?,
            },
            19 => Operation::Scrub {
                start: self.start_inside()?,
                size: self.size()?,
            },
            20 => Operation::DeviceWrites { page: self.u16()? },
            _ => match usize::from(self.u8()?) % (APPLICATIONS + 1) {
                APPLICATIONS => Operation::Reopen,
                application => Operation::Switch { application },
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

/// The writing side, for seeds.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn u16(&mut self, value: u64) {
        self.0.extend((value as u16).to_le_bytes());
    }

    fn page(&mut self, address: u64) {
        // One page below the machine is where this form counts from.
        let page = (address.wrapping_sub(super::BASE) + GRANULE) / GRANULE;
        self.0.push(2);
        self.u16(page);
    }

    fn page_inside(&mut self, address: u64) {
        self.0.push(1);
        self.u16((address - super::BASE) / GRANULE - RECORD);
    }

    fn size(&mut self, size: u64) {
        match size / GRANULE {
            pages @ 1..=20 => {
                self.0.push(2);
                self.u16(pages - 1);
            }
            pages => {
                self.0.push(128);
                self.u16(pages);
            }
        }
    }
}

impl Operation {
    /// Appends the bytes that spell the operation, which must be one that is
    /// made of pages of the machine.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let mut to = Writer(bytes);
        match *self {
            Self::Protect { start, size } => {
                to.0.push(0);
                to.page(start);
                to.size(size);
            }
            Self::Unprotect { start, size } => {
                to.0.push(4);
                to.page(start);
                to.size(size);
            }
            Self::ReleaseListed { index } => to.0.extend([5, index as u8]),
            Self::Map { start, size } => {
                to.0.push(7);
                to.page(start);
                to.size(size);
            }
            Self::MapListed {
                index,
                offset,
                size,
            } => {
                to.0.extend([8, index as u8]);
                to.u16(offset / GRANULE);
                to.size(size);
            }
            Self::Unmap { va, size } => {
                to.0.push(9);
                to.0.extend(va.to_le_bytes());
                to.size(size);
            }
            Self::UnmapWindow { index } => to.0.extend([10, index as u8]),
            Self::NormalWorldWrites { page } => {
                to.0.push(11);
                to.u16(page);
            }
            Self::TaDies => to.0.extend([12, 0]),
            Self::TaWrites => to.0.extend([12, 1]),
            Self::Fail { ref faults } => {
                to.0.push(13);
                match *faults {
                    Faults::None => to.0.push(0),
                    Faults::Nth(n) => to.0.extend([1, n as u8]),
                    Faults::Two(one, other) => to.0.extend([2, one as u8, other as u8]),
                    Faults::From(n) => to.0.extend([3, n as u8]),
                    Faults::Pattern(bits) => {
                        to.0.push(4);
                        to.0.extend(u64::from(bits).to_le_bytes());
                    }
                }
            }
            Self::ProtectRegion => to.0.push(14),
            Self::Name { start, size } => {
                to.0.push(16);
                to.page_inside(start);
                to.size(size);
            }
            Self::Forget { start, size } => {
                to.0.push(18);
                to.page_inside(start);
                to.size(size);
            }
            Self::Scrub { start, size } => {
                to.0.push(19);
                to.page_inside(start);
                to.size(size);
            }
            Self::DeviceWrites { page } => {
                to.0.push(20);
                to.u16(page);
            }
            Self::Switch { application } => to.0.extend([21, application as u8]),
            Self::Reopen => to.0.extend([21, APPLICATIONS as u8]),
        }
    }
}
