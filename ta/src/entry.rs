// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the entry points of this application and of the decoder share:
//! parameters, sessions with the rest of the secure world, and the end by a
//! panic.
//!
//! A message is copied out of shared memory once, and only the copy is read.

use core::panic::PanicInfo;
use core::ptr::NonNull;

use optee_utee::{
    raw, trace_println, Error, ParamIndex, ParameterMemrefInput, ParameterMemrefRead,
    ParameterValueInput, ParameterValueOutput, ParameterValueRead, ParameterValueWrite, TaSession,
    TaSessionBuilder, TeeParams, Uuid,
};
use ringfence_proto::command::{join, result, split};
use ringfence_proto::firewall;
use ringfence_proto::message::{self, decode, DecodeError, Message};

use crate::refusal::Refusal;

impl From<Error> for Refusal {
    /// Hands on what OP-TEE, or another application, says.
    fn from(error: Error) -> Self {
        Self::Tee(error.raw_code())
    }
}

/// The 64-bit number in a value.
pub fn number(value: &ParameterValueInput) -> u64 {
    join(value.get_a(), value.get_b())
}

/// Puts a pair into a value.
pub fn set(value: &mut ParameterValueOutput, (a, b): (u32, u32)) {
    value.set_a(a);
    value.set_b(b);
}

/// Copies a message out of shared memory, then reads the copy.
///
/// # Errors
///
/// What [`decode`] says, also of a message that is too long.
pub fn read<M: Message>(memref: &ParameterMemrefInput) -> Result<M, DecodeError> {
    // One byte more than any message has: what is too long stays too long.
    let mut copy = [0; message::LARGEST + 1];
    // No memory reference ends before its start, the one thing that can be wrong.
    let length = memref
        .read_at(0, &mut copy)
        .map_err(|_| DecodeError::Malformed)?;
    decode(copy.get(..length).unwrap_or(&copy))
}

/// Opens a session with another application.
///
/// # Errors
///
/// What OP-TEE or the other application says.
pub fn open(uuid: [u8; 16]) -> Result<TaSession, Error> {
    TaSessionBuilder::new(Uuid::from_bytes(uuid)).build()
}

/// Parameters that begin with two 64-bit numbers.
pub fn numbers<'a>(first: u64, second: u64) -> TeeParams<'a> {
    let (first_high, first_low) = split(first);
    let (second_high, second_low) = split(second);
    TeeParams::new()
        .with_value_in(ParamIndex::Arg0, first_high, first_low)
        .with_value_in(ParamIndex::Arg1, second_high, second_low)
}

/// The 64-bit number that another application has put into an output, if that
/// is a value.
pub fn output(parameters: &TeeParams, index: ParamIndex) -> Option<u64> {
    let (high, low) = parameters[index].output_value()?;
    Some(join(high, low))
}

/// Has the firewall map memory: `size` bytes at physical address `start`.
///
/// The mapping is a fresh one in this instance's address space, readable and
/// writable, at an address that core's `vm_map()` found free, so that it overlaps
/// nothing. Only [`unmap`] ends it. `None` if the firewall breaks its protocol.
///
/// # Errors
///
/// What the firewall says.
pub fn map(firewall: &mut TaSession, start: u64, size: u64) -> Result<Option<NonNull<u8>>, Error> {
    let mut parameters = numbers(start, size).with_value_out(ParamIndex::Arg2, 0, 0);
    firewall.invoke_command(firewall::MAP, &mut parameters)?;
    Ok(output(&parameters, ParamIndex::Arg2)
        .and_then(|address| usize::try_from(address).ok())
        .and_then(|address| NonNull::new(core::ptr::with_exposed_provenance_mut(address))))
}

/// Has the firewall take back what [`map`] returned for the same size.
///
/// # Errors
///
/// What the firewall says; it stays mapped then.
///
/// # Safety
///
/// Nothing may touch the bytes any more.
pub unsafe fn unmap(
    firewall: &mut TaSession,
    address: NonNull<u8>,
    size: u64,
) -> Result<(), Error> {
    let address = address.as_ptr().expose_provenance() as u64;
    firewall.invoke_command(firewall::UNMAP, &mut numbers(address, size))
}

/// Says on the secure console where it happened, then ends the instance, and with
/// it its sessions.
///
/// OP-TEE unmaps and zeroes all that the instance had. Ranges stay protected, in
/// the firewall's ledger.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    trace_println!("{}", info);
    // SAFETY: the call has no precondition.
    unsafe { raw::TEE_Panic(result::GENERIC) };
    // TEE_Panic() does not return; its declaration does not say so.
    loop {}
}
