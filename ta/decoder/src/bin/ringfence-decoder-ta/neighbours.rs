// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sessions with the rest of the secure world: the firewall, which maps, and
//! the other trusted application, which knows what handles name.

use core::ptr::NonNull;

use optee_utee::{ParamIndex, TaSession, TeeParams};
use ringfence_decoder::job::Memory;
use ringfence_decoder::refusal::Refusal;
use ringfence_proto::command::{self, result, split};
use ringfence_proto::firewall;
use ringfence_ta::entry;
use ringfence_ta::windows::Range;

/// Both sessions.
pub struct Neighbours {
    firewall: TaSession,
    /// Opened when it is first needed, and again when the other application has
    /// died.
    application: Option<TaSession>,
}

/// The number that a neighbour has put into an output parameter.
fn output(parameters: &TeeParams, index: ParamIndex) -> Result<u64, Refusal> {
    entry::output(parameters, index).ok_or(Refusal::SecureWorld)
}

impl Neighbours {
    /// Opens the session with the firewall.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`], also when there are too many decoders already.
    pub fn open() -> Result<Self, Refusal> {
        Ok(Self {
            firewall: entry::open(firewall::FIREWALL_UUID)?,
            application: None,
        })
    }

    /// Calls any command of the firewall.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] with the firewall's result.
    #[cfg(feature = "test-commands")]
    pub fn ask(&mut self, command: u32, numbers: [(u32, u32); 2]) -> Result<(), Refusal> {
        let mut parameters = TeeParams::new().with_value_out(ParamIndex::Arg2, 0, 0);
        for (index, (a, b)) in [ParamIndex::Arg0, ParamIndex::Arg1]
            .into_iter()
            .zip(numbers)
        {
            if (a, b) != (0, 0) {
                parameters = parameters.with_value_in(index, a, b);
            }
        }
        Ok(self.firewall.invoke_command(command, &mut parameters)?)
    }

    fn try_resolve(&mut self, handle: u64) -> Result<Range, Refusal> {
        let session = match &mut self.application {
            Some(session) => session,
            none => none.insert(entry::open(command::TA_UUID)?),
        };
        let (high, low) = split(handle);
        let mut parameters = TeeParams::new()
            .with_value_in(ParamIndex::Arg0, high, low)
            .with_value_out(ParamIndex::Arg1, 0, 0)
            .with_value_out(ParamIndex::Arg2, 0, 0);
        session.invoke_command(command::RESOLVE, &mut parameters)?;
        let start = output(&parameters, ParamIndex::Arg1)?;
        let size = output(&parameters, ParamIndex::Arg2)?;
        Range::new(start, size).ok_or(Refusal::SecureWorld)
    }
}

// SAFETY: `entry::map()` promises a fresh mapping of `size` bytes that overlaps
// nothing, readable and writable until `entry::unmap()`. The firewall opens no
// range to the normal world that is mapped, and maps none for anybody else.
unsafe impl Memory for Neighbours {
    fn resolve(&mut self, handle: u64) -> Result<Range, Refusal> {
        match self.try_resolve(handle) {
            Err(Refusal::Tee(result::TARGET_DEAD)) => {
                self.application = None;
                self.try_resolve(handle)
            }
            outcome => outcome,
        }
    }

    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal> {
        entry::map(&mut self.firewall, start, size)?.ok_or(Refusal::SecureWorld)
    }

    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal> {
        // SAFETY: the same contract.
        Ok(unsafe { entry::unmap(&mut self.firewall, address, size) }?)
    }
}
