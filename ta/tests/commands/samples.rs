// SPDX-License-Identifier: MIT OR Apache-2.0

//! DECRYPT_SAMPLE against an encryption that is written from ISO/IEC 23001-7 byte by
//! byte, over another implementation of AES.

use crate::model::{kernel, public, ready, ModelFirewall, TestInstance, BASE, UI, WINDOW};
use aes::cipher::{Block, BlockCipherEncrypt, BlockModeDecrypt, KeyInit, KeyIvInit, StreamCipher};
use aes::Aes128;
use proptest::prelude::*;
use ringfence_proto::command::result;
use ringfence_proto::message::{
    DecryptSample, Pattern, Scheme, Subsample, MAX_SAMPLE, MAX_SUBSAMPLES,
};
use ringfence_ta::instance::Session;
use ringfence_ta::keys::ContentKey;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::sample::{check, SampleCipher};
use ringfence_ta::shared::SharedBytes;
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

const KEY: [u8; 16] = *b"a content key 01";
const START: u64 = BASE + 0x1000;
const SIZE: u64 = 4 * WINDOW;

/// The TEE's ciphers, by the crates `ctr` and `cbc`. It keeps count of how often
/// each byte of the sample was read.
struct Cipher {
    scheme: Scheme,
    state: Option<State>,
    sample: (usize, Rc<RefCell<Vec<u8>>>),
    /// Restarts after which it fails.
    restarts: usize,
}

enum State {
    Stream(Box<ctr::Ctr128BE<Aes128>>),
    Blocks(Box<cbc::Decryptor<Aes128>>),
}

impl Cipher {
    /// Takes shared bytes out, and notes it.
    fn take(&self, from: &SharedBytes<'_>) -> Vec<u8> {
        let (start, counts) = &self.sample;
        let mut counts = counts.borrow_mut();
        (0..from.len())
            .map(|index| {
                let byte = from.as_ptr().wrapping_add(index);
                // What is not of the sample is the key stream to leave out.
                if let Some(count) = counts.get_mut(byte.addr().wrapping_sub(*start)) {
                    *count += 1;
                }
                // SAFETY: readable by its type.
                unsafe { byte.read_volatile() }
            })
            .collect()
    }
}

impl SampleCipher for Cipher {
    fn restart(&mut self, iv: &[u8; 16]) -> Result<(), Refusal> {
        self.restarts = self
            .restarts
            .checked_sub(1)
            .ok_or(Refusal::Tee(result::GENERIC))?;
        self.state = Some(match self.scheme {
            Scheme::Cenc => State::Stream(Box::new(ctr::Ctr128BE::new(&KEY.into(), iv.into()))),
            Scheme::Cbcs => State::Blocks(Box::new(cbc::Decryptor::new(&KEY.into(), iv.into()))),
        });
        Ok(())
    }

    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal> {
        let mut bytes = self.take(&ciphertext);
        let Some(State::Stream(cipher)) = &mut self.state else {
            panic!("a stream of {:?}", self.scheme)
        };
        cipher.apply_keystream(&mut bytes);
        assert_eq!(bytes.len(), plaintext.len());
        // SAFETY: writable by the contract.
        unsafe {
            plaintext
                .cast::<u8>()
                .copy_from(NonNull::from(&bytes[..]).cast(), bytes.len())
        };
        Ok(())
    }

    unsafe fn decrypt_in_place(&mut self, blocks: NonNull<[u8]>) -> Result<(), Refusal> {
        let Some(State::Blocks(cipher)) = &mut self.state else {
            panic!("blocks of {:?}", self.scheme)
        };
        assert_eq!(blocks.len() % 16, 0);
        for index in 0..blocks.len() / 16 {
            // SAFETY: within the blocks, which nobody else looks at.
            let block = unsafe { blocks.cast::<Block<Aes128>>().add(index).as_mut() };
            cipher.decrypt_block(block);
        }
        Ok(())
    }

    unsafe fn copy(&mut self, from: SharedBytes<'_>, to: NonNull<[u8]>) {
        let bytes = self.take(&from);
        assert_eq!(bytes.len(), to.len());
        // SAFETY: writable by the contract.
        unsafe {
            to.cast::<u8>()
                .copy_from(NonNull::from(&bytes[..]).cast(), bytes.len())
        };
    }
}

/// One block of AES.
fn aes(block: [u8; 16]) -> [u8; 16] {
    let mut block = block.into();
    Aes128::new(&KEY.into()).encrypt_block(&mut block);
    block.into()
}

/// The sample, encrypted as the standard says.
fn encrypt(request: &DecryptSample, plaintext: &[u8]) -> Vec<u8> {
    let mut sample = plaintext.to_vec();
    let mut rest = &mut sample[..];
    let mut position = u64::from(request.used);
    for subsample in &request.subsamples {
        rest = &mut rest[subsample.clear as usize..];
        let (encrypted, after) = rest.split_at_mut(subsample.encrypted as usize);
        rest = after;
        match request.scheme {
            Scheme::Cenc => {
                for byte in encrypted {
                    let mut counter = request.iv;
                    let low = u64::from_be_bytes(counter[8..].try_into().expect("8 bytes"));
                    counter[8..].copy_from_slice(&low.wrapping_add(position / 16).to_be_bytes());
                    *byte ^= aes(counter)[(position % 16) as usize];
                    position += 1;
                }
            }
            Scheme::Cbcs => {
                let Pattern { crypt, skip } = request.pattern;
                let (run, period) = match crypt {
                    0 => (16, 16),
                    crypt => (
                        usize::from(crypt) * 16,
                        (usize::from(crypt) + usize::from(skip)) * 16,
                    ),
                };
                let mut last = request.iv;
                for stretch in encrypted.chunks_mut(period) {
                    let Some(blocks) = stretch.get_mut(..run) else {
                        continue;
                    };
                    for block in blocks.chunks_mut(16) {
                        for (byte, before) in block.iter_mut().zip(last) {
                            *byte ^= before;
                        }
                        last = aes((&*block).try_into().expect("16 bytes"));
                        block.copy_from_slice(&last);
                    }
                }
            }
        }
    }
    sample
}

fn set_up(firewall: &ModelFirewall) -> (TestInstance, Session, u64) {
    ready(firewall, KEY, START, SIZE)
}

/// Hands a sample over; the outcome, and how often each of its bytes was read.
fn decrypt_with(
    instance: &mut TestInstance,
    session: &Session,
    handle: u64,
    request: &DecryptSample,
    sample: &[u8],
    restarts: usize,
) -> (Result<u64, Refusal>, Vec<u8>) {
    let reads = Rc::new(RefCell::new(vec![0; sample.len()]));
    // SAFETY: `sample` outlives the call.
    let shared = unsafe { SharedBytes::new(sample.as_ptr(), sample.len()) };
    let begin = |key: &ContentKey, scheme| {
        assert_eq!(key.bytes(), &KEY);
        Ok(Cipher {
            scheme,
            state: None,
            sample: (sample.as_ptr().addr(), reads.clone()),
            restarts,
        })
    };
    let outcome = instance.decrypt_sample(session, handle, request, shared, begin);
    let reads = reads.borrow().clone();
    (outcome, reads)
}

fn request(scheme: Scheme, subsamples: &[(u32, u32)]) -> DecryptSample {
    DecryptSample {
        key_id: [1; 16],
        scheme,
        iv: *b"an iv of 16 byte",
        used: 0,
        pattern: match scheme {
            Scheme::Cenc => Pattern::default(),
            Scheme::Cbcs => Pattern { crypt: 1, skip: 9 },
        },
        offset: 0,
        subsamples: subsamples
            .iter()
            .map(|&(clear, encrypted)| Subsample { clear, encrypted })
            .collect(),
    }
}

/// Decrypts what was encrypted, and checks every byte of the range.
fn arrives(request: &DecryptSample, seed: u8) -> Result<(), TestCaseError> {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let length: u32 = request
        .subsamples
        .iter()
        .map(|s| s.clear + s.encrypted)
        .sum();
    let plaintext: Vec<u8> = (0..length)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed)
        .collect();
    let sample = encrypt(request, &plaintext);
    let (outcome, reads) = decrypt_with(
        &mut instance,
        &session,
        handle,
        request,
        &sample,
        usize::MAX,
    );
    prop_assert_eq!(outcome, Ok(length.into()));
    prop_assert!(reads.iter().all(|times| *times == 1), "{:?}", reads);
    let after = firewall.bytes(START, SIZE);
    let (before, rest) = after.split_at(request.offset as usize);
    let (inside, behind) = rest.split_at(plaintext.len());
    prop_assert!(inside == plaintext);
    prop_assert!(before.iter().chain(behind).all(|byte| *byte == 0));
    prop_assert!(firewall.0.borrow().mapped.is_empty());
    prop_assert_eq!(firewall.0.borrow().windows.len(), 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cenc_arrives(
        subsamples in prop::collection::vec((0..70u32, 0..300u32), 1..MAX_SUBSAMPLES / 2),
        iv: [u8; 16],
        near_the_wrap in 0..5u64,
        used in 0..16u8,
        offset in 0..WINDOW / 16,
        seed: u8,
    ) {
        let mut request = request(Scheme::Cenc, &subsamples);
        prop_assume!(subsamples.iter().any(|(clear, encrypted)| clear + encrypted > 0));
        request.iv = iv;
        if near_the_wrap > 0 {
            request.iv[8..].copy_from_slice(&(0u64.wrapping_sub(near_the_wrap)).to_be_bytes());
        }
        (request.used, request.offset) = (used, offset);
        arrives(&request, seed)?;
    }

    #[test]
    fn cbcs_arrives(
        subsamples in prop::collection::vec((0..70u32, 0..600u32), 1..20),
        pattern in prop::sample::select(vec![(0, 0), (1, 0), (1, 9), (2, 3), (5, 5), (10, 0), (255, 255)]),
        iv: [u8; 16],
        offset in 0..WINDOW / 16,
        seed: u8,
    ) {
        let mut request = request(Scheme::Cbcs, &subsamples);
        prop_assume!(subsamples.iter().any(|(clear, encrypted)| clear + encrypted > 0));
        request.pattern = Pattern { crypt: pattern.0, skip: pattern.1 };
        (request.iv, request.offset) = (iv, offset);
        arrives(&request, seed)?;
    }

    #[test]
    fn whatever_is_asked_for_nothing_outside_is_touched(
        subsamples in prop::collection::vec((0..5000u32, 0..5000u32), 0..6),
        more in 0..3usize,
        (is_cenc, used, crypt, skip) in any::<(bool, u8, u8, u8)>(),
        offset in prop_oneof![0..2 * SIZE, any::<u64>()],
    ) {
        let firewall = ModelFirewall::new();
        let (mut instance, session, handle) = set_up(&firewall);
        let scheme = if is_cenc { Scheme::Cenc } else { Scheme::Cbcs };
        let mut request = request(scheme, &subsamples);
        (request.used, request.pattern, request.offset) =
            (used, Pattern { crypt, skip }, offset);
        let sum: u32 = subsamples.iter().map(|(clear, encrypted)| clear + encrypted).sum();
        let sample = vec![0x5a; (sum as usize + more).saturating_sub(1)];
        let (outcome, _) =
            decrypt_with(&mut instance, &session, handle, &request, &sample, usize::MAX);
        if outcome.is_ok() {
            prop_assert_eq!(sample.len(), sum as usize);
            prop_assert!(offset + u64::from(sum) <= SIZE);
        } else {
            prop_assert_eq!(outcome, Err(Refusal::OutOfBounds));
            prop_assert!(firewall.0.borrow().windows.is_empty());
        }
        prop_assert!(firewall.bytes(BASE, START - BASE).iter().all(|byte| *byte == 0));
        prop_assert_eq!(firewall.bytes(START + SIZE, 16), [0; 16]);
    }
}

#[test]
fn a_known_answer_of_the_standard_mode() {
    // NIST SP 800-38A, F.2.2 (CBC-AES128.Decrypt) has another key: the model's own
    // encryption is checked against the crates by every other test, and here once
    // against a value that neither has made.
    let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128.to_be_bytes();
    let mut block = 0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a_u128
        .to_be_bytes()
        .into();
    Aes128::new(&key.into()).encrypt_block(&mut block);
    assert_eq!(
        u128::from_be_bytes(block.into()),
        0x3ad7_7bb4_0d7a_3660_a89e_caf3_2466_ef97
    );
}

#[test]
fn subsamples_must_make_up_the_sample() {
    /// Clear and encrypted bytes of each subsample, the sample's bytes, and whether
    /// that is right.
    type Case = (&'static [(u32, u32)], usize, bool);
    let cases: [Case; 9] = [
        (&[(3, 5)], 8, true),
        (&[(3, 5), (0, 0), (0, 8)], 16, true),
        (&[(3, 5)], 7, false),
        (&[(3, 5)], 9, false),
        (&[], 0, false),
        (&[(0, 0)], 0, false),
        (&[(u32::MAX, 1)], 0, false),
        (&[(u32::MAX, u32::MAX); MAX_SUBSAMPLES], usize::MAX, false),
        (&[(0, u32::MAX), (1, 0)], 0, false),
    ];
    for (subsamples, length, is_right) in cases {
        let outcome = check(&request(Scheme::Cenc, subsamples), length);
        assert_eq!(outcome.is_ok(), is_right, "{subsamples:?}, {length}");
    }
    let most = request(Scheme::Cenc, &[(0, MAX_SAMPLE as u32)]);
    assert_eq!(check(&most, MAX_SAMPLE), Ok(()));
    let more = request(Scheme::Cenc, &[(0, MAX_SAMPLE as u32), (1, 0)]);
    assert_eq!(check(&more, MAX_SAMPLE + 1), Err(Refusal::OutOfBounds));
}

#[test]
fn a_scheme_has_its_own_fields_only() {
    let with = |scheme, used, crypt, skip| {
        let mut request = request(scheme, &[(0, 160)]);
        (request.used, request.pattern) = (used, Pattern { crypt, skip });
        check(&request, 160).is_ok()
    };
    assert!(with(Scheme::Cenc, 15, 0, 0));
    assert!(!with(Scheme::Cenc, 16, 0, 0));
    assert!(!with(Scheme::Cenc, 0, 1, 0));
    assert!(!with(Scheme::Cenc, 0, 0, 1));
    assert!(with(Scheme::Cbcs, 0, 0, 0));
    assert!(with(Scheme::Cbcs, 0, 1, 9));
    assert!(!with(Scheme::Cbcs, 0, 0, 9));
    assert!(!with(Scheme::Cbcs, 1, 1, 9));
}

#[test]
fn a_sample_takes_one_window() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let mut decrypt = |offset, length: u32| {
        let mut request = request(Scheme::Cenc, &[(0, length)]);
        request.offset = offset;
        let sample = vec![0; length as usize];
        decrypt_with(&mut instance, &session, handle, &request, &sample, 9).0
    };
    assert_eq!(decrypt(0x1000, WINDOW as u32), Ok(WINDOW));
    assert_eq!(decrypt(1, WINDOW as u32), Err(Refusal::OutOfBounds));
    assert_eq!(decrypt(0, WINDOW as u32 + 1), Err(Refusal::OutOfBounds));
}

#[test]
fn strangers_and_failures_leave_nothing_mapped() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let stranger = public(&mut instance);
    let kernel = kernel(&mut instance);
    let ui = instance
        .protect(&kernel, UI, SIZE)
        .expect("protected")
        .raw();
    let request = request(Scheme::Cbcs, &[(4, 160), (4, 160)]);
    let sample = vec![7; 328];
    let mut outcome = |session: &Session, handle, restarts| {
        decrypt_with(&mut instance, session, handle, &request, &sample, restarts).0
    };
    assert_eq!(outcome(&stranger, handle, 9), Err(Refusal::UnknownKey));
    assert_eq!(outcome(&session, !handle, 9), Err(Refusal::UnknownHandle));
    assert_eq!(outcome(&session, ui, 9), Err(Refusal::UseCase));
    assert!(firewall.0.borrow().windows.is_empty());
    assert_eq!(
        outcome(&session, handle, 1),
        Err(Refusal::Tee(result::GENERIC)),
        "the second subsample's cipher fails"
    );
    assert!(firewall.0.borrow().mapped.is_empty());
    assert_eq!(outcome(&session, handle, 2), Ok(328));
}

#[test]
fn a_sample_in_the_buffer_itself_is_refused() {
    let firewall = ModelFirewall::new();
    let (mut instance, session, handle) = set_up(&firewall);
    let request = request(Scheme::Cenc, &[(0, 64)]);
    // SAFETY: the model's memory outlives the call.
    let inside = unsafe { SharedBytes::new(firewall.address(START + 63), 64) };
    let begin = |_: &ContentKey, scheme| {
        Ok(Cipher {
            scheme,
            state: None,
            sample: (0, Rc::default()),
            restarts: 9,
        })
    };
    let outcome = instance.decrypt_sample(&session, handle, &request, inside, begin);
    assert_eq!(outcome, Err(Refusal::NotShared));
    assert!(firewall.0.borrow().mapped.is_empty());
}
