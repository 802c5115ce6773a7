// SPDX-License-Identifier: MIT OR Apache-2.0

//! The decoder: entry points of OP-TEE's TA framework around the library.
//!
//! Each session has an instance of its own.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the entry points that optee-utee's attributes generate have none"
)]

extern crate alloc;

mod dispatch;
mod neighbours;

use core::panic::PanicInfo;

use optee_utee::{
    raw, ta_close_session, ta_create, ta_destroy, ta_invoke_command, ta_open_session,
    trace_println, Error, ParametersAny, ParametersNone, Result,
};
use ringfence_decoder::refusal::Refusal;
use ringfence_proto::command::result;

use dispatch::Session;
use neighbours::Neighbours;

/// The error that tells the client of a refusal.
fn error(refusal: Refusal) -> Error {
    Error::from_raw_error(refusal.code())
}

#[ta_create]
fn create() -> Result<()> {
    Ok(())
}

#[ta_destroy]
fn destroy() {}

/// Opens a session with the firewall at once: it limits how many decoders there
/// are, each of which takes memory.
#[ta_open_session]
fn open_session(_: &mut ParametersNone, session: &mut Session) -> Result<()> {
    session.neighbours = Some(Neighbours::open().map_err(error)?);
    Ok(())
}

/// What the session had goes with its instance.
#[ta_close_session]
fn close_session(_: &mut Session) {}

#[ta_invoke_command]
fn invoke_command(
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<()> {
    dispatch::invoke(session, command, parameters).map_err(error)
}

/// Says on the secure console where it happened, then ends the instance, and with
/// it the one session that it served.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    trace_println!("{}", info);
    // SAFETY: The call has no precondition.
    unsafe { raw::TEE_Panic(result::GENERIC) };
    // TEE_Panic() does not return; its declaration does not say so.
    loop {}
}

/// What `optee-utee-build` writes: the TA's head, properties and heap.
mod header {
    #![expect(clippy::undocumented_unsafe_blocks, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/user_ta_header.rs"));
}
