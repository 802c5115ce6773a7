// SPDX-License-Identifier: MIT OR Apache-2.0

//! Content commands: what they write, what they leave alone, and that no
//! window outlives them.

use crate::model::{
    kernel, public, ready, xor, Call, Collect, ModelFirewall, TestInstance, XorCipher, BASE, UI,
    WINDOW,
};
use proptest::prelude::*;
use ringfence_proto::command::{result, MAX_HELD};
use ringfence_proto::message::{Decrypt, DigestRequest};
use ringfence_ta::instance::Session;
use ringfence_ta::keys::ContentKey;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::shared::SharedBytes;

const KEY: u8 = 0x5a;
const SIZE: u64 = 5 * WINDOW;
const START: u64 = BASE + 0x1000;

/// A range that begins in the middle of a window, and who may decrypt into it.
fn set_up(firewall: &ModelFirewall) -> (TestInstance, Session, u64) {
    ready(firewall, [KEY; 16], START, SIZE)
}

fn request(offset: u64) -> Decrypt {
    Decrypt {
        key_id: [1; 16],
        counter: [0; 16],
        offset,
    }
}

fn cipher(key: &ContentKey, _: &[u8; 16]) -> Result<XorCipher, Refusal> {
    Ok(XorCipher::new(key.bytes()[0]))
}

/// Decrypts zeros.
fn decrypt(
    instance: &mut TestInstance,
    session: &Session,
    handle: u64,
    offset: u64,
    length: usize,
) -> Result<u64, Refusal> {
    let content = vec![0; length];
    // SAFETY: `content` outlives the call.
    let shared = unsafe { SharedBytes::new(content.as_ptr(), content.len()) };
    instance.decrypt(session, handle, &request(offset), shared, cipher)
}

fn nothing_was_touched(firewall: &ModelFirewall) {
    assert!(firewall.0.borrow().windows.is_empty());
    assert!(firewall.bytes(START, SIZE).iter().all(|byte| *byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn content_lands_exactly_where_it_was_sent(
        offset in 0..SIZE,
        length: u64,
        seed: u8,
    ) {
        let firewall = ModelFirewall::new();
        let (mut instance, session, handle) = set_up(&firewall);
        let length = length % (SIZE - offset) + 1;
        let content: Vec<u8> = (0..length).map(|index| (index as u8) ^ seed).collect();
        // SAFETY: `content` outlives the call.
        let shared = unsafe { SharedBytes::new(content.as_ptr(), content.len()) };
        let written = instance.decrypt(&session, handle, &request(offset), shared, cipher);
        prop_assert_eq!(written, Ok(length));

        let after = firewall.bytes(BASE, START - BASE + SIZE + 0x1000);
        let (before, rest) = after.split_at((START - BASE + offset) as usize);
        let (inside, behind) = rest.split_at(length as usize);
        prop_assert!(before.iter().chain(behind).all(|byte| *byte == 0));
        let expected = content.iter().enumerate().map(|(at, byte)| xor(KEY, at, *byte));
        prop_assert!(inside.iter().copied().eq(expected));

        let mut seen = Collect::default();
        let digest = DigestRequest { key: [0; 32], offset, length };
        prop_assert_eq!(instance.digest(handle, &digest, &mut seen), Ok(()));
        prop_assert_eq!(&seen.0[..], inside);
        prop_assert!(firewall.0.borrow().mapped.is_empty());
    }

    #[test]
    fn bytes_outside_the_range_are_never_mapped(offset: u64, length in 0..2 * SIZE) {
        let firewall = ModelFirewall::new();
        let (mut instance, session, handle) = set_up(&firewall);
        let inside = length > 0
            && offset.checked_add(length).is_some_and(|end| end <= SIZE);
        let written = decrypt(&mut instance, &session, handle, offset, length as usize);
        let digest = DigestRequest { key: [0; 32], offset, length };
        let digested = instance.digest(handle, &digest, &mut Collect::default());
        if inside {
            prop_assert_eq!((written, digested), (Ok(length), Ok(())));
        } else {
            let refused = Refusal::OutOfBounds;
            prop_assert_eq!((written, digested), (Err(refused), Err(refused)));
            nothing_was_touched(&firewall);
        }
    }
}

#[test]
fn bounds_are_exact_to_the_byte() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let size = SIZE as usize;
    for (offset, length) in [
        (SIZE, 1),
        (SIZE, 0),
        (0, 0),
        (0, size + 1),
        (1, size),
        (SIZE - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - SIZE + 1, size),
        (u64::MAX - 0xfff, 0x1000),
    ] {
        assert_eq!(
            decrypt(&mut instance, &session, handle, offset, length),
            Err(Refusal::OutOfBounds)
        );
        let digest = DigestRequest {
            key: [0; 32],
            offset,
            length: length as u64,
        };
        assert_eq!(
            instance.digest(handle, &digest, &mut Collect::default()),
            Err(Refusal::OutOfBounds)
        );
    }
    nothing_was_touched(&firewall);
    assert_eq!(Refusal::OutOfBounds.code(), result::BAD_PARAMETERS);
    assert_eq!(decrypt(&mut instance, &session, handle, SIZE - 1, 1), Ok(1));
    assert_eq!(decrypt(&mut instance, &session, handle, 0, size), Ok(SIZE));
}

#[test]
fn a_digest_near_the_end_of_the_numbers_is_refused() {
    let firewall = ModelFirewall::new();
    let (mut instance, _, handle) = set_up(&firewall);
    for (offset, length) in [(1, u64::MAX), (u64::MAX, u64::MAX), (0, u64::MAX)] {
        let digest = DigestRequest {
            key: [0; 32],
            offset,
            length,
        };
        assert_eq!(
            instance.digest(handle, &digest, &mut Collect::default()),
            Err(Refusal::OutOfBounds)
        );
    }
    nothing_was_touched(&firewall);
}

#[test]
fn unknown_handles_are_refused() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    for guess in [0, 1, handle - 1, handle + 1, !handle, u64::MAX] {
        assert_eq!(
            decrypt(&mut instance, &session, guess, 0, 1),
            Err(Refusal::UnknownHandle)
        );
    }
    nothing_was_touched(&firewall);
    assert_eq!(Refusal::UnknownHandle.code(), result::ITEM_NOT_FOUND);
}

#[test]
fn keys_stay_in_their_session() {
    let firewall = ModelFirewall::new();
    let (mut instance, _, handle) = set_up(&firewall);
    let other = public(&mut instance);
    assert_eq!(
        decrypt(&mut instance, &other, handle, 0, 1),
        Err(Refusal::UnknownKey)
    );
    nothing_was_touched(&firewall);
}

#[test]
fn a_range_for_the_user_interface_takes_no_video() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, _) = set_up(&firewall);
    let kernel = kernel(&mut instance);
    let ui = instance
        .protect(&kernel, UI, SIZE)
        .expect("protected")
        .raw();
    assert_eq!(
        decrypt(&mut instance, &session, ui, 0, 1),
        Err(Refusal::UseCase)
    );
    assert_eq!(Refusal::UseCase.code(), result::ACCESS_DENIED);
    nothing_was_touched(&firewall);
}

#[test]
fn a_cipher_that_cannot_begin_maps_nothing() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    // SAFETY: the bytes live for ever.
    let shared = unsafe { SharedBytes::new([0u8; 4].as_ptr(), 4) };
    let written = instance.decrypt(&session, handle, &request(0), shared, |_, _| {
        Err::<XorCipher, _>(Refusal::Tee(result::OUT_OF_MEMORY))
    });
    assert_eq!(written, Err(Refusal::Tee(result::OUT_OF_MEMORY)));
    nothing_was_touched(&firewall);
}

#[test]
fn no_window_outlives_a_failure() {
    for good in 0..4 {
        let firewall = ModelFirewall::new();
        let (mut instance, session, handle) = set_up(&firewall);
        firewall.fail(Call::Map, good);
        assert_eq!(
            decrypt(&mut instance, &session, handle, 0, SIZE as usize),
            Err(Refusal::Tee(result::GENERIC))
        );
        assert_eq!(firewall.calls(Call::Unmap), good);
        assert!(firewall.0.borrow().mapped.is_empty());
    }

    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let content = vec![0; SIZE as usize];
    // SAFETY: `content` outlives the call.
    let shared = unsafe { SharedBytes::new(content.as_ptr(), content.len()) };
    let written = instance.decrypt(&session, handle, &request(0), shared, |_, _| {
        let mut cipher = XorCipher::new(KEY);
        cipher.fails_at = WINDOW as usize + 7;
        Ok(cipher)
    });
    assert_eq!(written, Err(Refusal::Tee(result::GENERIC)));
    assert_eq!(firewall.calls(Call::Unmap), firewall.calls(Call::Map));
    let kernel = kernel(&mut instance);
    assert_eq!(instance.unprotect(&kernel, handle), Ok(()));
}

#[test]
#[should_panic(expected = "window cannot be unmapped")]
fn a_window_that_stays_mapped_kills_the_instance() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    firewall.fail(Call::Unmap, 0);
    let written = decrypt(&mut instance, &session, handle, 0, 1);
    panic!("went on with {written:?}");
}

#[test]
fn a_held_part_stays_mapped_until_it_is_let_go() {
    let firewall = ModelFirewall::new();
    let (mut instance, mut session, handle) = set_up(&firewall);
    assert_eq!(instance.hold(&mut session, handle, 5, 100), Ok(()));
    assert_eq!(firewall.0.borrow().mapped.len(), 1);
    // Other commands go on, and unmap their own windows only.
    assert_eq!(decrypt(&mut instance, &session, handle, 0, 16), Ok(16));
    assert_eq!(firewall.0.borrow().mapped.len(), 1);
    assert_eq!(instance.let_go(&mut session), Ok(()));
    assert_eq!(instance.let_go(&mut session), Ok(()));
    assert!(firewall.0.borrow().mapped.is_empty());
}

#[test]
fn a_session_lets_go_when_it_ends() {
    let firewall = ModelFirewall::new();
    let (mut instance, mut session, handle) = set_up(&firewall);
    let mut other = public(&mut instance);
    assert_eq!(instance.hold(&mut session, handle, 0, 1), Ok(()));
    assert_eq!(instance.hold(&mut other, handle, 0, 1), Ok(()));
    instance.close(&mut session);
    assert_eq!(firewall.0.borrow().mapped.len(), 1);
    instance.close(&mut other);
    assert!(firewall.0.borrow().mapped.is_empty());
}

#[test]
fn a_session_holds_few_parts_and_none_outside() {
    let firewall = ModelFirewall::new();
    let (mut instance, mut session, handle) = set_up(&firewall);
    for (offset, length) in [(0, 0), (SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (0, SIZE)] {
        assert_eq!(
            instance.hold(&mut session, handle, offset, length),
            Err(Refusal::OutOfBounds)
        );
    }
    assert_eq!(
        instance.hold(&mut session, !handle, 0, 1),
        Err(Refusal::UnknownHandle)
    );
    for _ in 0..MAX_HELD {
        assert_eq!(instance.hold(&mut session, handle, SIZE - 1, 1), Ok(()));
    }
    assert_eq!(
        instance.hold(&mut session, handle, 0, 1),
        Err(Refusal::Full)
    );
    instance.close(&mut session);
    assert!(firewall.0.borrow().mapped.is_empty());
}

#[test]
fn a_fill_reaches_every_byte_and_no_other() {
    let firewall = ModelFirewall::new();
    let (mut instance, _, handle) = set_up(&firewall);
    assert_eq!(instance.fill(handle, 0xa5), Ok(()));
    assert!(firewall.bytes(START, SIZE).iter().all(|byte| *byte == 0xa5));
    assert!(firewall.bytes(BASE, START - BASE).iter().all(|b| *b == 0));
    assert_eq!(firewall.bytes(START + SIZE, 1), [0]);
    assert_eq!(instance.fill(!handle, 1), Err(Refusal::UnknownHandle));
}

#[test]
fn content_that_lies_in_the_buffer_itself_is_refused() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    assert_eq!(instance.fill(handle, 0x11), Ok(()));
    for (from, offset, length) in [
        (0, 0, 64),
        (63, 0, 64),
        (0, 63, 64),
        (WINDOW, WINDOW + 16, 1024),
    ] {
        let inside = firewall.address(START + from);
        // SAFETY: the model's memory outlives the call.
        let content = unsafe { SharedBytes::new(inside, length) };
        let outcome = instance.decrypt(&session, handle, &request(offset), content, cipher);
        assert_eq!(outcome, Err(Refusal::NotShared), "{from}, {offset}");
    }
    assert!(firewall.bytes(START, SIZE).iter().all(|byte| *byte == 0x11));
    assert_eq!(Refusal::NotShared.code(), result::ACCESS_DENIED);
    assert!(firewall.0.borrow().mapped.is_empty());
}
