// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks that go to the secure world directly.

use std::os::fd::AsFd;

use optee_teec::{ParamNone, ParamType, ParamValue};
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::proto::command::{self, result};
use ringfence::proto::firewall::{self, FIREWALL_UUID};
use ringfence::proto::message::DigestRequest;
use ringfence_tests::foreign;
use ringfence_tests::guest::hostile::Hostile;
use ringfence_tests::guest::memory::{self, expect_killed, expect_zero, Outcome, PAGE};
use ringfence_tests::guest::ta::{self, expect_code, expect_done, Ta};
use ringfence_tests::guest::{expect_errno, tee_ioctl};
use rustix::io::Errno;

use super::prey::{attacked, Prey};
use crate::suites::fixture::expect_zeros;
use crate::suites::protect::handle;
use crate::suites::region::{self, CAMERA, VIDEO};

/// What the firmware answers to a call that does not exist for the caller.
const UNKNOWN: u64 = u64::MAX;

/// The kernel calls the firmware's service, and all numbers around it, in both
/// calling conventions.
pub fn firmware_calls() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        let open = region::free_neighbour(VIDEO, prey.range)?;
        let fenced = prey.range.page(0);
        for convention in [0xc200_0000, 0x8200_0000, 0x4200_0000] {
            for function in 0x100..=0x11f {
                for page in [open, fenced] {
                    let number = convention | function;
                    let answer = hostile.smc(number, page.start, page.size)?;
                    // A 32-bit call answers 32 bits.
                    anyhow::ensure!(
                        answer == UNKNOWN || answer == UNKNOWN & 0xffff_ffff,
                        "{number:#x} answers {answer:#x}"
                    );
                }
            }
        }
        expect_killed(fenced, "after the calls")?;
        let seen = memory::read(open)?;
        anyhow::ensure!(matches!(seen, Outcome::Read { .. }), "{open:x?}: {seen:?}");
        Ok(())
    })
}

/// Logins that only the kernel may claim.
pub fn forged_login() -> anyhow::Result<()> {
    attacked(|prey| {
        for login in [command::LOGIN_REE_KERNEL, 0x8000_0001, 0xbfff_ffff] {
            let outcome = tee_ioctl::open_session(command::TA_UUID, login)?;
            expect_errno(outcome, Errno::PERM, &format!("login {login:#x}"))?;
        }
        // An honest login opens a session, which takes none of the kernel's commands.
        let mut session = Ta::open()?;
        let released = session.invoke(
            command::UNPROTECT,
            ta::number(prey.handle),
            ParamNone,
            ParamNone,
            ParamNone,
        );
        expect_code(released, result::ACCESS_DENIED, "UNPROTECT")?;
        let beside = region::free_neighbour(VIDEO, prey.range)?;
        let protected = session.invoke(
            command::PROTECT,
            ta::number(beside.start),
            ta::number(beside.size),
            ta::answer(),
            ParamNone,
        );
        expect_code(protected, result::ACCESS_DENIED, "PROTECT")
    })
}

/// The firewall's UUID is no secret; its door is.
pub fn firewall_from_outside() -> anyhow::Result<()> {
    attacked(|_| {
        expect_code(
            Ta::of(FIREWALL_UUID),
            result::ACCESS_DENIED,
            "a session to the firewall",
        )?;
        for login in [0, command::LOGIN_REE_KERNEL] {
            match tee_ioctl::open_session(FIREWALL_UUID, login)? {
                Ok(code) => anyhow::ensure!(code == result::ACCESS_DENIED, "{code:#x}"),
                Err(errno) => anyhow::ensure!(errno == Errno::PERM, "{errno}"),
            }
        }
        Ok(())
    })
}

/// A digest of the first page.
fn page() -> DigestRequest {
    DigestRequest {
        key: [0; 32],
        offset: 0,
        length: PAGE,
    }
}

/// Handles of buffers that are gone, and numbers like those that are not.
pub fn replayed_handles() -> anyhow::Result<()> {
    attacked(|prey| {
        let mut session = Ta::open()?;
        expect_done(session.load_licence(&prey.fixture.licence), "LOAD_LICENCE")?;
        let mut old = Vec::new();
        for _ in 0..8 {
            let (buffer, _) = region::allocate(VIDEO, PAGE)?;
            old.push(handle(&buffer)?);
        }
        // The same memory again, under another name.
        let (buffer, _) = region::allocate(VIDEO, PAGE)?;
        let live = handle(&buffer)?;
        anyhow::ensure!(!old.contains(&live), "a handle was used again");
        let near = (0..64).map(|bit| prey.handle ^ 1 << bit);
        let guesses = [0, 1, u64::MAX, !prey.handle, prey.range.start];
        for guess in old.into_iter().chain(near).chain(guesses) {
            let what = format!("handle {guess:#x}");
            let content = &prey.fixture.ciphertext[..16];
            let decrypted = session.decrypt(guess, &prey.fixture.request(0), content);
            expect_code(decrypted, result::ITEM_NOT_FOUND, &what)?;
            let digest = session.digest(guess, &page());
            expect_code(digest, result::ITEM_NOT_FOUND, &what)?;
        }
        expect_zeros(&mut session, live, PAGE)
    })
}

/// A kernel that has gone over to the enemy has all memory fenced that is not
/// its to fence.
pub fn kernel_fences_anything() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        let camera = region::of(CAMERA)?;
        let video = region::of(VIDEO)?;
        let denied = result::ACCESS_DENIED;
        let cases = [
            ("the kernel's own memory", 0x6000_0000, PAGE, denied),
            ("the secure world's memory", 0x0e10_0000, PAGE, denied),
            ("a device", 0x0900_0000, PAGE, denied),
            ("another carveout", camera.start, PAGE, denied),
            ("across two carveouts", video.end() - PAGE, 2 * PAGE, denied),
            ("below the carveout", video.start - PAGE, 2 * PAGE, denied),
            ("all memory", 0, 1 << 40, denied),
            (
                "what is fenced",
                prey.range.start,
                PAGE,
                result::ACCESS_CONFLICT,
            ),
            (
                "around what is fenced",
                prey.range.start,
                prey.range.size + PAGE,
                result::ACCESS_CONFLICT,
            ),
            ("nothing", video.start, 0, result::BAD_PARAMETERS),
            ("half a page", video.start, 2048, result::BAD_PARAMETERS),
            (
                "no page's start",
                video.start + 1,
                PAGE,
                result::BAD_PARAMETERS,
            ),
            (
                "beyond the last address",
                u64::MAX - PAGE + 1,
                2 * PAGE,
                result::BAD_PARAMETERS,
            ),
        ];
        for (what, start, size, expected) in cases {
            let code = hostile.protect(start, size)?;
            anyhow::ensure!(
                code == u64::from(expected),
                "{what}: {code:#x}, not {expected:#x}"
            );
        }
        for guess in [0, 1, !prey.handle, prey.range.start] {
            let code = hostile.unprotect(guess)?;
            let expected = u64::from(result::ITEM_NOT_FOUND);
            anyhow::ensure!(code == expected, "handle {guess:#x}: {code:#x}");
        }
        Ok(())
    })
}

/// The kernel itself, which knows the handle, has the fence taken down: it may,
/// and finds zeros.
pub fn kernel_opens_the_fence() -> anyhow::Result<()> {
    let prey = Prey::new()?;
    let hostile = Hostile::load()?;
    let code = hostile.unprotect(prey.handle)?;
    anyhow::ensure!(code == u64::from(result::SUCCESS), "{code:#x}");
    expect_zero(prey.range, "what the kernel had opened")?;
    // Nobody is told that the buffer is whole.
    let copy = Buffer::from(prey.buffer.as_fd().try_clone_to_owned()?);
    drop(hostile);
    let Prey {
        mut ta,
        buffer,
        range,
        handle: old,
        ..
    } = prey;
    expect_code(ta.digest(old, &page()), result::ITEM_NOT_FOUND, "DIGEST")?;
    // The driver finds out with the next list that it asks for.
    let _ = expect_code(Ta::open()?.panic(), result::TARGET_DEAD, "PANIC");
    let outcome = Control::open()?.buffer(&copy);
    anyhow::ensure!(outcome.is_err(), "{outcome:?}");
    drop((copy, buffer, ta));
    expect_zero(range, "after release")
}

/// Another trusted application, loaded and run by OP-TEE like any other, calls
/// the firewall, and ours in the name of its betters.
pub fn foreign_application() -> anyhow::Result<()> {
    attacked(|prey| {
        let mut session = Ta::of(foreign::UUID)
            .map_err(|code| anyhow::anyhow!("the foreign application: {code:#x}"))?;
        let mut call = |uuid: [u8; 16], command: u32, first: u64, second: u64| {
            let command = ParamValue::new(command, 0, ParamType::ValueInput);
            let (first, second) = (ta::number(first), ta::number(second));
            session
                .invoke(foreign::CALL, ta::bytes(&uuid), command, first, second)
                .map(drop)
        };
        let beside = region::free_neighbour(VIDEO, prey.range)?;
        for range in [prey.range, beside] {
            for command in [
                firewall::PROTECT,
                firewall::UNPROTECT,
                firewall::MAP,
                firewall::INFO,
            ] {
                expect_code(
                    call(FIREWALL_UUID, command, range.start, range.size),
                    result::ACCESS_DENIED,
                    "the firewall",
                )?;
            }
        }
        let cases = [
            (command::HELLO, 0, 0),
            (command::PROTECT, beside.start, beside.size),
            (command::UNPROTECT, prey.handle, 0),
            (command::LIST, 0, 0),
            (command::RESOLVE, prey.handle, 0),
        ];
        for (command, first, second) in cases {
            expect_code(
                call(command::TA_UUID, command, first, second),
                result::ACCESS_DENIED,
                &format!("command {command:#x}"),
            )?;
        }
        // The way works: what anybody may call is found, and wants other parameters.
        expect_code(
            call(command::TA_UUID, command::INFO, 0, 0),
            result::BAD_PARAMETERS,
            "INFO",
        )?;
        let seen = memory::read(beside)?;
        anyhow::ensure!(matches!(seen, Outcome::Read { .. }), "{seen:?}");
        Ok(())
    })
}
