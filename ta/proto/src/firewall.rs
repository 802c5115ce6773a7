// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands of the firewall, the pseudo-TA in OP-TEE's core that keeps the
//! ledger of protected ranges.
//!
//! Only the Ringfence TA may open a session to it, and the decoder, which may
//! ask for [`MAP`] and [`UNMAP`] of what is for secure video. A 64-bit number
//! travels in one value parameter as `(a, b)` = (high half, low half).

/// UUID of the firewall, in the byte order of RFC 4122.
pub const FIREWALL_UUID: [u8; 16] = [
    0x3f, 0x61, 0xb2, 0xa8, 0x0c, 0x4e, 0x4b, 0x9d, 0x8e, 0x27, 0x71, 0xd5, 0xa6, 0xc0, 0xf9, 0x48,
];

/// Version of the commands and records in this file, as [`INFO`] reports it.
pub const PROTOCOL_VERSION: u32 = 2;

/// Ranges and named parts that the ledger holds at most.
///
/// The TA names as many, so that none can be fenced off without a name.
pub const MAX_RANGES: usize = 1024;

/// In: physical address, in: size in bytes, out: (use case, kind).
///
/// In a carveout that is fenced as a whole it must be all of it. The kind is the
/// number of a [`RangeKind`](crate::command::RangeKind).
pub const PROTECT: u32 = 1;

/// In: physical address, in: size in bytes.
pub const UNPROTECT: u32 = 2;

/// In: physical address, in: size in bytes, out: virtual address.
///
/// Maps a page-aligned part of one protected range, or of a named part of a
/// region, read and write, into the calling TA. A range that another TA, or
/// another instance of the same, has mapped any part of is
/// [busy](crate::command::result::BUSY).
pub const MAP: u32 = 3;

/// In: virtual address, in: size in bytes.
pub const UNMAP: u32 = 4;

/// Memref out: [`LedgerRecord`]s, out: (number of records, how many of them
/// are quarantined).
pub const LIST: u32 = 5;

/// Out: (granule in bytes, largest window of [`MAP`] in bytes), out: (protocol
/// version, number of regions), out: (windows of the barrier or 0 for no limit,
/// 0).
pub const INFO: u32 = 6;

/// In: physical address, in: size in bytes, out: (use case, 0).
///
/// Makes a part of a region that is fenced as a whole known, so that it can be
/// mapped. Its content stays.
pub const NAME: u32 = 7;

/// In: physical address, in: size in bytes.
///
/// Zeroes a named part and forgets it; it stays fenced with its region.
pub const FORGET: u32 = 8;

/// In: physical address, in: size in bytes.
///
/// Zeroes a stretch of a region that is fenced as a whole, in which nothing is
/// named.
pub const SCRUB: u32 = 9;

/// Test builds of the firewall only; the answers are those of
/// [`command::METER`](crate::command::METER).
pub const METER: u32 = 0x7e;

/// Test builds of the firewall only. In: (fail point, nth).
///
/// The nth next step of this kind ([`fail_point`]) fails, once. 0 disarms. With
/// [`fail_point::WINDOWS`] the barrier pretends to have so many windows instead.
pub const INJECT: u32 = 0x7f;

/// Steps that [`INJECT`] can make fail.
pub mod fail_point {
    /// A call to the firmware that fences a block.
    pub const FENCE: u32 = 1;
    /// A call to the firmware that opens a block.
    pub const OPEN: u32 = 2;
    /// The scrubbing of a block.
    pub const SCRUB: u32 = 3;
    /// The mapping of a window into the TA.
    pub const MAP: u32 = 4;
    /// The making of the object that a range's windows are cut from: an
    /// allocation in OP-TEE's core.
    pub const OBJECT: u32 = 5;
    /// The unmapping of a window.
    pub const UNMAP: u32 = 6;
    /// The handing out of a record of LIST.
    pub const COPY: u32 = 7;
    /// No step: how many windows the barrier has from now on; 0 for its own
    /// number. [`ANY`] does not include it.
    pub const WINDOWS: u32 = 8;
    /// Any of them: the nth next step of whatever kind fails.
    pub const ANY: u32 = 0xff;
}

/// One range in the ledger: 28 bytes, little endian, in field order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LedgerRecord {
    /// Physical address of the first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Number of a [`UseCase`](crate::command::UseCase).
    pub use_case: u32,
    /// Number of a [`RangeState`](crate::command::RangeState).
    pub state: u32,
    /// Number of a [`RangeKind`](crate::command::RangeKind).
    pub kind: u32,
}

impl LedgerRecord {
    /// Bytes of a record on the wire.
    pub const SIZE: usize = 28;

    /// The record on the wire.
    pub fn to_le_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.use_case.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.state.to_le_bytes());
        bytes[24..].copy_from_slice(&self.kind.to_le_bytes());
        bytes
    }

    /// The record that these bytes hold.
    pub const fn from_le_bytes(b: &[u8; Self::SIZE]) -> Self {
        Self {
            start: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            size: u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
            use_case: u32::from_le_bytes([b[16], b[17], b[18], b[19]]),
            state: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
            kind: u32::from_le_bytes([b[24], b[25], b[26], b[27]]),
        }
    }

    /// The records in the answer to a [`LIST`]; an incomplete one at the end
    /// is left out.
    pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        bytes
            .chunks_exact(Self::SIZE)
            .filter_map(|chunk| chunk.try_into().ok())
            .map(Self::from_le_bytes)
    }
}
