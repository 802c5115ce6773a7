// SPDX-License-Identifier: MIT OR Apache-2.0

//! The trusted application's commands, rightly and wrongly used.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use optee_teec::{
    Context, Operation, Param, ParamNone, ParamTmpRef, ParamType, ParamValue, Session, Uuid,
};
use ringfence::proto::command::{self, join, split};
use ringfence::proto::message::{
    self, Decrypt, DecryptSample, DigestRequest, Licence, Message, Provision,
};

/// A result code of the TEE other than success.
pub type Code = u32;

/// A session of this program, with the login of anybody.
pub struct Ta(Session);

/// What the firewall's work has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Calls of the firmware.
    pub firmware_calls: u32,
    /// Blocks of 2 MiB, or parts of them, that were zeroed.
    pub scrubs: u32,
    /// Ticks of the counter in the firmware.
    pub firmware: u64,
    /// Ticks for zeroing, with the windows to do it through.
    pub scrubbing: u64,
    /// Ticks of these in the bare zeroing loop.
    pub zeroing: u64,
}

/// A 64-bit number for the trusted application.
pub fn number(value: u64) -> ParamValue {
    let (high, low) = split(value);
    ParamValue::new(high, low, ParamType::ValueInput)
}

/// Room for a number from the trusted application.
pub fn answer() -> ParamValue {
    ParamValue::new(0, 0, ParamType::ValueOutput)
}

/// Bytes for the trusted application.
pub fn bytes(bytes: &[u8]) -> ParamTmpRef<'_> {
    ParamTmpRef::new_input(bytes)
}

/// An encoded message.
pub fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let mut buffer = vec![0; M::MAX_SIZE];
    let length = message::encode(message, &mut buffer)
        .expect("MAX_SIZE bytes suffice for every message")
        .len();
    buffer.truncate(length);
    buffer
}

/// The message in a file that the host has prepared.
pub fn message<M: Message>(file: &Path) -> anyhow::Result<M> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    message::decode(&bytes).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

impl Ta {
    /// Opens a session to Ringfence's trusted application.
    pub fn open() -> anyhow::Result<Self> {
        Self::of(command::TA_UUID)
            .map_err(|code| anyhow::anyhow!("no session to the trusted application: {code:#010x}"))
    }

    /// Tries to open a session to any trusted application.
    pub fn of(uuid: [u8; 16]) -> Result<Self, Code> {
        let mut context = Context::new().map_err(|error| error.raw_code())?;
        context
            .open_session(Uuid::from_bytes(uuid))
            .map(Self)
            .map_err(|error| error.raw_code())
    }

    /// Calls any command with any parameters.
    pub fn invoke<A: Param, B: Param, C: Param, D: Param>(
        &mut self,
        command: u32,
        a: A,
        b: B,
        c: C,
        d: D,
    ) -> Result<(A, B, C, D), Code> {
        let mut operation = Operation::new(0, a, b, c, d);
        self.0
            .invoke_command(command, &mut operation)
            .map_err(|error| error.raw_code())?;
        Ok(operation.parameters())
    }

    /// Calls a command without parameters.
    pub fn bare(&mut self, command: u32) -> Result<(), Code> {
        self.invoke(command, ParamNone, ParamNone, ParamNone, ParamNone)
            .map(drop)
    }

    /// Sends a message.
    fn send(&mut self, command: u32, message: &impl Message) -> Result<(), Code> {
        let message = encoded(message);
        self.invoke(command, bytes(&message), ParamNone, ParamNone, ParamNone)
            .map(drop)
    }

    /// Has content written to a buffer, as a message says.
    fn write(
        &mut self,
        command: u32,
        handle: u64,
        message: &impl Message,
        content: &[u8],
    ) -> Result<u64, Code> {
        let message = encoded(message);
        let (.., written) = self.invoke(
            command,
            number(handle),
            bytes(&message),
            bytes(content),
            answer(),
        )?;
        Ok(join(written.a(), written.b()))
    }

    /// Brings a device key.
    pub fn provision(&mut self, provision: &Provision) -> Result<(), Code> {
        self.send(command::PROVISION, provision)
    }

    /// Loads a licence.
    pub fn load_licence(&mut self, licence: &Licence) -> Result<(), Code> {
        self.send(command::LOAD_LICENCE, licence)
    }

    /// Makes the trusted application forget what it has read of secure storage (test
    /// builds).
    pub fn forget(&mut self) -> Result<(), Code> {
        self.bare(command::FORGET)
    }

    /// Decrypts one piece.
    pub fn decrypt(
        &mut self,
        handle: u64,
        request: &Decrypt,
        ciphertext: &[u8],
    ) -> Result<u64, Code> {
        self.write(command::DECRYPT, handle, request, ciphertext)
    }

    /// Decrypts a sample, or a piece of one.
    pub fn decrypt_sample(
        &mut self,
        handle: u64,
        request: &DecryptSample,
        sample: &[u8],
    ) -> Result<u64, Code> {
        self.write(command::DECRYPT_SAMPLE, handle, request, sample)
    }

    /// Runs AES-CTR over so many bytes of the application's own memory (test
    /// builds).
    pub fn cipher(&mut self, length: u32) -> Result<(), Code> {
        self.invoke(
            command::CIPHER,
            ParamValue::new(length, 0, ParamType::ValueInput),
            ParamNone,
            ParamNone,
            ParamNone,
        )
        .map(drop)
    }

    /// A keyed digest of what a buffer holds (test builds).
    pub fn digest(&mut self, handle: u64, request: &DigestRequest) -> Result<[u8; 32], Code> {
        let mut digest = [0; command::DIGEST_SIZE];
        let message = encoded(request);
        self.invoke(
            command::DIGEST,
            number(handle),
            bytes(&message),
            ParamTmpRef::new_output(&mut digest),
            ParamNone,
        )?;
        Ok(digest)
    }

    /// Makes the trusted application panic (test builds); the result that the
    /// caller sees of it.
    pub fn panic(&mut self) -> Result<(), Code> {
        self.bare(command::PANIC)
    }

    /// Keeps a part of a buffer mapped in the trusted application (test builds),
    /// as a content command does while it works, until [`Self::let_go`] or the
    /// end of this session.
    pub fn hold(&mut self, handle: u64, offset: u64, length: u64) -> Result<(), Code> {
        self.invoke(
            command::HOLD,
            number(handle),
            number(offset),
            number(length),
            ParamNone,
        )
        .map(drop)
    }

    /// Fills a buffer with a byte (test builds), whatever its use case.
    pub fn fill(&mut self, handle: u64, byte: u8) -> Result<(), Code> {
        self.invoke(
            command::FILL,
            number(handle),
            ParamValue::new(byte.into(), 0, ParamType::ValueInput),
            ParamNone,
            ParamNone,
        )
        .map(drop)
    }

    /// What the firewall's work has cost since this was last asked (test builds).
    pub fn meter(&mut self) -> Result<Costs, Code> {
        let (counts, firmware, scrubbing, zeroing) =
            self.invoke(command::METER, answer(), answer(), answer(), answer())?;
        let ticks = |value: ParamValue| join(value.a(), value.b());
        Ok(Costs {
            firmware_calls: counts.a(),
            scrubs: counts.b(),
            firmware: ticks(firmware),
            scrubbing: ticks(scrubbing),
            zeroing: ticks(zeroing),
        })
    }

    /// Ends every [`Self::hold`] of this session.
    pub fn let_go(&mut self) -> Result<(), Code> {
        self.bare(command::LET_GO)
    }

    fn derail(&mut self, command: u32, way: u32, code: Code) -> Result<(), Code> {
        self.invoke(
            command::DERAIL,
            ParamValue::new(command, way, ParamType::ValueInput),
            ParamValue::new(code, 0, ParamType::ValueInput),
            ParamNone,
            ParamNone,
        )
        .map(drop)
    }

    fn inject(&mut self, point: u32, nth: u32) -> Result<(), Code> {
        self.invoke(
            command::INJECT,
            ParamValue::new(point, nth, ParamType::ValueInput),
            ParamNone,
            ParamNone,
            ParamNone,
        )
        .map(drop)
    }
}

/// How the next call of a command of the trusted application goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// It does nothing, and answers this.
    Refused(Code),
    /// It is carried out, and answers this all the same.
    Denied(Code),
    /// The application panics before it does anything.
    PanicBefore,
    /// The application panics after it was carried out: the answer is lost.
    PanicAfter,
}

/// A command that will go wrong; disarmed when this is dropped, if the
/// application lives then.
pub struct Derailed(Ta);

/// Makes the next call of a command go wrong, whoever calls it: the kernel's
/// commands, too.
pub fn derail(command: u32, way: Way) -> anyhow::Result<Derailed> {
    use command::derailment::{DENY, PANIC_AFTER, PANIC_BEFORE, REFUSE};
    let (way, code) = match way {
        Way::Refused(code) => (REFUSE, code),
        Way::Denied(code) => (DENY, code),
        Way::PanicBefore => (PANIC_BEFORE, 0),
        Way::PanicAfter => (PANIC_AFTER, 0),
    };
    let mut ta = Ta::open()?;
    expect_done(ta.derail(command, way, code), "DERAIL")?;
    Ok(Derailed(ta))
}

impl Drop for Derailed {
    fn drop(&mut self) {
        // An application that has died meanwhile has forgotten it.
        let _ = self.0.derail(0, 0, 0);
    }
}

/// A failure that the firewall of a test build will run into; disarmed when
/// this is dropped.
pub struct Armed {
    ta: Ta,
    point: u32,
}

/// Makes the firewall fail the `nth` next time that it passes a
/// [fail point](ringfence::proto::firewall::fail_point).
pub fn arm(point: u32, nth: u32) -> anyhow::Result<Armed> {
    let mut ta = Ta::open()?;
    expect_done(ta.inject(point, nth), "INJECT")?;
    Ok(Armed { ta, point })
}

impl Drop for Armed {
    fn drop(&mut self) {
        // An application that has died meanwhile takes the failure with it into
        // the next test, which says so.
        let _ = self.ta.inject(self.point, 0);
    }
}

/// Fails unless a command was refused with exactly this code.
pub fn expect_code<T>(outcome: Result<T, Code>, expected: Code, what: &str) -> anyhow::Result<()> {
    match outcome {
        Err(code) if code == expected => Ok(()),
        Err(code) => anyhow::bail!("{what}: refused with {code:#010x}, not {expected:#010x}"),
        Ok(_) => anyhow::bail!("{what}: worked, instead of being refused with {expected:#010x}"),
    }
}

/// Fails unless a command worked.
pub fn expect_done<T>(outcome: Result<T, Code>, what: &str) -> anyhow::Result<T> {
    outcome.map_err(|code| anyhow::anyhow!("{what}: refused with {code:#010x}"))
}
