// SPDX-License-Identifier: MIT OR Apache-2.0

//! What must hold for any bytes at all; shared by the fuzz target and by the
//! tests that feed it seeds, random bytes and damaged messages.

use ringfence_proto::command::RangeRecord;
use ringfence_proto::firewall::LedgerRecord;
use ringfence_proto::message::{
    decode, encode, Decode, Decrypt, DecryptSample, DigestRequest, Info, Licence, Message,
    Provision,
};

/// Reads `bytes` as everything that the protocol has.
pub fn every_reader(bytes: &[u8]) {
    one_encoding::<Info>(bytes);
    one_encoding::<Provision>(bytes);
    one_encoding::<Licence>(bytes);
    one_encoding::<DecryptSample>(bytes);
    one_encoding::<Decrypt>(bytes);
    one_encoding::<Decode>(bytes);
    one_encoding::<DigestRequest>(bytes);
    for record in RangeRecord::parse(bytes) {
        assert_eq!(RangeRecord::from_le_bytes(&record.to_le_bytes()), record);
    }
    for record in LedgerRecord::parse(bytes) {
        assert_eq!(LedgerRecord::from_le_bytes(&record.to_le_bytes()), record);
    }
}

/// Bytes that are a message are the only encoding of that message.
fn one_encoding<M: Message>(bytes: &[u8]) {
    if let Ok(message) = decode::<M>(bytes) {
        let mut buffer = [0; 1024];
        assert_eq!(encode(&message, &mut buffer), Ok(bytes));
    }
}
