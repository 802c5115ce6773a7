// SPDX-License-Identifier: MIT OR Apache-2.0

//! From parameters to the library, and back.

use optee_utee::{trace_println, ParameterAny as Any, ParametersAny};
use ringfence_decoder::job;
use ringfence_decoder::refusal::Refusal;
use ringfence_proto::decoder;
use ringfence_proto::message::Decode;
use ringfence_ta::entry::{number, read, set};

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
    use optee_utee::ParameterValueRead;
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
