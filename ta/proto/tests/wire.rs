// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pins every number and encoding that separately built programs share.
//!
//! A test that fails here means: the interface changed, so raise its version.

use ringfence_proto::command::{self, Protection, RangeKind, RangeRecord, RangeState, UseCase};
use ringfence_proto::decoder;
use ringfence_proto::firewall::{self, LedgerRecord};
use ringfence_proto::message::{
    encode, Decode, Decrypt, DecryptSample, DigestRequest, Info, Licence, Message, Pattern,
    Provision, Scheme, Subsample, CONTENT_KEY_SIZE, DEVICE_KEY_SIZE, MAX_SAMPLE, MAX_SUBSAMPLES,
    VERSION,
};

/// The UUID's text form of RFC 4122.
fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[test]
fn uuids() {
    assert_eq!(
        uuid_text(&command::TA_UUID),
        "9a3e4d0c-8b57-4c7e-a1f6-5d2c90e7b314"
    );
    assert_eq!(command::TA_UUID_TEXT, uuid_text(&command::TA_UUID));
    assert_eq!(
        uuid_text(&firewall::FIREWALL_UUID),
        "3f61b2a8-0c4e-4b9d-8e27-71d5a6c0f948"
    );
}

#[test]
fn commands_of_the_trusted_application() {
    assert_eq!(command::PROTOCOL_VERSION, 3);
    assert_eq!(command::LOGIN_REE_KERNEL, 0x8000_0000);
    assert_eq!(command::HELLO, 0x100);
    assert_eq!(command::PROTECT, 0x101);
    assert_eq!(command::UNPROTECT, 0x102);
    assert_eq!(command::LIST, 0x103);
    assert_eq!(command::NAME, 0x104);
    assert_eq!(command::SCRUB, 0x105);
    assert_eq!(command::ABILITIES, 0x106);
    assert_eq!(command::INFO, 0x200);
    assert_eq!(command::LOAD_LICENCE, 0x201);
    assert_eq!(command::DECRYPT, 0x202);
    assert_eq!(command::PROVISION, 0x203);
    assert_eq!(command::DECRYPT_SAMPLE, 0x204);
    assert_eq!(command::DIGEST, 0x2f0);
    assert_eq!(command::PANIC, 0x2f1);
    assert_eq!(command::INJECT, 0x2f2);
    assert_eq!(command::DERAIL, 0x2f3);
    assert_eq!(command::HOLD, 0x2f4);
    assert_eq!(command::LET_GO, 0x2f5);
    assert_eq!(command::METER, 0x2f6);
    assert_eq!(command::FILL, 0x2f7);
    assert_eq!(command::CIPHER, 0x2f8);
    assert_eq!(command::FORGET, 0x2f9);
    assert_eq!(command::MAX_HELD, 4);
    assert_eq!(command::derailment::REFUSE, 1);
    assert_eq!(command::derailment::DENY, 2);
    assert_eq!(command::derailment::PANIC_BEFORE, 3);
    assert_eq!(command::derailment::PANIC_AFTER, 4);
    assert_eq!(command::DIGEST_SIZE, 32);
    assert_eq!(command::NO_HANDLE, 0);
}

#[test]
fn commands_of_the_decoder() {
    assert_eq!(
        uuid_text(&decoder::DECODER_UUID),
        "5b1c7e62-94d0-4f3a-8c1b-2f60ad3e97c5"
    );
    assert_eq!(
        decoder::DECODER_UUID_TEXT,
        uuid_text(&decoder::DECODER_UUID)
    );
    assert_eq!(command::LOGIN_TRUSTED_APP, 0xf000_0000);
    assert_eq!(command::RESOLVE, 0x300);
    assert_eq!(decoder::DECODE, 0x400);
    assert_eq!(decoder::ASK, 0x4f0);
    assert_eq!(decoder::HOLD, 0x4f1);
    assert_eq!(decoder::DOOM, 0x4f2);
    assert_eq!(decoder::MAX_SOURCE, 0x10_0000);
    assert_eq!(decoder::MAX_FRAME, 0x40_0000);
    assert_eq!(decoder::MAX_WIDTH, 2048);
    assert_eq!(decoder::PIXEL, 4);
    assert_eq!(decoder::MAX_SESSIONS, 8);
    assert_eq!(decoder::result::OTHER_SIZE, 0xffff_0004);
    assert_eq!(decoder::result::BAD_FORMAT, 0xffff_0005);
    assert_eq!(decoder::result::UNSUPPORTED, 0xffff_0009);
}

#[test]
fn commands_of_the_firewall() {
    assert_eq!(firewall::PROTOCOL_VERSION, 2);
    assert_eq!(firewall::MAX_RANGES, 1024);
    assert_eq!(firewall::PROTECT, 1);
    assert_eq!(firewall::UNPROTECT, 2);
    assert_eq!(firewall::MAP, 3);
    assert_eq!(firewall::UNMAP, 4);
    assert_eq!(firewall::LIST, 5);
    assert_eq!(firewall::INFO, 6);
    assert_eq!(firewall::NAME, 7);
    assert_eq!(firewall::FORGET, 8);
    assert_eq!(firewall::SCRUB, 9);
    assert_eq!(firewall::METER, 0x7e);
    assert_eq!(firewall::INJECT, 0x7f);
    assert_eq!(firewall::fail_point::FENCE, 1);
    assert_eq!(firewall::fail_point::OPEN, 2);
    assert_eq!(firewall::fail_point::SCRUB, 3);
    assert_eq!(firewall::fail_point::MAP, 4);
    assert_eq!(firewall::fail_point::OBJECT, 5);
    assert_eq!(firewall::fail_point::UNMAP, 6);
    assert_eq!(firewall::fail_point::COPY, 7);
    assert_eq!(firewall::fail_point::WINDOWS, 8);
    assert_eq!(firewall::fail_point::ANY, 0xff);
}

#[test]
fn results_have_the_numbers_of_globalplatform_and_op_tee() {
    use command::result::*;
    assert_eq!(SUCCESS, 0);
    assert_eq!(GENERIC, 0xffff0000);
    assert_eq!(ACCESS_DENIED, 0xffff0001);
    assert_eq!(ACCESS_CONFLICT, 0xffff0003);
    assert_eq!(BAD_PARAMETERS, 0xffff0006);
    assert_eq!(ITEM_NOT_FOUND, 0xffff0008);
    assert_eq!(NOT_SUPPORTED, 0xffff000a);
    assert_eq!(OUT_OF_MEMORY, 0xffff000c);
    assert_eq!(BUSY, 0xffff000d);
    assert_eq!(SHORT_BUFFER, 0xffff0010);
    assert_eq!(NO_WINDOW, 0xffff3041);
    assert_eq!(TARGET_DEAD, 0xffff3024);
    assert_eq!(MAC_INVALID, 0xffff3071);
    assert_eq!(NOT_PROVISIONED, 0x80000001);
    assert_eq!(EXPIRED, 0x80000002);
    assert_eq!(ROLLED_BACK, 0x80000003);
}

#[test]
fn use_cases_and_states() {
    let names = ["none", "secure-video", "trusted-ui", "secure-video-record"];
    for (raw, name) in (0u32..).zip(names) {
        let use_case = UseCase::from_raw(raw).expect("pinned use case");
        assert_eq!((use_case.raw(), use_case.name()), (raw, name));
        assert_eq!(UseCase::from_name(name), Some(use_case));
    }
    assert_eq!(UseCase::from_raw(4), None);
    assert_eq!(UseCase::from_name("secure"), None);

    assert_eq!(RangeState::from_raw(0), None);
    assert_eq!(RangeState::from_raw(1), Some(RangeState::Protected));
    assert_eq!(RangeState::from_raw(2), Some(RangeState::Quarantined));
    assert_eq!(RangeState::from_raw(3), None);
    assert_eq!(RangeState::Protected.raw(), 1);
    assert_eq!(RangeState::Quarantined.raw(), 2);

    for (raw, kind) in (1u32..).zip([RangeKind::Range, RangeKind::Region, RangeKind::Part]) {
        assert_eq!((kind.raw(), RangeKind::from_raw(raw)), (raw, Some(kind)));
    }
    assert_eq!(RangeKind::from_raw(0), None);
    assert_eq!(RangeKind::from_raw(4), None);

    assert_eq!(Protection::from_name("buffer"), Some(Protection::Buffer));
    assert_eq!(Protection::from_name("region"), Some(Protection::Region));
    assert_eq!(Protection::from_name("regions"), None);
    assert_eq!(Protection::from_name(""), None);
}

#[test]
fn numbers_travel_high_half_first() {
    assert_eq!(
        command::split(0x1122_3344_5566_7788),
        (0x1122_3344, 0x5566_7788)
    );
    assert_eq!(
        command::join(0x1122_3344, 0x5566_7788),
        0x1122_3344_5566_7788
    );
    assert_eq!(
        command::join(u32::MAX, 0).wrapping_add(u32::MAX.into()),
        u64::MAX
    );
}

#[test]
fn range_record() {
    let record = RangeRecord {
        start: 0x0102_0304_0506_0708,
        size: 0x1112_1314_1516_1718,
        handle: 0x2122_2324_2526_2728,
        use_case: 0x3132_3334,
        state: 0x4142_4344,
        kind: 0x5152_5354,
    };
    let golden = [
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12,
        0x11, 0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43,
        0x42, 0x41, 0x54, 0x53, 0x52, 0x51,
    ];
    assert_eq!(record.to_le_bytes(), golden);
    assert_eq!(RangeRecord::from_le_bytes(&golden), record);

    let mut list = golden.to_vec();
    list.extend(golden);
    list.extend(&golden[..RangeRecord::SIZE - 1]);
    assert!(RangeRecord::parse(&list).eq([record, record]));
}

#[test]
fn ledger_record() {
    let record = LedgerRecord {
        start: 0x0102_0304_0506_0708,
        size: 0x1112_1314_1516_1718,
        use_case: 0x3132_3334,
        state: 0x4142_4344,
        kind: 0x5152_5354,
    };
    let golden = [
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12,
        0x11, 0x34, 0x33, 0x32, 0x31, 0x44, 0x43, 0x42, 0x41, 0x54, 0x53, 0x52, 0x51,
    ];
    assert_eq!(record.to_le_bytes(), golden);
    assert_eq!(LedgerRecord::from_le_bytes(&golden), record);
    assert!(LedgerRecord::parse(&golden[..]).eq([record]));
}

/// Asserts the encoding of a message, and that its largest value fits exactly.
fn assert_encoding<M: Message>(message: M, golden: &[u8], largest: M) {
    let mut buffer = [0; 1024];
    assert_eq!(encode(&message, &mut buffer), Ok(golden));
    // The version of today takes one byte of the three that it may take.
    let length = encode(&largest, &mut buffer).expect("fits").len();
    assert_eq!(length + 2, M::MAX_SIZE);
}

#[test]
fn info() {
    let info = |number| Info {
        protocol: number,
        test_commands: true,
        granule: number,
        window: number,
        regions: number,
        ranges: number,
        quarantined: number,
        max_ranges: number,
        keys: number,
        max_keys: number,
    };
    assert_eq!(VERSION, 2);
    assert_encoding(
        Info {
            protocol: 1,
            test_commands: false,
            granule: 4096,
            window: 0x20_0000,
            regions: 2,
            ranges: 3,
            quarantined: 4,
            max_ranges: 256,
            keys: 5,
            max_keys: 8,
        },
        &[
            2, 1, 0, 0x80, 0x20, 0x80, 0x80, 0x80, 0x01, 2, 3, 4, 0x80, 0x02, 5, 8,
        ],
        info(u32::MAX),
    );
}

#[test]
fn provision() {
    assert_eq!(DEVICE_KEY_SIZE, 32);
    let provision = |serial| Provision {
        serial,
        nonce: [0xa2; 12],
        wrapped_key: [0xa3; 32],
        tag: [0xa4; 16],
    };
    let golden = [&[2, 0x81, 1][..], &[0xa2; 12], &[0xa3; 32], &[0xa4; 16]].concat();
    assert_encoding(provision(129), &golden, provision(u32::MAX));
}

#[test]
fn licence() {
    assert_eq!(CONTENT_KEY_SIZE, 16);
    let licence = |not_after| Licence {
        key_id: [0xa1; 16],
        not_after,
        nonce: [0xa2; 12],
        wrapped_key: [0xa3; 16],
        tag: [0xa4; 16],
    };
    let golden = [
        &[2][..],
        &[0xa1; 16],
        &[0x80, 1],
        &[0xa2; 12],
        &[0xa3; 16],
        &[0xa4; 16],
    ]
    .concat();
    assert_encoding(licence(128), &golden, licence(u64::MAX));
}

#[test]
fn decrypt_sample() {
    assert_eq!((MAX_SAMPLE, MAX_SUBSAMPLES), (1 << 20, 64));
    let sample = |scheme, offset, subsamples: &[(u32, u32)]| DecryptSample {
        key_id: [0xb1; 16],
        scheme,
        iv: [0xb2; 16],
        used: 15,
        pattern: Pattern { crypt: 1, skip: 9 },
        offset,
        subsamples: subsamples
            .iter()
            .map(|&(clear, encrypted)| Subsample { clear, encrypted })
            .collect(),
    };
    let golden = [
        &[2][..],
        &[0xb1; 16],
        &[1],
        &[0xb2; 16],
        &[15, 1, 9, 0x80, 0x20, 2, 3, 4, 0, 0x80, 1],
    ]
    .concat();
    let most = [(u32::MAX, u32::MAX); MAX_SUBSAMPLES];
    assert_encoding(
        sample(Scheme::Cbcs, 4096, &[(3, 4), (0, 128)]),
        &golden,
        sample(Scheme::Cenc, u64::MAX, &most),
    );
}

#[test]
fn decrypt() {
    let decrypt = |offset| Decrypt {
        key_id: [0xb1; 16],
        counter: [0xb2; 16],
        offset,
    };
    let golden = [&[2][..], &[0xb1; 16], &[0xb2; 16], &[0x81, 0x20]].concat();
    assert_encoding(decrypt(4097), &golden, decrypt(u64::MAX));
}

#[test]
fn digest_request() {
    let digest = |offset, length| DigestRequest {
        key: [0xc1; 32],
        offset,
        length,
    };
    let golden = [&[2][..], &[0xc1; 32], &[0x00], &[0x80, 0x01]].concat();
    assert_encoding(digest(0, 128), &golden, digest(u64::MAX, u64::MAX));
    assert!(!format!("{:?}", digest(0, 1)).contains("193"));
}

#[test]
fn decode() {
    let decode = |long, short| Decode {
        source_offset: long,
        source_length: short,
        frame: long,
        frame_offset: long,
        stride: short,
        width: short,
        height: short,
    };
    let message = Decode {
        source_offset: 0,
        source_length: 129,
        frame: 5,
        frame_offset: 4096,
        stride: 2560,
        width: 640,
        height: 360,
    };
    let golden = [
        2, 0, 0x81, 0x01, 5, 0x80, 0x20, 0x80, 0x14, 0x80, 0x05, 0xe8, 0x02,
    ];
    assert_encoding(message, &golden, decode(u64::MAX, u32::MAX));
}
