// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages come back as they went, and nothing else is taken for one.

#[path = "../fuzz/checks.rs"]
mod checks;

use proptest::prelude::*;
use ringfence_proto::message::{
    decode, encode, Decode, DecodeError, Decrypt, DecryptSample, DigestRequest, EncodeError, Info,
    Licence, Message, Pattern, Provision, Scheme, Subsample, MAX_SUBSAMPLES,
};

const DECRYPT: Decrypt = Decrypt {
    key_id: [1; 16],
    counter: [2; 16],
    offset: 0x4000,
};

fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let mut buffer = vec![0; M::MAX_SIZE];
    encode(message, &mut buffer).expect("fits").to_vec()
}

fn comes_back<M: Message + PartialEq + std::fmt::Debug>(message: M) {
    assert_eq!(decode::<M>(&encoded(&message)), Ok(message));
}

proptest! {
    #[test]
    fn info_comes_back(numbers: [u32; 9], test_commands: bool) {
        let [protocol, granule, window, regions, ranges, quarantined, max_ranges, keys, max_keys] =
            numbers;
        comes_back(Info {
            protocol, test_commands, granule, window, regions, ranges, quarantined, max_ranges,
            keys, max_keys,
        });
    }

    #[test]
    fn licence_comes_back(
        key_id: [u8; 16],
        not_after: u64,
        nonce: [u8; 12],
        wrapped_key: [u8; 16],
        tag: [u8; 16],
    ) {
        comes_back(Licence { key_id, not_after, nonce, wrapped_key, tag });
    }

    #[test]
    fn provision_comes_back(
        serial: u32,
        nonce: [u8; 12],
        wrapped_key: [u8; 32],
        tag: [u8; 16],
    ) {
        comes_back(Provision { serial, nonce, wrapped_key, tag });
    }

    #[test]
    fn decrypt_sample_comes_back(
        key_id: [u8; 16],
        is_cenc: bool,
        iv: [u8; 16],
        used: u8,
        (crypt, skip) in any::<(u8, u8)>(),
        offset: u64,
        subsamples in prop::collection::vec(any::<(u32, u32)>(), 0..=MAX_SUBSAMPLES),
    ) {
        comes_back(DecryptSample {
            key_id,
            scheme: if is_cenc { Scheme::Cenc } else { Scheme::Cbcs },
            iv,
            used,
            pattern: Pattern { crypt, skip },
            offset,
            subsamples: subsamples
                .into_iter()
                .map(|(clear, encrypted)| Subsample { clear, encrypted })
                .collect(),
        });
    }

    #[test]
    fn decrypt_comes_back(key_id: [u8; 16], counter: [u8; 16], offset: u64) {
        comes_back(Decrypt { key_id, counter, offset });
    }

    #[test]
    fn decode_comes_back(long: [u64; 3], short: [u32; 4]) {
        let [source_offset, frame, frame_offset] = long;
        let [source_length, stride, width, height] = short;
        comes_back(Decode {
            source_offset, source_length, frame, frame_offset, stride, width, height,
        });
    }

    #[test]
    fn digest_request_comes_back(key: [u8; 32], offset: u64, length: u64) {
        comes_back(DigestRequest { key, offset, length });
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        checks::every_reader(&bytes);
    }

    #[test]
    fn hostile_bytes_behind_a_good_version_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        bytes[0] = 2;
        checks::every_reader(&bytes);
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut bytes = encoded(&DECRYPT);
    bytes.push(0);
    assert_eq!(
        decode::<Decrypt>(&bytes),
        Err(DecodeError::TrailingBytes(1))
    );
}

#[test]
fn unknown_versions_are_refused_before_the_rest_is_read() {
    for (first, version) in [(0, 0), (1, 1), (3, 3), (0x7f, 127)] {
        let mut bytes = encoded(&DECRYPT);
        bytes[0] = first;
        let refused = Err(DecodeError::UnknownVersion(version));
        assert_eq!(decode::<Decrypt>(&bytes), refused);
        assert_eq!(decode::<Decrypt>(&bytes[..1]), refused);
    }
}

#[test]
fn too_long_is_refused() {
    let bytes = vec![2; Licence::MAX_SIZE + 1];
    assert_eq!(
        decode::<Licence>(&bytes),
        Err(DecodeError::TooLong {
            length: Licence::MAX_SIZE + 1,
            max: Licence::MAX_SIZE
        })
    );
}

#[test]
fn cut_short_is_refused() {
    let bytes = encoded(&DECRYPT);
    for length in 0..bytes.len() {
        assert_eq!(
            decode::<Decrypt>(&bytes[..length]),
            Err(DecodeError::Malformed)
        );
    }
}

#[test]
fn padded_integers_are_refused() {
    // The version 2, in two bytes instead of one.
    let mut bytes = vec![0x82, 0x00];
    bytes.extend(&encoded(&DECRYPT)[1..]);
    assert_eq!(decode::<Decrypt>(&bytes), Err(DecodeError::NotCanonical));

    // The offset 0x4000 with a needless zero byte on top.
    let mut bytes = encoded(&DECRYPT);
    *bytes.last_mut().expect("not empty") |= 0x80;
    bytes.push(0);
    assert_eq!(decode::<Decrypt>(&bytes), Err(DecodeError::NotCanonical));
}

#[test]
fn a_boolean_is_zero_or_one() {
    let mut bytes = encoded(&Info {
        protocol: 1,
        test_commands: true,
        granule: 1,
        window: 1,
        regions: 1,
        ranges: 1,
        quarantined: 1,
        max_ranges: 1,
        keys: 1,
        max_keys: 1,
    });
    bytes[2] = 2;
    assert_eq!(decode::<Info>(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn a_subsample_too_many_is_refused() {
    let sample = DecryptSample {
        key_id: [0; 16],
        scheme: Scheme::Cenc,
        iv: [0; 16],
        used: 0,
        pattern: Pattern::default(),
        offset: 0,
        subsamples: heapless::Vec::new(),
    };
    let mut bytes = encoded(&sample);
    assert_eq!(bytes.pop(), Some(0), "the list comes last");
    let with = |count: usize| {
        let list = [&[count as u8][..], &vec![1; 2 * count]].concat();
        [bytes.as_slice(), &list].concat()
    };
    let most = decode::<DecryptSample>(&with(MAX_SUBSAMPLES)).expect("as many as there may be");
    assert_eq!(most.subsamples.len(), MAX_SUBSAMPLES);
    assert_eq!(
        decode::<DecryptSample>(&with(MAX_SUBSAMPLES + 1)),
        Err(DecodeError::Malformed)
    );
    assert_eq!(
        decode::<DecryptSample>(&with(1)[..bytes.len() + 2]),
        Err(DecodeError::Malformed)
    );
}

#[test]
fn an_unknown_scheme_is_refused() {
    let sample = DecryptSample {
        key_id: [7; 16],
        scheme: Scheme::Cbcs,
        iv: [7; 16],
        used: 0,
        pattern: Pattern { crypt: 1, skip: 9 },
        offset: 0,
        subsamples: heapless::Vec::new(),
    };
    let mut bytes = encoded(&sample);
    let place = bytes.iter().position(|byte| *byte == 1).expect("a one");
    bytes[place] = 2;
    assert_eq!(decode::<DecryptSample>(&bytes), Err(DecodeError::Malformed));
}

#[test]
fn what_is_authenticated_tells_keys_apart() {
    let provision = Provision {
        serial: 0x0102_0304,
        nonce: [0; 12],
        wrapped_key: [0; 32],
        tag: [0; 16],
    };
    assert_eq!(
        provision.aad(),
        *b"ringfence device key v1\0\x04\x03\x02\x01"
    );
    let licence = Licence {
        key_id: *b"ringfence key id",
        not_after: 0x0102_0304_0506_0708,
        nonce: [0; 12],
        wrapped_key: [0; 16],
        tag: [0; 16],
    };
    assert_eq!(
        licence.aad(),
        *b"ringfence key id\x08\x07\x06\x05\x04\x03\x02\x01"
    );
}

#[test]
fn a_small_buffer_is_refused() {
    let length = encoded(&DECRYPT).len();
    assert_eq!(encode(&DECRYPT, &mut vec![0; length - 1]), Err(EncodeError));
}
