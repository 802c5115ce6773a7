// SPDX-License-Identifier: GPL-2.0

//! The trusted application's commands for the kernel, as functions.

use kernel::prelude::*;
use ringfence_core::{
    attachment::PhysRange,
    inject::{
        self,
        Point, //
    },
    tee::{
        Failure,
        Param,
        Session,
        SharedMemory, //
    }, //
};

use crate::command::{
    self,
    join,
    result,
    split,
    RangeRecord, //
};

/// Records that the first LIST has room for.
const RECORDS: usize = 64;

/// More records than any secure world has; a larger answer is not believed.
const MAX_RECORDS: usize = 1 << 16;

/// An open session with the trusted application.
pub(crate) struct Application {
    session: Session,
    abilities: Abilities,
}

/// What the firewall under the trusted application can do.
#[derive(Clone, Copy)]
pub(crate) struct Abilities {
    /// Bytes: the unit in which memory is fenced; a power of two.
    pub(crate) granule: u64,
    /// How many separate stretches can be fenced at once; `None` for as many as the
    /// application takes.
    pub(crate) windows: Option<u32>,
}

impl Application {
    /// Opens a session, and makes sure that both sides speak alike.
    ///
    /// # Errors
    ///
    /// `EPROTO` when they do not, and those of [`Session::open`].
    pub(crate) fn open() -> Result<Self, Failure> {
        let session = Session::open(&command::TA_UUID)?;
        let mut this = Self {
            session,
            abilities: Abilities {
                granule: 0,
                windows: None,
            },
        };
        // Nothing else may be asked before the version is known.
        let (version, _) = this.greet()?;
        if version != command::PROTOCOL_VERSION {
            pr_err!(
                "the trusted application speaks version {}, this module version {}\n",
                version,
                command::PROTOCOL_VERSION
            );
            return Err(EPROTO.into());
        }
        this.abilities = this.ask_abilities()?;
        Ok(this)
    }

    fn ask_abilities(&self) -> Result<Abilities, Failure> {
        let mut params = [Param::ValueOut(0, 0), Param::None, Param::None, Param::None];
        self.session.invoke(command::ABILITIES, &mut params)?;
        let Param::ValueOut(granule, windows) = params[0] else {
            return Err(EPROTO.into());
        };
        if !granule.is_power_of_two() {
            pr_err!("the firewall's granule is {:#x}\n", granule);
            return Err(EPROTO.into());
        }
        Ok(Abilities {
            granule: granule.into(),
            windows: (windows != 0).then_some(windows),
        })
    }

    /// The protocol's version and the granule in bytes: an answer at all says that
    /// the session lives.
    ///
    /// # Errors
    ///
    /// `EPROTO` when the answer makes no sense.
    pub(crate) fn greet(&self) -> Result<(u32, u32), Failure> {
        let mut params = [Param::ValueOut(0, 0), Param::None, Param::None, Param::None];
        self.session.invoke(command::HELLO, &mut params)?;
        match params[0] {
            Param::ValueOut(version, granule) => Ok((version, granule)),
            _ => Err(EPROTO.into()),
        }
    }

    /// What the firewall can do.
    pub(crate) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Fences a range off, and answers its handle.
    ///
    /// # Errors
    ///
    /// Whatever it is, only [`Self::list`] knows how the range stands then.
    pub(crate) fn protect(&self, range: PhysRange) -> Result<u64, Failure> {
        self.handle_of(command::PROTECT, range)
    }

    /// Makes a part of a fenced region known, and answers its handle.
    ///
    /// # Errors
    ///
    /// As [`Self::protect`].
    pub(crate) fn name(&self, part: PhysRange) -> Result<u64, Failure> {
        self.handle_of(command::NAME, part)
    }

    /// Has a stretch of a fenced region zeroed, in which no part is known.
    ///
    /// # Errors
    ///
    /// The secure world's; some of it may be zeroed.
    pub(crate) fn scrub(&self, stretch: PhysRange) -> Result<(), Failure> {
        let mut params = [
            value(stretch.start),
            value(stretch.size),
            Param::None,
            Param::None,
        ];
        self.session.invoke(command::SCRUB, &mut params)
    }

    /// Calls a command that answers a range's handle.
    fn handle_of(&self, command: u32, range: PhysRange) -> Result<u64, Failure> {
        let mut params = [
            value(range.start),
            value(range.size),
            Param::ValueOut(0, 0),
            Param::None,
        ];
        self.session.invoke(command, &mut params)?;
        match params[2] {
            Param::ValueOut(high, low) if join(high, low) != command::NO_HANDLE => {
                Ok(join(high, low))
            }
            _ => Err(EPROTO.into()),
        }
    }

    /// Has a range zeroed and opened, or a part of a region zeroed and forgotten.
    ///
    /// # Errors
    ///
    /// `BUSY` while a content command has it mapped; see also [`Self::protect`].
    pub(crate) fn unprotect(&self, handle: u64) -> Result<(), Failure> {
        inject::check(Point::Busy).map_err(|_| Failure::Answer(result::BUSY))?;
        let mut params = [value(handle), Param::None, Param::None, Param::None];
        self.session.invoke(command::UNPROTECT, &mut params)
    }

    /// The protected ranges, in no particular order.
    ///
    /// # Errors
    ///
    /// `EPROTO` when the answer makes no sense; `ENOMEM`.
    pub(crate) fn list(&self) -> Result<KVVec<RangeRecord>, Failure> {
        let mut room = RECORDS;
        // The list may grow between two calls, but not for ever.
        for _ in 0..4 {
            let memory = SharedMemory::new(&self.session, room * RangeRecord::SIZE)?;
            let mut params = [
                Param::MemoryOut(&memory, room * RangeRecord::SIZE),
                Param::ValueOut(0, 0),
                Param::None,
                Param::None,
            ];
            let answer = self.session.invoke(command::LIST, &mut params);
            let [Param::MemoryOut(_, size), Param::ValueOut(count, _), ..] = params else {
                return Err(EPROTO.into());
            };
            match answer {
                Ok(()) => return parse(&memory, size, count),
                Err(Failure::Answer(result::SHORT_BUFFER)) => {
                    room = size.div_ceil(RangeRecord::SIZE).max(room + 1);
                    if room > MAX_RECORDS {
                        return Err(EPROTO.into());
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(EAGAIN.into())
    }
}

fn parse(memory: &SharedMemory, size: usize, count: u32) -> Result<KVVec<RangeRecord>, Failure> {
    if size != count as usize * RangeRecord::SIZE {
        return Err(EPROTO.into());
    }
    let bytes = memory.copy(size)?;
    let mut records = KVVec::with_capacity(count as usize, GFP_KERNEL).map_err(Error::from)?;
    for record in RangeRecord::parse(&bytes) {
        records.push(record, GFP_KERNEL).map_err(Error::from)?;
    }
    Ok(records)
}

fn value(number: u64) -> Param<'static> {
    let (high, low) = split(number);
    Param::ValueIn(high, low)
}
