// SPDX-License-Identifier: MIT OR Apache-2.0

//! From parameters to the library, and back.
//!
//! A message is copied out of shared memory once, and only the copy is read.

use optee_utee::{
    trace_println, ParameterAny as Any, ParameterMemrefInput, ParameterMemrefRead,
    ParameterValueInput, ParameterValueOutput, ParameterValueRead, ParameterValueWrite,
    ParametersAny,
};
use ringfence_decoder::job;
use ringfence_decoder::refusal::Refusal;
use ringfence_proto::command::join;
use ringfence_proto::decoder;
use ringfence_proto::message::{self, decode, Decode, Message};

use crate::neighbours::Neighbours;

/// The instance's one session.
#[derive(Default)]
pub struct Session {
    /// The rest of the secure world; there from the session's opening on.
    pub neighbours: Option<Neighbours>,
    /// Whether the next picture is the last.
    #[cfg(feature = "test-commands")]
    doomed: bool,
}

impl Session {
    fn neighbours(&mut self) -> Result<&mut Neighbours, Refusal> {
        self.neighbours.as_mut().ok_or(Refusal::SecureWorld)
    }

    /// What happens when a picture is decoded and still mapped.
    fn last_act(&mut self) -> impl FnOnce() {
        #[cfg(feature = "test-commands")]
        let doomed = core::mem::take(&mut self.doomed);
        move || {
            #[cfg(feature = "test-commands")]
            assert!(!doomed, "asked to");
        }
    }
}

/// Runs one command.
pub fn invoke(
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    match command {
        decoder::DECODE => run(session, parameters),
        #[cfg(feature = "test-commands")]
        decoder::ASK | decoder::HOLD | decoder::DOOM => invoke_test(session, command, parameters),
        _ => Err(Refusal::UnknownCommand),
    }
}

/// DECODE.
fn run(session: &mut Session, parameters: &mut ParametersAny) -> Result<(), Refusal> {
    let (Any::ValueInput(source), Any::MemrefInput(request), Any::ValueOutput(out), Any::None) =
        parameters
    else {
        return Err(Refusal::ParameterTypes);
    };
    set(out, (0, 0));
    let request: Decode = read(request)?;
    let last_act = session.last_act();
    let outcome = job::decode(session.neighbours()?, number(source), &request, last_act);
    if let Err(Refusal::Picture(error)) = outcome {
        trace_println!("{}", error);
    }
    set(out, outcome?);
    Ok(())
}

/// Runs a command of test builds.
#[cfg(feature = "test-commands")]
fn invoke_test(
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    use ringfence_decoder::job::Memory;
    use ringfence_ta::windows::PAGE;

    match (command, parameters) {
        (
            decoder::ASK,
            (Any::ValueInput(asked), Any::ValueInput(first), Any::ValueInput(second), Any::None),
        ) => {
            let numbers = [first, second].map(|value| (value.get_a(), value.get_b()));
            session.neighbours()?.ask(asked.get_a(), numbers)
        }
        (decoder::HOLD, (Any::ValueInput(handle), Any::None, Any::None, Any::None)) => {
            let neighbours = session.neighbours()?;
            let range = neighbours.resolve(number(handle))?;
            neighbours.map(range.start(), PAGE).map(drop)
        }
        (decoder::DOOM, (Any::None, Any::None, Any::None, Any::None)) => {
            session.doomed = true;
            Ok(())
        }
        _ => Err(Refusal::ParameterTypes),
    }
}

/// The 64-bit number in a value parameter.
fn number(value: &ParameterValueInput) -> u64 {
    join(value.get_a(), value.get_b())
}

/// Answers a value.
fn set(out: &mut ParameterValueOutput, (a, b): (u32, u32)) {
    out.set_a(a);
    out.set_b(b);
}

/// Copies a message out of shared memory, and reads the copy.
fn read<M: Message>(memref: &ParameterMemrefInput) -> Result<M, Refusal> {
    // One byte more than any message has: what is too long stays too long.
    let mut copy = [0; message::LARGEST + 1];
    let length = memref
        .read_at(0, &mut copy)
        .map_err(|error| Refusal::Tee(error.raw_code()))?;
    let bytes = copy.get(..length).ok_or(Refusal::ParameterTypes)?;
    Ok(decode(bytes)?)
}
