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

use optee_utee::{
    ta_close_session, ta_create, ta_destroy, ta_invoke_command, ta_open_session, Error,
    ParametersAny, ParametersNone, Result,
};
use ringfence_decoder::refusal::Refusal;

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

/// What the session had goes with its instance; so it does when that panics.
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

/// What `optee-utee-build` writes: the TA's head, properties and heap.
mod header {
    #![expect(clippy::undocumented_unsafe_blocks, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/user_ta_header.rs"));
}
