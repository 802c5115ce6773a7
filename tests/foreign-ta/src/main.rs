// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trusted application that calls others as it is told, for tests: what
//! Ringfence's own refuse must not depend on what only they know.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the entry points that optee-utee's attributes generate have none"
)]

extern crate alloc;

#[path = "../../src/foreign.rs"]
#[expect(dead_code, reason = "the file is the whole protocol")]
mod foreign;

use core::panic::PanicInfo;

use optee_utee::{
    raw, ta_close_session, ta_create, ta_destroy, ta_invoke_command, ta_open_session, Error,
    ErrorKind, ParamIndex, ParameterAny as Any, ParameterMemrefRead, ParameterValueRead,
    ParametersAny, ParametersNone, Result, TaSessionBuilder, TeeParams, Uuid,
};

#[ta_create]
fn create() -> Result<()> {
    Ok(())
}

#[ta_destroy]
fn destroy() {}

#[ta_open_session]
fn open_session(_: &mut ParametersNone) -> Result<()> {
    Ok(())
}

#[ta_close_session]
fn close_session() {}

#[ta_invoke_command]
fn invoke_command(command: u32, parameters: &mut ParametersAny) -> Result<()> {
    let (
        foreign::CALL,
        (
            Any::MemrefInput(uuid),
            Any::ValueInput(called),
            Any::ValueInput(first),
            Any::ValueInput(second),
        ),
    ) = (command, parameters)
    else {
        return Err(ErrorKind::BadParameters.into());
    };
    let mut bytes = [0; 16];
    if uuid.read_at(0, &mut bytes)? != bytes.len() {
        return Err(ErrorKind::BadParameters.into());
    }
    let mut session = TaSessionBuilder::new(Uuid::from_bytes(bytes)).build()?;
    let mut numbers = TeeParams::new();
    for (index, value) in [(ParamIndex::Arg0, first), (ParamIndex::Arg1, second)] {
        if (value.get_a(), value.get_b()) != (0, 0) {
            numbers = numbers.with_value_in(index, value.get_a(), value.get_b());
        }
    }
    session.invoke_command(called.get_a(), &mut numbers)
}

/// Ends the instance.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: The call has no precondition.
    unsafe { raw::TEE_Panic(Error::from(ErrorKind::Generic).raw_code()) };
    // TEE_Panic() does not return; its declaration does not say so.
    loop {}
}

/// What `optee-utee-build` writes: the TA's head, properties and heap.
mod header {
    #![expect(clippy::undocumented_unsafe_blocks, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/user_ta_header.rs"));
}
