// SPDX-License-Identifier: MIT OR Apache-2.0

//! The trusted application seen from user space: what is refused, and how.

use std::collections::HashSet;

use optee_teec::{ParamNone, ParamTmpRef, ParamType, ParamValue};
use ringfence::control::Control;
use ringfence::proto::command::{self, result};
use ringfence::proto::firewall::FIREWALL_UUID;
use ringfence::proto::message::{Decrypt, DigestRequest, Licence};
use ringfence::secure::{Encryption, SecureSession};
use ringfence_tests::guest::ta::{answer, bytes, encoded, expect_code, expect_done, number, Ta};
use ringfence_tests::guest::{allocation, expect_errno, tee_ioctl};
use rustix::io::Errno;

use super::fixture::{expect_zeros, Fixture};
use super::protect::handle;
use super::region::{self, CAMERA, UI, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    (
        "protection_commands_are_for_the_kernel",
        protection_is_for_the_kernel,
    ),
    ("a_forged_kernel_login_is_refused", forged_kernel_login),
    (
        "the_firewall_is_for_the_trusted_application",
        firewall_is_not_for_us,
    ),
    (
        "handles_that_name_nothing_are_refused",
        handles_that_name_nothing,
    ),
    ("a_closed_buffers_handle_is_refused", closed_handle),
    ("handles_can_not_be_guessed", handles_can_not_be_guessed),
    ("parameters_of_other_types_are_refused", other_parameters),
    ("malformed_messages_are_refused", malformed_messages),
    ("content_keeps_inside_the_buffer_to_the_byte", bounds),
    ("keys_are_known_in_their_session_only", keys_are_per_session),
    (
        "a_licence_that_was_tampered_with_is_refused",
        tampered_licence,
    ),
    ("content_arrives_whole_and_in_pieces", content_arrives),
    ("sessions_are_limited_and_come_back", sessions_are_limited),
    ("the_application_describes_itself", describes_itself),
];

const PAGE: u64 = 4096;

/// A handle that an attacker might try.
const GUESS: u64 = 0x0123_4567_89ab_cdef;

fn protection_is_for_the_kernel() -> anyhow::Result<()> {
    let (buffer, range) = region::allocate(VIDEO, PAGE)?;
    let real = handle(&buffer)?;
    let mut ta = Ta::open()?;
    let denied = result::ACCESS_DENIED;
    let mut records = [0; 4096];
    let hello = ta.invoke(command::HELLO, answer(), ParamNone, ParamNone, ParamNone);
    expect_code(hello, denied, "HELLO")?;
    let free = range.start + range.size;
    let protect = ta.invoke(
        command::PROTECT,
        number(free),
        number(PAGE),
        answer(),
        ParamNone,
    );
    expect_code(protect, denied, "PROTECT")?;
    for (what, handle) in [("a real handle", real), ("a guessed one", GUESS), ("0", 0)] {
        let outcome = ta.invoke(
            command::UNPROTECT,
            number(handle),
            ParamNone,
            ParamNone,
            ParamNone,
        );
        expect_code(outcome, denied, &format!("UNPROTECT of {what}"))?;
    }
    let list = ta.invoke(
        command::LIST,
        ParamTmpRef::new_output(&mut records),
        answer(),
        ParamNone,
        ParamNone,
    );
    expect_code(list, denied, "LIST")?;
    anyhow::ensure!(
        records.iter().all(|byte| *byte == 0),
        "LIST wrote something"
    );
    Ok(())
}

fn forged_kernel_login() -> anyhow::Result<()> {
    // The way itself works: the login of anybody opens a session.
    let public = tee_ioctl::open_session(command::TA_UUID, 0)?;
    anyhow::ensure!(public == Ok(0), "a public login: {public:x?}");
    for login in [command::LOGIN_REE_KERNEL, 0x8000_0001, 0xbfff_ffff] {
        let outcome = tee_ioctl::open_session(command::TA_UUID, login)?;
        expect_errno(outcome, Errno::PERM, &format!("login {login:#x}"))?;
    }
    Ok(())
}

fn firewall_is_not_for_us() -> anyhow::Result<()> {
    expect_code(
        Ta::of(FIREWALL_UUID),
        result::ACCESS_DENIED,
        "a session to the firewall",
    )
}

/// A digest of one page, the command that needs nothing but a handle.
fn page() -> DigestRequest {
    DigestRequest {
        key: [0; 32],
        offset: 0,
        length: PAGE,
    }
}

fn handles_that_name_nothing() -> anyhow::Result<()> {
    let (buffer, range) = region::allocate(VIDEO, PAGE)?;
    let real = handle(&buffer)?;
    let mut ta = Ta::open()?;
    expect_done(ta.digest(real, &page()), "the real handle")?;
    let mut guesses = vec![
        0,
        1,
        2,
        u64::MAX,
        GUESS,
        !real,
        real.swap_bytes(),
        range.start,
    ];
    guesses.extend((1..=16).flat_map(|step| [real.wrapping_add(step), real.wrapping_sub(step)]));
    guesses.extend((0..64).map(|bit| real ^ 1 << bit));
    for guess in guesses {
        let what = format!("handle {guess:#x}");
        expect_code(ta.digest(guess, &page()), result::ITEM_NOT_FOUND, &what)?;
    }
    let fixture = Fixture::read()?;
    expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    expect_code(
        ta.decrypt(GUESS, &fixture.request(0), &fixture.ciphertext[..16]),
        result::ITEM_NOT_FOUND,
        "DECRYPT to a guessed handle",
    )
}

fn closed_handle() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let mut ta = Ta::open()?;
    expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    let (buffer, range) = region::allocate(VIDEO, PAGE)?;
    let closed = handle(&buffer)?;
    drop(buffer);
    // The same memory under another name.
    let (buffer, again) = region::allocate(VIDEO, PAGE)?;
    anyhow::ensure!(again == range, "{again:x?}, not {range:x?}");
    anyhow::ensure!(handle(&buffer)? != closed, "the handle was used again");
    expect_code(
        ta.decrypt(closed, &fixture.request(0), &fixture.ciphertext[..16]),
        result::ITEM_NOT_FOUND,
        "DECRYPT to a closed buffer",
    )?;
    expect_code(
        ta.digest(closed, &page()),
        result::ITEM_NOT_FOUND,
        "DIGEST of a closed buffer",
    )?;
    expect_zeros(&mut ta, handle(&buffer)?, PAGE)
}

fn handles_can_not_be_guessed() -> anyhow::Result<()> {
    const COUNT: usize = 64;
    let control = Control::open()?;
    let heap = allocation::open(VIDEO)?;
    let mut handles = Vec::new();
    // One after the other in the same place, then all at once.
    for _ in 0..COUNT / 2 {
        let buffer = allocation::allocate_size(&heap, PAGE)?;
        handles.push(control.buffer(&buffer)?.protected_handle()?.raw());
    }
    let mut buffers = Vec::new();
    for _ in 0..COUNT / 2 {
        let buffer = allocation::allocate_size(&heap, PAGE)?;
        handles.push(control.buffer(&buffer)?.protected_handle()?.raw());
        buffers.push(buffer);
    }
    let distinct = |values: &mut dyn Iterator<Item = u64>| values.collect::<HashSet<_>>().len();
    anyhow::ensure!(
        distinct(&mut handles.iter().copied()) == COUNT,
        "{handles:x?}"
    );
    // Of 64 random numbers, two agree in a half with probability 2^-21.
    anyhow::ensure!(
        distinct(&mut handles.iter().map(|h| h >> 32)) == COUNT,
        "{handles:x?}"
    );
    anyhow::ensure!(distinct(&mut handles.iter().map(|h| h & 0xffff_ffff)) == COUNT);
    let mut steps = handles.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    anyhow::ensure!(distinct(&mut steps) == COUNT - 1, "{handles:x?}");
    // 4096 random bits: 6 standard deviations around the half are 192.
    let ones: u32 = handles.iter().map(|handle| handle.count_ones()).sum();
    anyhow::ensure!(
        (2048 - 192..=2048 + 192).contains(&ones),
        "{ones} ones of 4096 bits"
    );
    Ok(())
}

fn other_parameters() -> anyhow::Result<()> {
    let bad = result::BAD_PARAMETERS;
    let mut ta = Ta::open()?;
    for (what, command) in [
        ("INFO", command::INFO),
        ("LOAD_LICENCE", command::LOAD_LICENCE),
        ("DECRYPT", command::DECRYPT),
        ("PROVISION", command::PROVISION),
        ("DECRYPT_SAMPLE", command::DECRYPT_SAMPLE),
        ("DIGEST", command::DIGEST),
        ("INJECT", command::INJECT),
    ] {
        expect_code(ta.bare(command), bad, &format!("{what} without parameters"))?;
        let outcome = ta.invoke(command, answer(), answer(), answer(), answer());
        expect_code(outcome, bad, &format!("{what} with four answers"))?;
        let outcome = ta.invoke(
            command,
            bytes(&[0; 8]),
            bytes(&[]),
            bytes(&[0]),
            bytes(&[0]),
        );
        expect_code(outcome, bad, &format!("{what} with four memory references"))?;
    }
    let mut room = [0; 64];
    let outcome = ta.invoke(
        command::INFO,
        ParamTmpRef::new_output(&mut room),
        ParamValue::new(0, 0, ParamType::ValueInput),
        ParamNone,
        ParamNone,
    );
    expect_code(outcome, bad, "INFO with one parameter too many")?;
    let mut room = [0; 1];
    let outcome = ta.invoke(
        command::INFO,
        ParamTmpRef::new_output(&mut room),
        ParamNone,
        ParamNone,
        ParamNone,
    );
    expect_code(outcome, result::SHORT_BUFFER, "INFO into one byte")?;
    for unknown in [0, 1, 0x107, 0x205, 0x2fa, u32::MAX] {
        let what = format!("command {unknown:#x}");
        expect_code(ta.bare(unknown), result::NOT_SUPPORTED, &what)?;
    }
    Ok(())
}

fn malformed_messages() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(VIDEO, PAGE)?;
    let handle = handle(&buffer)?;
    let mut ta = Ta::open()?;
    let mut send = |command: u32, message: &[u8]| match command {
        command::PROVISION | command::LOAD_LICENCE => ta
            .invoke(command, bytes(message), ParamNone, ParamNone, ParamNone)
            .map(drop),
        _ => ta
            .invoke(
                command,
                number(handle),
                bytes(message),
                bytes(&fixture.ciphertext[..16]),
                answer(),
            )
            .map(drop),
    };
    let good = [
        (command::PROVISION, encoded(&fixture.provision)),
        (command::LOAD_LICENCE, encoded(&fixture.licence)),
        (command::DECRYPT, encoded(&fixture.request(0))),
        (command::DECRYPT_SAMPLE, encoded(&fixture.sample(16))),
    ];
    for (command, message) in good {
        expect_done(send(command, &message), "the message itself")?;
        let mut wrong = vec![
            ("nothing", vec![]),
            ("too much", vec![0; 1 << 20]),
            ("zeros", vec![0; message.len()]),
            ("ones", vec![0xff; message.len()]),
            ("one byte too many", [message.as_slice(), &[0]].concat()),
        ];
        for version in [0, 1, 3, 0x7f] {
            let mut other = message.clone();
            other[0] = version;
            wrong.push(("another version", other));
        }
        for length in 1..message.len() {
            wrong.push(("a part", message[..length].to_vec()));
        }
        for (what, wrong) in wrong {
            let what = format!("command {command:#x}: {what}, {} bytes", wrong.len());
            expect_code(send(command, &wrong), result::BAD_PARAMETERS, &what)?;
        }
    }
    Ok(())
}

fn bounds() -> anyhow::Result<()> {
    const SIZE: u64 = 2 * PAGE;
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(VIDEO, SIZE)?;
    let (_beside, _) = region::allocate(VIDEO, SIZE)?;
    let handle = handle(&buffer)?;
    let mut ta = Ta::open()?;
    expect_done(ta.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    let refused = [
        (0, 0),
        (SIZE, 0),
        (0, SIZE + 1),
        (1, SIZE),
        (SIZE, 1),
        (SIZE - 1, 2),
        (SIZE + 1, 1),
        (SIZE - 15, 16),
        (1 << 63, 1),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (u64::MAX - 15, 16),
        (u64::MAX - 15, 17),
    ];
    for (offset, length) in refused {
        let request = Decrypt {
            offset,
            ..fixture.request(0)
        };
        let ciphertext = fixture.ciphertext.get(..length as usize);
        let ciphertext = ciphertext.ok_or_else(|| anyhow::anyhow!("the clip is too short"))?;
        let outcome = ta.decrypt(handle, &request, ciphertext);
        let what = format!("{length} bytes at {offset:#x}");
        expect_code(outcome, result::BAD_PARAMETERS, &what)?;
    }
    let digests = [
        (0, 0),
        (0, SIZE + 1),
        (SIZE, 1),
        (1, u64::MAX),
        (u64::MAX, 1),
    ];
    for (offset, length) in digests {
        let request = DigestRequest {
            key: [0; 32],
            offset,
            length,
        };
        let what = format!("DIGEST of {length:#x} bytes at {offset:#x}");
        expect_code(ta.digest(handle, &request), result::BAD_PARAMETERS, &what)?;
    }
    expect_zeros(&mut ta, handle, SIZE)?;
    for (offset, length) in [(0, SIZE), (SIZE - 1, 1), (SIZE - 16, 16), (1, SIZE - 1)] {
        let request = Decrypt {
            offset,
            ..fixture.request(0)
        };
        let outcome = ta.decrypt(handle, &request, &fixture.ciphertext[..length as usize]);
        let written = expect_done(outcome, &format!("{length} bytes at {offset:#x}"))?;
        anyhow::ensure!(written == length, "{written} bytes of {length}");
    }
    Ok(())
}

fn keys_are_per_session() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let (buffer, _) = region::allocate(VIDEO, PAGE)?;
    let handle = handle(&buffer)?;
    let piece = &fixture.ciphertext[..16];
    let (mut one, mut other) = (Ta::open()?, Ta::open()?);
    expect_done(one.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    expect_code(
        other.decrypt(handle, &fixture.request(0), piece),
        result::ITEM_NOT_FOUND,
        "another session's key",
    )?;
    expect_done(one.decrypt(handle, &fixture.request(0), piece), "DECRYPT")?;
    drop(one);
    expect_code(
        Ta::open()?.decrypt(handle, &fixture.request(0), piece),
        result::ITEM_NOT_FOUND,
        "a key whose session is closed",
    )?;
    let unknown = Decrypt {
        key_id: [0xee; 16],
        ..fixture.request(0)
    };
    expect_done(other.load_licence(&fixture.licence), "LOAD_LICENCE")?;
    expect_code(
        other.decrypt(handle, &unknown, piece),
        result::ITEM_NOT_FOUND,
        "a key id without a licence",
    )
}

fn tampered_licence() -> anyhow::Result<()> {
    let good = Fixture::read()?.licence;
    let mut ta = Ta::open()?;
    let flip = |change: fn(&mut Licence)| {
        let mut licence = good;
        change(&mut licence);
        licence
    };
    for (what, licence) in [
        ("key id", flip(|licence| licence.key_id[0] ^= 1)),
        ("nonce", flip(|licence| licence.nonce[11] ^= 0x80)),
        ("wrapped key", flip(|licence| licence.wrapped_key[15] ^= 1)),
        ("tag", flip(|licence| licence.tag[0] ^= 1)),
        ("tag's end", flip(|licence| licence.tag[15] ^= 1)),
    ] {
        let what = format!("a licence with another {what}");
        expect_code(ta.load_licence(&licence), result::MAC_INVALID, &what)?;
    }
    expect_done(ta.load_licence(&good), "the licence itself")
}

fn content_arrives() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let size = fixture.ciphertext.len() as u64;
    let (buffer, _) = region::allocate(VIDEO, size)?;
    let raw = handle(&buffer)?;
    let mut ta = Ta::open()?;
    fixture.decrypt(&mut ta, raw)?;
    drop(buffer);

    // The library's way: pieces that are no divisor of anything.
    let (buffer, _) = region::allocate(VIDEO, size)?;
    let info = Control::open()?.buffer(&buffer)?;
    let mut session = SecureSession::open()?;
    session.load_licence(&fixture.licence)?;
    let encryption = Encryption {
        key_id: fixture.job.key_id,
        counter: fixture.job.counter,
    };
    let written = session.decrypt_in_pieces(
        info.protected_handle()?,
        0,
        encryption,
        fixture.ciphertext.as_slice(),
        3 * 4096 + 16,
    )?;
    anyhow::ensure!(written == size, "{written} bytes of {size}");
    fixture.expect_content(&mut ta, handle(&buffer)?)?;

    // It can fail: one wrong byte of ciphertext, and the digest differs.
    let mut wrong = fixture.ciphertext[..16].to_vec();
    wrong[7] ^= 1;
    expect_done(
        ta.decrypt(handle(&buffer)?, &fixture.request(0), &wrong),
        "DECRYPT of a wrong byte",
    )?;
    let seen = fixture.expect_content(&mut ta, handle(&buffer)?);
    anyhow::ensure!(
        seen.is_err(),
        "a wrong byte makes no difference to the digest"
    );
    Ok(())
}

fn sessions_are_limited() -> anyhow::Result<()> {
    /// More than any limit that makes sense.
    const MANY: usize = 200;
    let mut sessions = Vec::new();
    let refusal = loop {
        match Ta::of(command::TA_UUID) {
            Ok(session) => sessions.push(session),
            Err(code) => break code,
        }
        anyhow::ensure!(sessions.len() < MANY, "{MANY} sessions, and no end");
    };
    anyhow::ensure!(refusal == result::OUT_OF_MEMORY, "{refusal:#010x}");
    anyhow::ensure!(sessions.len() >= 16, "only {} sessions", sessions.len());
    // User space can't keep the kernel out.
    drop(region::allocate(VIDEO, PAGE)?);
    sessions.pop();
    drop(Ta::open()?);
    drop(sessions);
    Ok(())
}

fn describes_itself() -> anyhow::Result<()> {
    let mut session = SecureSession::open()?;
    let before = session.info()?;
    anyhow::ensure!(before.protocol == command::PROTOCOL_VERSION, "{before:?}");
    anyhow::ensure!(before.test_commands, "not a test build: {before:?}");
    anyhow::ensure!(before.granule == 4096, "{before:?}");
    anyhow::ensure!(before.regions == 3, "{before:?}");
    anyhow::ensure!(before.ranges == 0 && before.quarantined == 0, "{before:?}");
    let video = region::allocate(VIDEO, PAGE)?;
    let ui = region::allocate(UI, PAGE)?;
    let camera = region::allocate(CAMERA, PAGE)?;
    anyhow::ensure!(session.info()?.ranges == 2, "{:?}", session.info()?);
    drop((video, ui, camera));
    anyhow::ensure!(session.info()? == before, "{:?}", session.info()?);
    Ok(())
}
