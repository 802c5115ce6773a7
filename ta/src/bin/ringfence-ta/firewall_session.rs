// SPDX-License-Identifier: MIT OR Apache-2.0

//! The session to the firewall, the pseudo-TA in OP-TEE's core.

use core::ptr::NonNull;

use alloc::vec::Vec;
use optee_utee::{ParamIndex, TaSession, TeeParams};
#[cfg(feature = "test-commands")]
use ringfence_proto::command::join;
use ringfence_proto::firewall::{self, LedgerRecord, MAX_RANGES};
use ringfence_ta::entry::{self, numbers};
#[cfg(feature = "test-commands")]
use ringfence_ta::firewall::Costs;
use ringfence_ta::firewall::{Firewall, FirewallInfo};
use ringfence_ta::refusal::Refusal;
use ringfence_ta::windows::Range;

/// A session to the firewall, opened when it is first needed, and kept.
pub struct FirewallSession {
    session: Option<TaSession>,
}

impl FirewallSession {
    /// No session yet.
    pub const fn new() -> Self {
        Self { session: None }
    }

    fn session(&mut self) -> Result<&mut TaSession, Refusal> {
        Ok(match &mut self.session {
            Some(session) => session,
            none => none.insert(entry::open(firewall::FIREWALL_UUID)?),
        })
    }

    fn invoke(&mut self, command: u32, parameters: &mut TeeParams) -> Result<(), Refusal> {
        Ok(self.session()?.invoke_command(command, parameters)?)
    }
}

/// The value that the firewall has put into an output parameter.
fn output(parameters: &TeeParams, index: ParamIndex) -> Result<(u32, u32), Refusal> {
    parameters[index].output_value().ok_or(Refusal::Firewall)
}

// SAFETY: `entry::map()` promises a fresh mapping of `size` bytes that overlaps
// nothing, readable and writable until `entry::unmap()`.
unsafe impl Firewall for FirewallSession {
    fn info(&mut self) -> Result<FirewallInfo, Refusal> {
        let mut parameters = TeeParams::new()
            .with_value_out(ParamIndex::Arg0, 0, 0)
            .with_value_out(ParamIndex::Arg1, 0, 0)
            .with_value_out(ParamIndex::Arg2, 0, 0);
        self.invoke(firewall::INFO, &mut parameters)?;
        let (granule, window) = output(&parameters, ParamIndex::Arg0)?;
        let (protocol, regions) = output(&parameters, ParamIndex::Arg1)?;
        let (windows, _) = output(&parameters, ParamIndex::Arg2)?;
        Ok(FirewallInfo {
            granule,
            window,
            protocol,
            regions,
            windows,
        })
    }

    fn protect(&mut self, range: Range) -> Result<(u32, u32), Refusal> {
        let mut parameters =
            numbers(range.start(), range.size()).with_value_out(ParamIndex::Arg2, 0, 0);
        self.invoke(firewall::PROTECT, &mut parameters)?;
        output(&parameters, ParamIndex::Arg2)
    }

    fn unprotect(&mut self, range: Range) -> Result<(), Refusal> {
        self.invoke(
            firewall::UNPROTECT,
            &mut numbers(range.start(), range.size()),
        )
    }

    fn name(&mut self, part: Range) -> Result<u32, Refusal> {
        let mut parameters =
            numbers(part.start(), part.size()).with_value_out(ParamIndex::Arg2, 0, 0);
        self.invoke(firewall::NAME, &mut parameters)?;
        let (use_case, _) = output(&parameters, ParamIndex::Arg2)?;
        Ok(use_case)
    }

    fn forget(&mut self, part: Range) -> Result<(), Refusal> {
        self.invoke(firewall::FORGET, &mut numbers(part.start(), part.size()))
    }

    fn scrub(&mut self, stretch: Range) -> Result<(), Refusal> {
        self.invoke(
            firewall::SCRUB,
            &mut numbers(stretch.start(), stretch.size()),
        )
    }

    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal> {
        entry::map(self.session()?, start, size)?.ok_or(Refusal::Firewall)
    }

    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal> {
        // SAFETY: the same contract.
        Ok(unsafe { entry::unmap(self.session()?, address, size) }?)
    }

    fn list(&mut self, each: &mut dyn FnMut(LedgerRecord)) -> Result<(), Refusal> {
        const SIZE: usize = MAX_RANGES * LedgerRecord::SIZE;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(SIZE).map_err(|_| Refusal::Full)?;
        buffer.resize(SIZE, 0);
        let mut parameters = TeeParams::new()
            .with_memref_out(ParamIndex::Arg0, &mut buffer)
            .with_value_out(ParamIndex::Arg1, 0, 0);
        self.invoke(firewall::LIST, &mut parameters)?;
        let (count, _) = output(&parameters, ParamIndex::Arg1)?;
        let records = parameters[ParamIndex::Arg0]
            .written_slice()
            .ok_or(Refusal::Firewall)?;
        if usize::try_from(count) != Ok(records.len() / LedgerRecord::SIZE) {
            return Err(Refusal::Firewall);
        }
        LedgerRecord::parse(records).for_each(each);
        Ok(())
    }

    #[cfg(feature = "test-commands")]
    fn meter(&mut self) -> Result<Costs, Refusal> {
        let mut parameters = TeeParams::new()
            .with_value_out(ParamIndex::Arg0, 0, 0)
            .with_value_out(ParamIndex::Arg1, 0, 0)
            .with_value_out(ParamIndex::Arg2, 0, 0)
            .with_value_out(ParamIndex::Arg3, 0, 0);
        self.invoke(firewall::METER, &mut parameters)?;
        let (calls, scrubs) = output(&parameters, ParamIndex::Arg0)?;
        let ticks = |index| output(&parameters, index).map(|(high, low)| join(high, low));
        Ok(Costs {
            calls,
            scrubs,
            firmware: ticks(ParamIndex::Arg1)?,
            scrubbing: ticks(ParamIndex::Arg2)?,
            zeroing: ticks(ParamIndex::Arg3)?,
        })
    }

    #[cfg(feature = "test-commands")]
    fn inject(&mut self, point: u32, nth: u32) -> Result<(), Refusal> {
        let mut parameters = TeeParams::new().with_value_in(ParamIndex::Arg0, point, nth);
        self.invoke(firewall::INJECT, &mut parameters)
    }
}
