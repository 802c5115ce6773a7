// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages come back as they went, and nothing else is taken for one.

#[path = "../fuzz/checks.rs"]
mod checks;

use proptest::prelude::*;
use ringfence_proto::message::{
    decode, encode, Decode, DecodeError, Decrypt, DigestRequest, EncodeError, Info, Licence,
    Message,
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
    fn licence_comes_back(key_id: [u8; 16], nonce: [u8; 12], wrapped_key: [u8; 16], tag: [u8; 16]) {
        comes_back(Licence { key_id, nonce, wrapped_key, tag });
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
        bytes[0] = 1;
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
    for (first, version) in [(0, 0), (2, 2), (0x7f, 127)] {
        let mut bytes = encoded(&DECRYPT);
        bytes[0] = first;
        let refused = Err(DecodeError::UnknownVersion(version));
        assert_eq!(decode::<Decrypt>(&bytes), refused);
        assert_eq!(decode::<Decrypt>(&bytes[..1]), refused);
    }
}

#[test]
fn too_long_is_refused() {
    let bytes = vec![1; Licence::MAX_SIZE + 1];
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
    // The version 1, in two bytes instead of one.
    let mut bytes = vec![0x81, 0x00];
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
fn a_small_buffer_is_refused() {
    let length = encoded(&DECRYPT).len();
    assert_eq!(encode(&DECRYPT, &mut vec![0; length - 1]), Err(EncodeError));
}
