// SPDX-License-Identifier: MIT OR Apache-2.0

//! Known answers: samples that are encrypted here by other code, and what the
//! secure world makes of them, by a digest that it takes.

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use ringfence::play::cut::cut;
use ringfence::play::protection::Protection;
use ringfence::proto::command::result;
use ringfence::proto::message::{
    DecryptSample, DigestRequest, Pattern, Scheme, Subsample, MAX_SAMPLE, MAX_SUBSAMPLES,
};
use ringfence_tests::content::KnownKey;
use ringfence_tests::guest::encryption::encrypt;
use ringfence_tests::guest::ta::{expect_code, expect_done, Ta};
use sha2::Sha256;

use super::super::fixture::{expect_zeros, read_message};
use super::super::protect::handle;
use super::super::region::{self, VIDEO};
use super::prepared;

/// Key of the digests.
const DIGEST_KEY: [u8; 32] = [0x24; 32];

fn digest(bytes: &[u8]) -> anyhow::Result<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&DIGEST_KEY)?;
    mac.update(bytes);
    Ok(mac.finalize().into_bytes().into())
}

/// Bytes without a pattern.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A session that has loaded the known key.
fn session() -> anyhow::Result<(Ta, KnownKey)> {
    let known = prepared()?.known;
    let mut ta = Ta::open()?;
    expect_done(
        ta.load_licence(&read_message(&known.licence)?),
        "LOAD_LICENCE",
    )?;
    Ok((ta, known))
}

/// Subsamples from pairs of clear and encrypted bytes.
fn parts(pairs: &[(u32, u32)]) -> Vec<Subsample> {
    pairs
        .iter()
        .map(|&(clear, encrypted)| Subsample { clear, encrypted })
        .collect()
}

fn total(parts: &[Subsample]) -> usize {
    let bytes = parts
        .iter()
        .map(|part| part.clear as usize + part.encrypted as usize);
    bytes.sum()
}

/// Encrypts a sample, has it decrypted in one command, and compares.
fn arrives(ta: &mut Ta, key: &[u8; 16], request: &DecryptSample) -> anyhow::Result<()> {
    let plaintext = noise(total(&request.subsamples));
    let sample = encrypt(request, key, &plaintext);
    let length = plaintext.len() as u64;
    let (buffer, _) = region::allocate(VIDEO, request.offset + length + 64)?;
    let raw = handle(&buffer)?;
    let written = expect_done(ta.decrypt_sample(raw, request, &sample), "DECRYPT_SAMPLE")?;
    anyhow::ensure!(written == length, "{written} bytes of {length}");
    let of = |offset, length| DigestRequest {
        key: DIGEST_KEY,
        offset,
        length,
    };
    let seen = expect_done(ta.digest(raw, &of(request.offset, length)), "DIGEST")?;
    anyhow::ensure!(
        seen == digest(&plaintext)?,
        "another plaintext: {request:?}"
    );
    let behind = expect_done(ta.digest(raw, &of(request.offset + length, 64)), "DIGEST")?;
    anyhow::ensure!(behind == digest(&[0; 64])?, "bytes behind it: {request:?}");
    if request.offset > 0 {
        expect_zeros(ta, raw, request.offset)?;
    }
    Ok(())
}

pub fn cenc_samples_arrive() -> anyhow::Result<()> {
    let (mut ta, known) = session()?;
    let short_iv = *b"8 bytes\x01\0\0\0\0\0\0\0\0";
    let long_iv = *b"sixteen bytes iv";
    // One block, and five, before the half that counts wraps around.
    let wrapping = *b"8 bytes\x01\xff\xff\xff\xff\xff\xff\xff\xff";
    let soon = *b"8 bytes\x01\xff\xff\xff\xff\xff\xff\xff\xfb";
    let cases: [(&[(u32, u32)], [u8; 16], u8, u64); 11] = [
        (&[(0, 1)], short_iv, 0, 0),
        (&[(0, 16)], long_iv, 0, 1),
        (&[(100, 0)], short_iv, 0, 4095),
        (&[(0, 43_567)], short_iv, 0, 0),
        (
            &[(5, 11), (3, 21), (0, 7), (1, 0), (0, 100)],
            long_iv,
            0,
            17,
        ),
        (&[(1, 17); 64], short_iv, 0, 4096),
        (&[(0, 100_000)], wrapping, 0, 0),
        (&[(7, 90), (9, 16), (2, 1000)], soon, 0, 3),
        (&[(0, 31), (4, 33)], long_iv, 5, 0),
        (&[(0, 300)], wrapping, 15, 8191),
        (&[(0, MAX_SAMPLE as u32)], short_iv, 0, 4095),
    ];
    for (pairs, iv, used, offset) in cases {
        let request = DecryptSample {
            key_id: known.key_id,
            scheme: Scheme::Cenc,
            iv,
            used,
            pattern: Pattern::default(),
            offset,
            subsamples: parts(pairs).into_iter().collect(),
        };
        arrives(&mut ta, &known.key, &request)?;
    }
    Ok(())
}

pub fn cbcs_samples_arrive() -> anyhow::Result<()> {
    let (mut ta, known) = session()?;
    let cases: [(&[(u32, u32)], (u8, u8), u64); 9] = [
        (&[(0, 15)], (1, 9), 0),
        (&[(0, 16)], (1, 9), 1),
        (&[(10, 1600), (0, 160), (3, 161)], (1, 9), 4000),
        (&[(10, 43_215)], (1, 9), 0),
        (&[(0, 4096), (1, 4095)], (0, 0), 5),
        (&[(0, 4096), (1, 4095)], (1, 0), 5),
        (&[(0, 4000), (1, 4095)], (5, 5), 5),
        (&[(3, 300); 64], (2, 3), 4096),
        (&[(0, MAX_SAMPLE as u32)], (1, 9), 100),
    ];
    for (pairs, (crypt, skip), offset) in cases {
        let request = DecryptSample {
            key_id: known.key_id,
            scheme: Scheme::Cbcs,
            iv: *b"a constant iv 16",
            used: 0,
            pattern: Pattern { crypt, skip },
            offset,
            subsamples: parts(pairs).into_iter().collect(),
        };
        arrives(&mut ta, &known.key, &request)?;
    }
    Ok(())
}

pub fn long_samples_arrive() -> anyhow::Result<()> {
    let (mut ta, known) = session()?;
    let large = 2 * MAX_SAMPLE as u32 + 777;
    let many = [(13, 1000); 3 * MAX_SUBSAMPLES];
    let pairs: [&[(u32, u32)]; 3] = [&[(100, large)], &[(1 << 20, 30), (5, 1 << 20)], &many];
    for (scheme, pattern, pairs) in [
        (Scheme::Cenc, Pattern::default(), &pairs[..]),
        (Scheme::Cbcs, Pattern { crypt: 1, skip: 9 }, &pairs[..1]),
    ] {
        for pairs in pairs {
            let subsamples = parts(pairs);
            let plaintext = noise(total(&subsamples));
            let protection = Protection::constant(known.key_id, scheme, pattern);
            // Of `cenc` a counter that wraps around in the second piece.
            let iv = *b"8 bytes\x01\xff\xff\xff\xff\xff\xfe\xff\xf0";
            let sample = encrypt_all(&protection, iv, &subsamples, &known.key, &plaintext);
            let pieces = cut(&protection, iv, &subsamples, &sample);
            anyhow::ensure!(pieces.len() > 1, "{} pieces", pieces.len());
            let (buffer, _) = region::allocate(VIDEO, plaintext.len() as u64)?;
            let raw = handle(&buffer)?;
            for piece in &pieces {
                let bytes = sample.get(piece.range.clone()).context("outside")?;
                let outcome = ta.decrypt_sample(raw, &piece.request, bytes);
                expect_done(outcome, "DECRYPT_SAMPLE of a piece")?;
            }
            let request = DigestRequest {
                key: DIGEST_KEY,
                offset: 0,
                length: plaintext.len() as u64,
            };
            let seen = expect_done(ta.digest(raw, &request), "DIGEST")?;
            anyhow::ensure!(seen == digest(&plaintext)?, "{scheme:?}: another plaintext");
        }
    }
    Ok(())
}

/// Encrypts a sample of any size: as one message would, if there were one for it.
fn encrypt_all(
    protection: &Protection,
    iv: [u8; 16],
    subsamples: &[Subsample],
    key: &[u8; 16],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut sample = Vec::new();
    let mut counted = 0u64;
    for part in subsamples {
        let length = part.clear as usize + part.encrypted as usize;
        let own = &plaintext[sample.len()..sample.len() + length];
        let mut first = iv;
        let mut used = 0;
        if protection.scheme == Scheme::Cenc {
            let low = u64::from_be_bytes(*iv.last_chunk().expect("8 bytes"));
            let low = low.wrapping_add(counted / 16);
            first[8..].copy_from_slice(&low.to_be_bytes());
            used = (counted % 16) as u8;
        }
        let request = DecryptSample {
            key_id: protection.key_id,
            scheme: protection.scheme,
            iv: first,
            used,
            pattern: protection.pattern,
            offset: 0,
            subsamples: [*part].into_iter().collect(),
        };
        sample.extend(encrypt(&request, key, own));
        counted += u64::from(part.encrypted);
    }
    sample
}

pub fn malformed_samples_are_refused() -> anyhow::Result<()> {
    let (mut ta, known) = session()?;
    let (buffer, _) = region::allocate(VIDEO, 8192)?;
    let raw = handle(&buffer)?;
    let request = |pairs: &[(u32, u32)]| DecryptSample {
        key_id: known.key_id,
        scheme: Scheme::Cenc,
        iv: [0; 16],
        used: 0,
        pattern: Pattern::default(),
        offset: 0,
        subsamples: parts(pairs).into_iter().collect(),
    };
    let good = request(&[(0, 16)]);
    let cases = [
        ("fewer bytes than it says", request(&[(0, 17)]), 16),
        ("more bytes than it says", request(&[(0, 15)]), 16),
        ("subsamples that overflow", request(&[(u32::MAX, 17)]), 16),
        (
            "many that overflow",
            request(&[(u32::MAX, u32::MAX); 64]),
            16,
        ),
        ("no subsamples", request(&[]), 16),
        (
            "a sample too long",
            request(&[(0, (1 << 20) + 1)]),
            (1 << 20) + 1,
        ),
        ("more than the buffer", request(&[(0, 8193)]), 8193),
        (
            "an offset outside",
            DecryptSample {
                offset: 8177,
                ..good.clone()
            },
            16,
        ),
        (
            "an offset that wraps",
            DecryptSample {
                offset: u64::MAX,
                ..good.clone()
            },
            16,
        ),
        (
            "too much of a block used",
            DecryptSample {
                used: 16,
                ..good.clone()
            },
            16,
        ),
        (
            "a pattern for a stream",
            DecryptSample {
                pattern: Pattern { crypt: 1, skip: 9 },
                ..good.clone()
            },
            16,
        ),
        (
            "a pattern of clear blocks",
            DecryptSample {
                scheme: Scheme::Cbcs,
                pattern: Pattern { crypt: 0, skip: 9 },
                ..good.clone()
            },
            16,
        ),
    ];
    for (what, request, length) in &cases {
        let outcome = ta.decrypt_sample(raw, request, &vec![1; *length]);
        expect_code(outcome, result::BAD_PARAMETERS, what)?;
    }
    let stranger = Ta::open()?.decrypt_sample(raw, &good, &[1; 16]);
    expect_code(stranger, result::ITEM_NOT_FOUND, "a key of another session")?;
    expect_zeros(&mut ta, raw, 8192)?;
    expect_done(ta.decrypt_sample(raw, &good, &[1; 16]), "the good one").map(drop)
}
