// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands of the trusted application, as Linux calls them.
//!
//! A 64-bit number travels in one value parameter as `(a, b)` = (high half,
//! low half): see [`split`] and [`join`]. Parameters that a command does not
//! name are of type NONE, and any other combination of types is answered
//! [`result::BAD_PARAMETERS`].
//!
//! The commands below `0x200` are for the kernel alone: the TA answers
//! [`result::ACCESS_DENIED`] unless the session was opened with
//! [`LOGIN_REE_KERNEL`], a login that the TEE driver refuses to user space.
//!
//! This file depends on `core` only, because the Linux module compiles it too.

/// UUID of the TA, in the byte order of RFC 4122 (as `struct
/// tee_ioctl_open_session_arg` carries it).
pub const TA_UUID: [u8; 16] = [
    0x9a, 0x3e, 0x4d, 0x0c, 0x8b, 0x57, 0x4c, 0x7e, 0xa1, 0xf6, 0x5d, 0x2c, 0x90, 0xe7, 0xb3, 0x14,
];

/// [`TA_UUID`] as text.
pub const TA_UUID_TEXT: &str = "9a3e4d0c-8b57-4c7e-a1f6-5d2c90e7b314";

/// Version of the commands and records in this file, as [`HELLO`] reports it.
pub const PROTOCOL_VERSION: u32 = 3;

/// Client login of another trusted application (`TEE_LOGIN_TRUSTED_APP`), which
/// OP-TEE's core alone gives.
pub const LOGIN_TRUSTED_APP: u32 = 0xf000_0000;

/// Client login of the Linux kernel (`TEE_IOCTL_LOGIN_REE_KERNEL`).
pub const LOGIN_REE_KERNEL: u32 = 0x8000_0000;

/// Kernel only. Out: (protocol version, granule in bytes).
///
/// The granule is the unit in which ranges can be protected. The command is the
/// same in every version: nothing else may be asked before its answer is known
/// to be [`PROTOCOL_VERSION`].
pub const HELLO: u32 = 0x100;

/// Kernel only. In: physical address, in: size in bytes, out: handle.
///
/// Fences the range off from the normal world. On every error the range is as
/// it was, or quarantined and shown so by [`LIST`]. In a carveout that is fenced
/// as a whole ([`Protection::Region`]) the range must be all of it, and the
/// handle opens to no content command.
pub const PROTECT: u32 = 0x101;

/// Kernel only. In: handle.
///
/// Zeroes the range, then opens it to the normal world; a part of a region
/// ([`NAME`]) is zeroed and stays fenced. From this call on the handle is
/// refused by the content commands, even when the call fails; a failed call can
/// be repeated.
pub const UNPROTECT: u32 = 0x102;

/// Kernel only. Memref out: [`RangeRecord`]s, out: (number of records, 0).
///
/// A buffer that is too small gets [`result::SHORT_BUFFER`] and the size it
/// needs.
pub const LIST: u32 = 0x103;

/// Kernel only. In: physical address, in: size in bytes, out: handle.
///
/// Names a part of a region that is fenced as a whole, so that content commands
/// can use it. Its content stays as it is. It must not overlap another part.
pub const NAME: u32 = 0x104;

/// Kernel only. In: physical address, in: size in bytes.
///
/// Zeroes a stretch of a region that is fenced as a whole, in which no part is
/// named.
pub const SCRUB: u32 = 0x105;

/// Kernel only. Out: (granule in bytes, windows of the firewall).
///
/// 0 windows stand for as many as there are ranges. Otherwise so many separate
/// stretches can be fenced at once, where ranges that touch each other are one;
/// beyond it [`PROTECT`] answers [`result::NO_WINDOW`], and so does
/// [`UNPROTECT`] of a range between two others.
pub const ABILITIES: u32 = 0x106;

/// Anybody. Memref out: a postcard `Info` message.
pub const INFO: u32 = 0x200;

/// Anybody. Memref in: a postcard `Licence` message.
///
/// The key is known in this session only, until it closes. Without a device key
/// ([`PROVISION`]) the answer is [`result::NOT_PROVISIONED`], after the licence's
/// last second [`result::EXPIRED`].
pub const LOAD_LICENCE: u32 = 0x201;

/// Anybody. In: handle, memref in: a postcard `Decrypt` message, memref in:
/// ciphertext, out: bytes written (high, low).
pub const DECRYPT: u32 = 0x202;

/// Anybody. Memref in: a postcard `Provision` message.
///
/// Puts the device key into the TA's secure storage. A key that is no newer than
/// the stored one is answered [`result::ROLLED_BACK`], unless it is the same.
pub const PROVISION: u32 = 0x203;

/// Anybody. In: handle, memref in: a postcard `DecryptSample` message, memref in:
/// the sample, or a piece of it, out: bytes written (high, low).
///
/// The sample's clear bytes are copied into the buffer, the encrypted ones
/// decrypted straight into it.
pub const DECRYPT_SAMPLE: u32 = 0x204;

/// The decoder only. In: handle, out: physical address, out: size in bytes.
///
/// Where the range is that a handle for secure video names. Everybody but the
/// trusted application with the decoder's UUID is answered
/// [`result::ACCESS_DENIED`].
pub const RESOLVE: u32 = 0x300;

/// Test builds of the TA only. In: handle, memref in: a postcard
/// `DigestRequest`, memref out: [`DIGEST_SIZE`] bytes of HMAC-SHA256.
pub const DIGEST: u32 = 0x2f0;

/// Test builds of the TA only. Makes the TA panic.
pub const PANIC: u32 = 0x2f1;

/// Test builds of the TA only. In: (fail point, nth), handed to the firewall.
pub const INJECT: u32 = 0x2f2;

/// Test builds of the TA only. In: (command, [`derailment`]), in: (result
/// code, 0).
///
/// The next call of that command goes wrong in that way, once, whoever calls
/// it. Command 0 disarms.
pub const DERAIL: u32 = 0x2f3;

/// Test builds of the TA only. In: handle, in: offset in bytes, in: length in
/// bytes.
///
/// Keeps that part of the range mapped, as a content command does while it
/// works, until [`LET_GO`] or the end of the session. A session holds
/// [`MAX_HELD`] parts at most, each of them within one window.
pub const HOLD: u32 = 0x2f4;

/// Test builds of the TA only. Ends every [`HOLD`] of the session.
pub const LET_GO: u32 = 0x2f5;

/// Test builds of the TA only. Out: (calls of the firmware, blocks zeroed),
/// out: ticks in the firmware (high, low), out: ticks for scrubbing (high, low),
/// out: ticks in the bare zeroing loop (high, low).
///
/// What the firewall has done since the last METER, in ticks of the physical
/// counter.
pub const METER: u32 = 0x2f6;

/// Test builds of the TA only. In: handle, in: (byte, 0).
///
/// Fills the range with that byte, whatever its use case.
pub const FILL: u32 = 0x2f7;

/// Test builds of the TA only. In: (bytes, 0).
///
/// Runs AES-CTR over so many bytes of the TA's own memory, under a key that is no
/// secret: what [`DECRYPT_SAMPLE`] is compared with.
pub const CIPHER: u32 = 0x2f8;

/// Test builds of the TA only. Forgets what was read of secure storage, as a new
/// instance has read nothing.
pub const FORGET: u32 = 0x2f9;

/// Parts of ranges that a session can [`HOLD`] at once.
pub const MAX_HELD: usize = 4;

/// Ways in which [`DERAIL`] makes a command go wrong.
pub mod derailment {
    /// It is refused with the result code, and does nothing.
    pub const REFUSE: u32 = 1;
    /// It is carried out, and answered with the result code all the same.
    pub const DENY: u32 = 2;
    /// The TA panics before the command does anything.
    pub const PANIC_BEFORE: u32 = 3;
    /// The TA panics when the command is carried out, before it is answered.
    pub const PANIC_AFTER: u32 = 4;
}

/// Bytes of the digest that [`DIGEST`] answers.
pub const DIGEST_SIZE: usize = 32;

/// The handle that never names a range.
pub const NO_HANDLE: u64 = 0;

/// Results of a command: GlobalPlatform's TEE Internal Core API, "Return
/// Codes", and OP-TEE's extensions.
pub mod result {
    /// Done.
    pub const SUCCESS: u32 = 0;
    /// A failure without a better name; also a refusal by the firmware.
    pub const GENERIC: u32 = 0xffff_0000;
    /// The caller, the address or the use case is not allowed.
    pub const ACCESS_DENIED: u32 = 0xffff_0001;
    /// The range overlaps a protected one.
    pub const ACCESS_CONFLICT: u32 = 0xffff_0003;
    /// Malformed parameters or message, or bytes outside the range.
    pub const BAD_PARAMETERS: u32 = 0xffff_0006;
    /// No such handle, range or key.
    pub const ITEM_NOT_FOUND: u32 = 0xffff_0008;
    /// The command does not exist in this build.
    pub const NOT_SUPPORTED: u32 = 0xffff_000a;
    /// A table is full.
    pub const OUT_OF_MEMORY: u32 = 0xffff_000c;
    /// The range is mapped by a content command.
    pub const BUSY: u32 = 0xffff_000d;
    /// The output buffer is too small; its needed size is reported.
    pub const SHORT_BUFFER: u32 = 0xffff_0010;
    /// The firewall has no window left for a stretch that touches no other
    /// (`TEE_ERROR_STORAGE_NO_SPACE`).
    pub const NO_WINDOW: u32 = 0xffff_3041;
    /// The TA panicked; its session is dead, and a new one can be opened.
    pub const TARGET_DEAD: u32 = 0xffff_3024;
    /// An authentication tag does not match.
    pub const MAC_INVALID: u32 = 0xffff_3071;
    /// There is no device key yet. This and the following are Ringfence's own,
    /// from the range for errors of implementations.
    pub const NOT_PROVISIONED: u32 = 0x8000_0001;
    /// The licence's last second has passed.
    pub const EXPIRED: u32 = 0x8000_0002;
    /// The device key is no newer than the one that is stored.
    pub const ROLLED_BACK: u32 = 0x8000_0003;
}

/// The high and the low half of a 64-bit number, as the fields `a` and `b` of
/// a value parameter.
pub const fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// The 64-bit number whose halves are the fields `a` and `b` of a value
/// parameter.
pub const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// What a protected range is for, which decides the content commands that it
/// opens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum UseCase {
    /// Not said.
    None = 0,
    /// Decrypted video on its way to a decoder or a display.
    SecureVideo = 1,
    /// Pictures that only the secure world draws.
    TrustedUi = 2,
    /// Video on its way from a camera or an encoder.
    SecureVideoRecord = 3,
}

impl UseCase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::SecureVideo,
        Self::TrustedUi,
        Self::SecureVideoRecord,
    ];

    /// The use case with this number on the wire.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::None),
            1 => Some(Self::SecureVideo),
            2 => Some(Self::TrustedUi),
            3 => Some(Self::SecureVideoRecord),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// Its name in the devicetree property `ringfence,use-case`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SecureVideo => "secure-video",
            Self::TrustedUi => "trusted-ui",
            Self::SecureVideoRecord => "secure-video-record",
        }
    }

    /// The use case with this name in the devicetree.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|use_case| use_case.name() == name)
    }
}

/// What of a carveout is fenced, as the property `ringfence,protection` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Each buffer on its own.
    Buffer,
    /// All of it, as long as a buffer lives in it.
    Region,
}

impl Protection {
    /// Its name in the devicetree.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buffer => "buffer",
            Self::Region => "region",
        }
    }

    /// The protection with this name in the devicetree.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Buffer, Self::Region]
            .into_iter()
            .find(|protection| protection.name() == name)
    }
}

/// What a record of a list stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// A range that is fenced on its own, and opens to content commands.
    Range = 1,
    /// A region that is fenced as a whole.
    Region = 2,
    /// A named part of such a region, which opens to content commands.
    Part = 3,
}

impl RangeKind {
    /// The kind with this number on the wire.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Range),
            2 => Some(Self::Region),
            3 => Some(Self::Part),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub const fn raw(self) -> u32 {
        self as u32
    }
}

/// How a range in the firewall's ledger stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeState {
    /// Fenced and usable.
    Protected = 1,
    /// Fenced; a step of protecting or releasing it failed, so that it is kept
    /// from all use until an [`UNPROTECT`] succeeds.
    Quarantined = 2,
}

impl RangeState {
    /// The state with this number on the wire.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Protected),
            2 => Some(Self::Quarantined),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub const fn raw(self) -> u32 {
        self as u32
    }
}

/// One range as [`LIST`] reports it: 36 bytes, little endian, in field order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RangeRecord {
    /// Physical address of the first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// The handle that names the range; never [`NO_HANDLE`].
    pub handle: u64,
    /// Number of a [`UseCase`].
    pub use_case: u32,
    /// Number of a [`RangeState`].
    pub state: u32,
    /// Number of a [`RangeKind`].
    pub kind: u32,
}

impl RangeRecord {
    /// Bytes of a record on the wire.
    pub const SIZE: usize = 36;

    /// The record on the wire.
    pub fn to_le_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.handle.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.use_case.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.state.to_le_bytes());
        bytes[32..].copy_from_slice(&self.kind.to_le_bytes());
        bytes
    }

    /// The record that these bytes hold.
    pub const fn from_le_bytes(b: &[u8; Self::SIZE]) -> Self {
        Self {
            start: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            size: u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
            handle: u64::from_le_bytes([b[16], b[17], b[18], b[19], b[20], b[21], b[22], b[23]]),
            use_case: u32::from_le_bytes([b[24], b[25], b[26], b[27]]),
            state: u32::from_le_bytes([b[28], b[29], b[30], b[31]]),
            kind: u32::from_le_bytes([b[32], b[33], b[34], b[35]]),
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
