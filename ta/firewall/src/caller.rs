// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may call the firewall, and for what.
//!
//! A caller is one session of a trusted application, which OP-TEE's core names by
//! its UUID. Each session has a number that is never used again. An application
//! of which there are several instances has a session for each, so that the
//! number stands for an address space: that of the instance which opened it.
//!
//! A session does not end before its instance does: ours keep theirs open. If one
//! closed its session all the same its windows would stay where they are, and be
//! busy for everybody, until OP-TEE ends the instance and takes them.

use heapless::Vec;
use ringfence_proto::command::{UseCase, TA_UUID};
use ringfence_proto::decoder::{DECODER_UUID, MAX_SESSIONS};
use ringfence_proto::firewall;

use crate::ledger::Error;

/// Sessions of the Ringfence TA at once. It has one instance with one session,
/// and after a panic the next may come before the last one is gone.
const MAX_RINGFENCE: usize = 4;

/// All sessions at once.
const MAX_CALLERS: usize = MAX_RINGFENCE + MAX_SESSIONS;

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The Ringfence TA, which may do everything.
    Ringfence,
    /// The decoder.
    Decoder,
}

impl Role {
    /// The role of the application with this UUID, in the byte order of RFC 4122.
    pub fn of(uuid: &[u8; 16]) -> Option<Self> {
        match *uuid {
            TA_UUID => Some(Self::Ringfence),
            DECODER_UUID => Some(Self::Decoder),
            _ => None,
        }
    }

    /// Whether it may call a command.
    pub const fn may_call(self, command: u32) -> bool {
        match self {
            Self::Ringfence => true,
            Self::Decoder => matches!(command, firewall::MAP | firewall::UNMAP),
        }
    }

    /// Whether it may map what is for this use.
    pub const fn may_map(self, use_case: UseCase) -> bool {
        match self {
            Self::Ringfence => true,
            Self::Decoder => matches!(use_case, UseCase::SecureVideo),
        }
    }

    const fn most(self) -> usize {
        match self {
            Self::Ringfence => MAX_RINGFENCE,
            Self::Decoder => MAX_SESSIONS,
        }
    }
}

/// Names one session, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerId(u64);

impl CallerId {
    /// The session with this number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Its number, which is never 0.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// One session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Which one.
    pub id: CallerId,
    /// What it is.
    pub role: Role,
}

/// All open sessions.
#[derive(Debug)]
pub struct Callers {
    open: Vec<Caller, MAX_CALLERS>,
    last: u64,
}

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

impl Callers {
    /// None.
    pub const fn new() -> Self {
        Self {
            open: Vec::new(),
            last: 0,
        }
    }

    /// Opens a session for the application with this UUID.
    pub fn open(&mut self, uuid: &[u8; 16]) -> Result<Caller, Error> {
        let role = Role::of(uuid).ok_or(Error::Denied)?;
        let same = self.open.iter().filter(|caller| caller.role == role);
        if same.count() >= role.most() {
            return Err(Error::Crowded);
        }
        self.last += 1;
        let caller = Caller {
            id: CallerId(self.last),
            role,
        };
        self.open.push(caller).map_err(|_| Error::Crowded)?;
        Ok(caller)
    }

    /// The session with this number, if the application with this UUID opened it
    /// and it may call this command.
    pub fn check(&self, id: CallerId, uuid: &[u8; 16], command: u32) -> Result<Caller, Error> {
        self.open
            .iter()
            .copied()
            .find(|caller| caller.id == id)
            .filter(|caller| Role::of(uuid) == Some(caller.role))
            .filter(|caller| caller.role.may_call(command))
            .ok_or(Error::Denied)
    }

    /// Closes a session; nothing happens if there is none.
    pub fn close(&mut self, id: CallerId) {
        self.open.retain(|caller| caller.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: [u8; 16] = [7; 16];

    #[test]
    fn others_are_strangers() {
        let mut callers = Callers::new();
        assert_eq!(callers.open(&FOREIGN), Err(Error::Denied));
        for bit in 0..128 {
            for known in [TA_UUID, DECODER_UUID] {
                let mut uuid = known;
                uuid[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(callers.open(&uuid), Err(Error::Denied));
            }
        }
        assert!(callers.open.is_empty());
    }

    #[test]
    fn the_decoder_maps_and_unmaps_and_no_more() {
        let mut callers = Callers::new();
        let decoder = callers.open(&DECODER_UUID).expect("admitted");
        let ringfence = callers.open(&TA_UUID).expect("admitted");
        for command in 0..=0x100 {
            let mapping = [firewall::MAP, firewall::UNMAP].contains(&command);
            let expected = match mapping {
                true => Ok(decoder),
                false => Err(Error::Denied),
            };
            assert_eq!(callers.check(decoder.id, &DECODER_UUID, command), expected);
            assert_eq!(
                callers.check(ringfence.id, &TA_UUID, command),
                Ok(ringfence)
            );
        }
        for use_case in UseCase::ALL {
            assert!(Role::Ringfence.may_map(use_case));
            assert_eq!(
                Role::Decoder.may_map(use_case),
                use_case == UseCase::SecureVideo
            );
        }
    }

    #[test]
    fn a_session_is_its_openers_until_it_closes() {
        let mut callers = Callers::new();
        let decoder = callers.open(&DECODER_UUID).expect("admitted").id;
        let map = firewall::MAP;
        assert!(callers.check(decoder, &DECODER_UUID, map).is_ok());
        for uuid in [TA_UUID, FOREIGN] {
            assert_eq!(callers.check(decoder, &uuid, map), Err(Error::Denied));
        }
        for raw in [0, decoder.raw() + 1, u64::MAX] {
            let other = CallerId::from_raw(raw);
            let outcome = callers.check(other, &DECODER_UUID, map);
            assert_eq!(outcome, Err(Error::Denied));
            callers.close(other);
        }
        callers.close(decoder);
        let outcome = callers.check(decoder, &DECODER_UUID, map);
        assert_eq!(outcome, Err(Error::Denied));
    }

    #[test]
    fn numbers_are_not_used_again() {
        let mut callers = Callers::new();
        let mut last = 0;
        for _ in 0..100 {
            let caller = callers.open(&DECODER_UUID).expect("admitted");
            assert!(caller.id.raw() > last);
            last = caller.id.raw();
            callers.close(caller.id);
        }
    }

    #[test]
    fn a_crowd_of_decoders_does_not_keep_the_ringfence_ta_out() {
        let mut callers = Callers::new();
        let mut decoders = Vec::<_, MAX_CALLERS>::new();
        while let Ok(decoder) = callers.open(&DECODER_UUID) {
            decoders.push(decoder).expect("a limit");
        }
        assert_eq!(decoders.len(), MAX_SESSIONS);
        assert_eq!(callers.open(&DECODER_UUID), Err(Error::Crowded));
        for _ in 0..MAX_RINGFENCE {
            assert!(callers.open(&TA_UUID).is_ok());
        }
        assert_eq!(callers.open(&TA_UUID), Err(Error::Crowded));
        callers.close(decoders[3].id);
        assert!(callers.open(&DECODER_UUID).is_ok());
    }
}
