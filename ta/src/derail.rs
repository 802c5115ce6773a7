// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands that go wrong on purpose, in test builds of the trusted
//! application: what a client sees of a refusal, a lost answer or a panic at
//! any command can be tested without a bug that causes it.

use ringfence_proto::command::derailment;

use crate::refusal::Refusal;

/// How the next call of a command goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Refuse(u32),
    Deny(u32),
    PanicBefore,
    PanicAfter,
}

/// What is armed: at most one command, once.
#[derive(Debug, Default)]
pub struct Derailment {
    armed: Option<(u32, Way)>,
}

impl Derailment {
    /// Nothing is armed.
    pub const fn new() -> Self {
        Self { armed: None }
    }

    /// DERAIL: arms, instead of what was armed before; command 0 disarms.
    ///
    /// # Errors
    ///
    /// [`Refusal::OutOfBounds`] for an unknown way, and for a result code that
    /// would tell of success.
    pub fn arm(&mut self, command: u32, way: u32, code: u32) -> Result<(), Refusal> {
        if command == 0 {
            self.armed = None;
            return Ok(());
        }
        let way = match (way, code) {
            (derailment::REFUSE | derailment::DENY, 0) => return Err(Refusal::OutOfBounds),
            (derailment::REFUSE, code) => Way::Refuse(code),
            (derailment::DENY, code) => Way::Deny(code),
            (derailment::PANIC_BEFORE, _) => Way::PanicBefore,
            (derailment::PANIC_AFTER, _) => Way::PanicAfter,
            _ => return Err(Refusal::OutOfBounds),
        };
        self.armed = Some((command, way));
        Ok(())
    }

    /// A command begins: how its end goes wrong.
    ///
    /// # Errors
    ///
    /// The refusal that was armed.
    ///
    /// # Panics
    ///
    /// If that was armed.
    pub fn begin(&mut self, command: u32) -> Result<Ending, Refusal> {
        let way = match self.armed {
            Some((armed, way)) if armed == command => way,
            _ => return Ok(Ending(None)),
        };
        self.armed = None;
        match way {
            Way::Refuse(code) => Err(Refusal::Tee(code)),
            Way::PanicBefore => panic!("armed before command {command:#x}"),
            Way::Deny(_) | Way::PanicAfter => Ok(Ending(Some(way))),
        }
    }
}

/// How a command that has begun ends.
#[derive(Debug)]
#[must_use]
pub struct Ending(Option<Way>);

impl Ending {
    /// What the client is told.
    ///
    /// # Errors
    ///
    /// The command's own refusal, or the one that was armed.
    ///
    /// # Panics
    ///
    /// If that was armed.
    pub fn answer(self, outcome: Result<(), Refusal>) -> Result<(), Refusal> {
        match self.0 {
            Some(Way::Deny(code)) => Err(Refusal::Tee(code)),
            Some(Way::PanicAfter) => panic!("armed after a command: {outcome:?}"),
            _ => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_proto::command::{LIST, PROTECT};

    const CODE: u32 = 0xffff_000c;

    fn armed(way: u32) -> Derailment {
        let mut derailment = Derailment::new();
        assert_eq!(derailment.arm(PROTECT, way, CODE), Ok(()));
        derailment
    }

    #[test]
    fn another_command_is_not_touched() {
        let mut derailment = armed(derailment::REFUSE);
        let ending = derailment.begin(LIST).expect("not armed");
        assert_eq!(ending.answer(Ok(())), Ok(()));
        assert_eq!(derailment.begin(PROTECT).err(), Some(Refusal::Tee(CODE)));
    }

    #[test]
    fn it_goes_wrong_once() {
        let mut derailment = armed(derailment::DENY);
        let ending = derailment.begin(PROTECT).expect("begins");
        assert_eq!(ending.answer(Ok(())), Err(Refusal::Tee(CODE)));
        let ending = derailment.begin(PROTECT).expect("disarmed");
        assert_eq!(ending.answer(Ok(())), Ok(()));
    }

    #[test]
    #[should_panic(expected = "armed before")]
    fn it_panics_before_the_command() {
        let _ = armed(derailment::PANIC_BEFORE).begin(PROTECT);
    }

    #[test]
    #[should_panic(expected = "armed after")]
    fn it_panics_after_the_command() {
        let ending = armed(derailment::PANIC_AFTER).begin(PROTECT);
        let _ = ending.expect("begins").answer(Ok(()));
    }

    #[test]
    fn success_and_unknown_ways_are_not_armed() {
        let mut derailment = armed(derailment::REFUSE);
        for (way, code) in [(0, CODE), (5, CODE), (1, 0), (2, 0)] {
            assert_eq!(
                derailment.arm(LIST, way, code),
                Err(Refusal::OutOfBounds),
                "{way}"
            );
        }
        assert_eq!(derailment.arm(0, 0, 0), Ok(()));
        assert!(derailment.begin(PROTECT).is_ok());
    }
}
