// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fuzz target's seeds: made from typed values, and fed to its checks
//! whole, cut short and damaged.
//!
//! With `RINGFENCE_WRITE_SEEDS=1` in the environment the seeds are written
//! instead of compared.

#[path = "../fuzz/checks.rs"]
mod checks;

#[path = "../fuzz/seeds.rs"]
#[expect(dead_code, reason = "nothing is damaged at random here")]
mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringfence_proto::command::{RangeKind, RangeRecord, RangeState, UseCase};
use ringfence_proto::firewall::LedgerRecord;
use ringfence_proto::message::{
    encode, Decode, Decrypt, DecryptSample, DigestRequest, Info, Licence, Message, Pattern,
    Provision, Scheme, Subsample,
};

fn encoded<M: Message>(message: M) -> Vec<u8> {
    let mut buffer = [0; 1024];
    encode(&message, &mut buffer).expect("fits").to_vec()
}

/// Name and content of every seed.
fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let range = |start, state: RangeState, kind: RangeKind| RangeRecord {
        start,
        size: 0x20_0000,
        handle: 0x0123_4567_89ab_cdef,
        use_case: UseCase::SecureVideo.raw(),
        state: state.raw(),
        kind: kind.raw(),
    };
    let ledger = LedgerRecord {
        start: 0x8000_0000,
        size: 0x1000,
        use_case: UseCase::TrustedUi.raw(),
        state: RangeState::Protected.raw(),
        kind: RangeKind::Region.raw(),
    };
    let decrypt = |offset| Decrypt {
        key_id: *b"ringfence key id",
        counter: [0xff; 16],
        offset,
    };
    let sample = |scheme, pattern, used, subsamples: &[(u32, u32)]| DecryptSample {
        key_id: *b"ringfence key id",
        scheme,
        iv: [0xff; 16],
        used,
        pattern,
        offset: 0x1000,
        subsamples: subsamples
            .iter()
            .map(|&(clear, encrypted)| Subsample { clear, encrypted })
            .collect(),
    };
    BTreeMap::from([
        (
            "info",
            encoded(Info {
                protocol: 1,
                test_commands: true,
                granule: 4096,
                window: 0x40_0000,
                regions: 2,
                ranges: 17,
                quarantined: 1,
                max_ranges: 256,
                keys: 0,
                max_keys: 8,
            }),
        ),
        (
            "licence",
            encoded(Licence {
                key_id: *b"ringfence key id",
                not_after: 2_000_000_000,
                nonce: [1; 12],
                wrapped_key: [2; 16],
                tag: [3; 16],
            }),
        ),
        (
            "provision",
            encoded(Provision {
                serial: 300,
                nonce: [1; 12],
                wrapped_key: [2; 32],
                tag: [3; 16],
            }),
        ),
        (
            "sample-cenc",
            encoded(sample(
                Scheme::Cenc,
                Pattern::default(),
                5,
                &[(9, 0x1_0000), (0, 7)],
            )),
        ),
        (
            "sample-cbcs",
            encoded(sample(
                Scheme::Cbcs,
                Pattern { crypt: 1, skip: 9 },
                0,
                &[(100, 1600)],
            )),
        ),
        (
            "sample-overflow",
            encoded(sample(
                Scheme::Cenc,
                Pattern::default(),
                0,
                &[(u32::MAX, u32::MAX); 3],
            )),
        ),
        ("decrypt-first", encoded(decrypt(0))),
        ("decrypt-last", encoded(decrypt(u64::MAX))),
        (
            "decode",
            encoded(Decode {
                source_offset: 4096,
                source_length: 65_536,
                frame: 0x0123_4567_89ab_cdef,
                frame_offset: 0,
                stride: 2560,
                width: 640,
                height: 360,
            }),
        ),
        (
            "digest",
            encoded(DigestRequest {
                key: [4; 32],
                offset: 0x1000,
                length: u64::MAX,
            }),
        ),
        (
            "ranges",
            [
                range(0x8000_0000, RangeState::Protected, RangeKind::Range),
                range(0x8020_0000, RangeState::Quarantined, RangeKind::Part),
            ]
            .map(|record| record.to_le_bytes())
            .concat(),
        ),
        ("ledger", ledger.to_le_bytes().to_vec()),
    ])
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/decode")
}

#[test]
fn seeds_are_what_the_types_say() {
    let seeds = seeds();
    assert_eq!(stored::check(&folder(), &seeds).len(), seeds.len());
}

#[test]
fn seeds_hold_what_must_hold_for_any_bytes() {
    for seed in seeds().values() {
        checks::every_reader(seed);
        for length in 0..seed.len() {
            checks::every_reader(&seed[..length]);
        }
        for bit in 0..seed.len() * 8 {
            let mut damaged = seed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            checks::every_reader(&damaged);
            damaged.push(0);
            checks::every_reader(&damaged);
        }
    }
}
