// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random commands to the trusted application.

use ringfence::proto::command::{self, result};
use ringfence_tests::guest::ta::{encoded, Ta};
use ringfence_tests::guest::tee_ioctl::{kind, Parameter, RawSession, SharedMemory};
use rustix::io::Errno;

use super::Chance;
use crate::suites::attacks::Prey;
use crate::suites::protect::handle;
use crate::suites::region::{self, VIDEO};

/// Bytes of the memory that commands refer to.
const ROOM: u64 = 3 * 4096;

/// Commands that there are at least, of which some are sure to make sense.
const FEWEST: u32 = 200;

/// What the driver may say to parameters that make no sense.
const REFUSALS: [Errno; 3] = [Errno::INVAL, Errno::NOMEM, Errno::FAULT];

/// Commands of everybody and of the kernel, and numbers that are none. Those that
/// arm a failure would spoil the tests that come after.
const COMMANDS: [u32; 14] = [
    command::HELLO,
    command::PROTECT,
    command::UNPROTECT,
    command::LIST,
    command::INFO,
    command::LOAD_LICENCE,
    command::DECRYPT,
    command::PROVISION,
    command::DECRYPT_SAMPLE,
    command::DIGEST,
    command::HOLD,
    command::LET_GO,
    0,
    u32::MAX,
];

const KINDS: [u64; 7] = [
    kind::NONE,
    kind::VALUE_IN,
    kind::VALUE_OUT,
    kind::VALUE_BOTH,
    kind::MEMORY_IN,
    kind::MEMORY_OUT,
    kind::MEMORY_BOTH,
];

/// The types that a command wants.
fn signature(command: u32) -> [u64; 4] {
    use kind::{MEMORY_IN, MEMORY_OUT, NONE, VALUE_IN, VALUE_OUT};
    match command {
        command::HELLO => [VALUE_OUT, NONE, NONE, NONE],
        command::PROTECT => [VALUE_IN, VALUE_IN, VALUE_OUT, NONE],
        command::UNPROTECT => [VALUE_IN, NONE, NONE, NONE],
        command::LIST => [MEMORY_OUT, VALUE_OUT, NONE, NONE],
        command::INFO => [MEMORY_OUT, NONE, NONE, NONE],
        command::LOAD_LICENCE => [MEMORY_IN, NONE, NONE, NONE],
        command::DECRYPT | command::DECRYPT_SAMPLE => [VALUE_IN, MEMORY_IN, MEMORY_IN, VALUE_OUT],
        command::PROVISION => [MEMORY_IN, NONE, NONE, NONE],
        command::DIGEST => [VALUE_IN, MEMORY_IN, MEMORY_OUT, NONE],
        command::HOLD => [VALUE_IN, VALUE_IN, VALUE_IN, NONE],
        _ => [NONE; 4],
    }
}

/// A parameter that is right by its type, at best.
fn parameter(chance: &mut Chance, kind: u64, memory: &SharedMemory, handle: u64) -> Parameter {
    let (high, low) = command::split(match chance.random.u32(0..3) {
        0 => chance.number(),
        _ => handle,
    });
    match kind {
        kind::VALUE_IN | kind::VALUE_OUT | kind::VALUE_BOTH => Parameter {
            kind,
            a: high.into(),
            b: low.into(),
            c: chance.number(),
        },
        kind::NONE => Parameter::default(),
        _ => {
            let is_sound = chance.random.u32(0..4) != 0;
            let offset = match is_sound {
                true => chance.random.u64(0..=ROOM),
                false => chance.number(),
            };
            let size = match is_sound {
                true => chance.random.u64(0..=ROOM - offset.min(ROOM)),
                false => chance.number(),
            };
            let id = match chance.random.u32(0..16) {
                0 => chance.number(),
                _ => memory.id,
            };
            Parameter {
                kind,
                a: offset,
                b: size,
                c: id,
            }
        }
    }
}

pub fn commands() -> anyhow::Result<()> {
    let mut prey = Prey::new()?;
    let (playground, _) = region::allocate(VIDEO, 5 * 4096)?;
    let target = handle(&playground)?;
    let mut session = RawSession::open(command::TA_UUID)?;
    let mut memory = session.memory(ROOM)?;
    let seeds = [
        encoded(&prey.fixture.licence),
        encoded(&prey.fixture.request(0)),
    ];
    let (mut calls, mut done) = (0, 0);
    let mut chance = Chance::new()?;
    while chance.goes_on() || calls < FEWEST {
        let command = match chance.random.u32(0..16) {
            0 => chance.random.u32(0x100..0x2f0),
            _ => chance.one(&COMMANDS),
        };
        let mut kinds = signature(command);
        match chance.random.u32(0..4) {
            0 => kinds[chance.random.usize(0..4)] = chance.one(&KINDS),
            1 if chance.random.u32(0..8) == 0 => kinds[0] = chance.number(),
            _ => {}
        }
        let mut parameters = kinds.map(|kind| parameter(&mut chance, kind, &memory, target));
        let mut bytes = vec![0; ROOM as usize];
        chance.fill(&mut bytes);
        if chance.random.bool() {
            let message = &seeds[chance.random.usize(0..seeds.len())];
            let at = parameters
                .iter()
                .find(|one| one.kind == kind::MEMORY_IN)
                .map_or(0, |one| one.a.min(ROOM - message.len() as u64));
            bytes[at as usize..][..message.len()].copy_from_slice(message);
            // One byte of it is wrong, perhaps.
            if chance.random.bool() {
                let index = at as usize + chance.random.usize(0..message.len());
                bytes[index] ^= 1 << chance.random.u32(0..8);
            }
        }
        memory.fill(&bytes);
        match session.invoke(command, &mut parameters) {
            Ok(result::SUCCESS) => done += 1,
            Ok(result::TARGET_DEAD) => {
                anyhow::bail!("command {command:#x} has killed it: {parameters:x?}")
            }
            Ok(_) => {}
            Err(errno) if REFUSALS.contains(&errno) => {}
            Err(errno) => anyhow::bail!("command {command:#x}: {errno}: {parameters:x?}"),
        }
        calls += 1;
        if calls % 256 == 0 {
            // The kernel's commands are for the kernel, whatever they say.
            session = RawSession::open(command::TA_UUID)?;
            memory = session.memory(ROOM)?;
        }
    }
    println!("{calls} commands, {done} of them done");
    anyhow::ensure!(done > 0, "none of {calls} commands made sense");
    drop((memory, session, playground));
    prey.unharmed()?;
    prey.release()
}

/// Memory references that miss their memory by a byte, or by nearly all there is.
pub fn bounds() -> anyhow::Result<()> {
    let mut prey = Prey::new()?;
    let session = RawSession::open(command::TA_UUID)?;
    let memory = session.memory(4096)?;
    let size = memory.size();
    let message = encoded(&prey.fixture.licence);
    memory.fill(&message);
    let licence = |offset: u64, length: u64, id: u64| {
        let mut parameters = [Parameter::default(); 4];
        parameters[0] = Parameter {
            kind: kind::MEMORY_IN,
            a: offset,
            b: length,
            c: id,
        };
        session.invoke(command::LOAD_LICENCE, &mut parameters)
    };
    let length = message.len() as u64;
    anyhow::ensure!(licence(0, length, memory.id) == Ok(result::SUCCESS));
    for (offset, length) in [
        (0, size + 1),
        (1, size),
        (size, 1),
        (size - 1, 2),
        (size + 1, 0),
        (size + 1, 1),
        (0, u64::MAX),
        (1, u64::MAX),
        (size, u64::MAX - size + 1),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 15, 32),
        (1 << 63, 1 << 63),
    ] {
        let outcome = licence(offset, length, memory.id);
        anyhow::ensure!(
            outcome == Err(Errno::INVAL),
            "{length:#x} bytes at {offset:#x}: {outcome:x?}"
        );
    }
    // Nothing at the very end is a message that is too short.
    let outcome = licence(size, 0, memory.id);
    anyhow::ensure!(outcome == Ok(result::BAD_PARAMETERS), "{outcome:x?}");
    for id in [memory.id + 1, u64::from(u32::MAX), u64::MAX - 1, 1 << 31] {
        let outcome = licence(0, length, id);
        anyhow::ensure!(outcome == Err(Errno::INVAL), "memory {id:#x}: {outcome:x?}");
    }
    // The buffer is closed before the application uses it, and its handle is given
    // back twice.
    let (buffer, _) = region::allocate(VIDEO, 4096)?;
    let closed = handle(&buffer)?;
    drop(buffer);
    let mut ta = Ta::open()?;
    let _ = ta.load_licence(&prey.fixture.licence);
    for _ in 0..2 {
        let content = &prey.fixture.ciphertext[..16];
        let outcome = ta.decrypt(closed, &prey.fixture.request(0), content);
        anyhow::ensure!(outcome == Err(result::ITEM_NOT_FOUND), "{outcome:x?}");
    }
    drop((memory, session));
    prey.unharmed()?;
    prey.release()
}
