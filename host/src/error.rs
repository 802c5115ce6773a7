// SPDX-License-Identifier: MIT OR Apache-2.0

//! Everything that can go wrong, and what to do about it.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use ringfence_proto::command::result;
use rustix::io::Errno;

use crate::fallback::{PolicyError, Refused};
use crate::play::boxes::BoxError;
use crate::play::player::PlayError;
use crate::profile::ProfileError;

/// A failure of the library.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No heap has this name.
    #[error("there is no heap {name:?}: this system has {}; protected heaps come with OP-TEE, see `ringfence status`", list(.known))]
    NoHeap {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A device node can't be opened.
    #[error("{path} can't be opened: {source}; {}", open_advice(.source))]
    Open {
        /// The device node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A heap did not give a buffer.
    #[error("heap {heap} gives no buffer of {size} bytes: {reason}")]
    Allocation {
        /// The heap's name.
        heap: String,
        /// Bytes asked for.
        size: u64,
        /// Why.
        reason: AllocationFailure,
    },
    /// No heap of a list gave a buffer.
    #[error("no heap gives such a buffer of {size} bytes: {}", each(.refused))]
    NoneServed {
        /// Bytes asked for.
        size: u64,
        /// Why each of them did not, in order.
        refused: Vec<Refused>,
    },
    /// A list of heaps and requirements that makes no sense.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// A profile that can't be used.
    #[error("{path}, {error}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: ProfileError,
    },
    /// A request that can't be put to the driver.
    #[error("{0}")]
    Malformed(&'static str),
    /// A range that the CPU can't access, or not now.
    #[error("no access of the CPU to bytes {} to {}: {source}; they must lie in a buffer of a heap with CPU access", .range.start, .range.end)]
    Sync {
        /// The range, in bytes.
        range: Range<u64>,
        /// Why.
        source: io::Error,
    },
    /// A file descriptor that can't be had from a process.
    #[error("there is no fd {fd} to be had from process {pid}: {source}; it must be open there, and being let to trace that process is needed")]
    NoFd {
        /// Whose fd it is.
        pid: u32,
        /// Its number there.
        fd: i32,
        /// Why.
        source: io::Error,
    },
    /// A file descriptor that is not a buffer of a Ringfence heap.
    #[error(
        "this fd is no buffer of a Ringfence heap: it is no dma-buf, or one of another exporter"
    )]
    Foreign,
    /// A buffer that the secure world has no handle for.
    #[error("a buffer of heap {heap} is not protected, so nothing is decrypted into it: take a protected heap (`ringfence heaps` shows them)")]
    NotProtected {
        /// The heap's name.
        heap: String,
    },
    /// The driver failed in a way that is not expected.
    #[error("the driver failed to {what}: {source}; the kernel log may say more")]
    Driver {
        /// What it was asked to do.
        what: &'static str,
        /// Its errno.
        source: io::Error,
    },
    /// A folder or file that can't be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A licence that is no message of this protocol.
    #[error("this is no licence: {0}")]
    Licence(ringfence_proto::message::DecodeError),
    /// A device key that is no message of this protocol.
    #[error("this is no sealed device key: {0}")]
    Provision(ringfence_proto::message::DecodeError),
    /// A film that can't be read.
    #[error("{path}: {error}")]
    Film {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: BoxError,
    },
    /// A film, or a request, that can't be played.
    #[error("{0}")]
    Play(#[from] PlayError),
    /// There is no TEE device, or no such trusted application.
    #[error("there is no trusted application to talk to: load the module optee, and see the kernel log for whether OP-TEE carries Ringfence's")]
    NoSecureWorld,
    /// The secure world said no.
    #[error("the secure world did not {what}: {refusal}")]
    Secure {
        /// What it was asked to do.
        what: &'static str,
        /// Its answer.
        refusal: Refusal,
    },
    /// The decoder said no.
    #[error("the picture was not decoded: {0}")]
    Decoder(crate::decoder::Refusal),
    /// The secure world answered something that is not in the protocol.
    #[error("the secure world's answer makes no sense ({0}): trusted application and this program are of different versions")]
    Answer(&'static str),
    /// The ciphertext can't be read.
    #[error("the ciphertext can't be read: {0}")]
    Ciphertext(#[source] io::Error),
    /// This build has no client for the trusted application.
    #[error("this program was built without the trusted application's client: take an aarch64 build with the feature `tee`")]
    WithoutTee,
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none; load the module ringfence_carveout".to_owned()
    } else {
        names.join(", ")
    }
}

fn each(refused: &[Refused]) -> String {
    let each: Vec<String> = refused.iter().map(ToString::to_string).collect();
    each.join("; ")
}

fn open_advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
            "load the modules ringfence_core and ringfence_carveout"
        }
        Some(Errno::ACCESS | Errno::PERM) => "run as a user that its permissions allow",
        _ => "the kernel log may say more",
    }
}

/// Why a heap did not give a buffer.
#[derive(Debug, thiserror::Error)]
pub enum AllocationFailure {
    /// ENOMEM.
    #[error("no free run is that long; ask for less, or free buffers (`ringfence status` shows the longest run)")]
    NoRoom,
    /// ENODEV.
    #[error("its driver or the trusted application under it is absent; load ringfence_carveout and optee, then see `ringfence status`")]
    Offline,
    /// EINVAL.
    #[error("that is no size; ask for at least 1 byte and for less than the heap holds")]
    Malformed,
    /// EIO.
    #[error("the secure world refused, or answered something unknown; the kernel log says what, `ringfence status` shows what is in quarantine")]
    SecureWorld,
    /// ENOENT: from an allocation with fallbacks only.
    #[error("there is no such heap of Ringfence's")]
    Unknown,
    /// EOPNOTSUPP.
    #[error("it can't do what is asked for (`ringfence heaps` shows what it can)")]
    Unable,
    /// EDQUOT.
    #[error(
        "a control group's limit for it is reached; see dmem.max and dmem.current of the group"
    )]
    Quota,
    /// EAGAIN.
    #[error("not without waiting until memory is zeroed; ask again, or allow the wait")]
    NotNow,
    /// Any other errno.
    #[error("{0}; the kernel log may say more")]
    Other(#[source] io::Error),
}

impl From<io::Error> for AllocationFailure {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) => Self::NoRoom,
            Some(Errno::NODEV) => Self::Offline,
            Some(Errno::INVAL) => Self::Malformed,
            Some(Errno::IO) => Self::SecureWorld,
            Some(Errno::NOENT) => Self::Unknown,
            Some(Errno::OPNOTSUPP) => Self::Unable,
            Some(Errno::DQUOT) => Self::Quota,
            Some(Errno::AGAIN) => Self::NotNow,
            _ => Self::Other(error),
        }
    }
}

/// How the trusted application, or the TEE before it, says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// ACCESS_DENIED.
    #[error("access denied; the caller or the buffer's use case is not meant for this")]
    AccessDenied,
    /// BAD_PARAMETERS.
    #[error("malformed request, or bytes outside the buffer; check offset and size")]
    BadParameters,
    /// ITEM_NOT_FOUND.
    #[error("unknown handle or key; the buffer must still be open, and its licence loaded in this session")]
    NotFound,
    /// NOT_SUPPORTED and NOT_IMPLEMENTED.
    #[error("this build of the trusted application can't do that")]
    NotSupported,
    /// OUT_OF_MEMORY.
    #[error("out of memory or table space; close sessions or buffers")]
    OutOfMemory,
    /// BUSY.
    #[error("the buffer is in use by another command; try again when that is done")]
    Busy,
    /// MAC_INVALID.
    #[error("the licence, or device key, is damaged, or made for another device")]
    WrongLicence,
    /// NOT_PROVISIONED.
    #[error("it has no device key yet; bring one with `ringfence provision FILE`")]
    NotProvisioned,
    /// EXPIRED.
    #[error("the licence has ended; if that can't be, the clock was ahead once: the latest time that was ever seen counts")]
    Expired,
    /// ROLLED_BACK.
    #[error(
        "it holds a device key that is as new or newer; licences must be sealed under that one"
    )]
    RolledBack,
    /// STORAGE_NOT_AVAILABLE.
    #[error("the TEE's secure storage can't be reached; start tee-supplicant")]
    NoStorage,
    /// TARGET_DEAD.
    #[error("the trusted application has crashed; open a new session, and ask for the buffer's handle anew")]
    Dead,
    /// COMMUNICATION.
    #[error("the TEE driver failed to reach it; the kernel log may say why")]
    Communication,
    /// Any other result.
    #[error("TEE result {0:#010x}; the secure world's console may say more")]
    Other(u32),
}

impl From<u32> for Refusal {
    /// From a result of the TEE client API other than success.
    fn from(code: u32) -> Self {
        /// `TEEC_ERROR_NOT_IMPLEMENTED`.
        const NOT_IMPLEMENTED: u32 = 0xffff_0009;
        /// `TEEC_ERROR_COMMUNICATION`.
        const COMMUNICATION: u32 = 0xffff_000e;
        /// `TEE_ERROR_STORAGE_NOT_AVAILABLE`.
        const STORAGE_NOT_AVAILABLE: u32 = 0xf010_0003;
        match code {
            result::ACCESS_DENIED => Self::AccessDenied,
            result::BAD_PARAMETERS => Self::BadParameters,
            result::ITEM_NOT_FOUND => Self::NotFound,
            result::NOT_SUPPORTED | NOT_IMPLEMENTED => Self::NotSupported,
            result::OUT_OF_MEMORY => Self::OutOfMemory,
            result::BUSY => Self::Busy,
            result::MAC_INVALID => Self::WrongLicence,
            result::NOT_PROVISIONED => Self::NotProvisioned,
            result::EXPIRED => Self::Expired,
            result::ROLLED_BACK => Self::RolledBack,
            STORAGE_NOT_AVAILABLE => Self::NoStorage,
            result::TARGET_DEAD => Self::Dead,
            COMMUNICATION => Self::Communication,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_becomes_advice() {
        let says = |errno: Errno| AllocationFailure::from(io::Error::from(errno)).to_string();
        assert!(says(Errno::NOMEM).contains("free run"));
        assert!(says(Errno::NODEV).contains("ringfence_carveout"));
        assert!(says(Errno::INVAL).contains("size"));
        assert!(says(Errno::IO).contains("quarantine"));
        assert!(says(Errno::MFILE).contains("Too many open files"));
    }

    #[test]
    fn a_tee_result_becomes_a_refusal() {
        assert_eq!(Refusal::from(0xffff_0001), Refusal::AccessDenied);
        assert_eq!(Refusal::from(0xffff_3024), Refusal::Dead);
        assert_eq!(Refusal::from(0xffff_3071), Refusal::WrongLicence);
        assert_eq!(Refusal::from(0xffff_000e), Refusal::Communication);
        assert_eq!(Refusal::from(0x8000_0001), Refusal::NotProvisioned);
        assert_eq!(Refusal::from(0x8000_0002), Refusal::Expired);
        assert_eq!(Refusal::from(0x8000_0003), Refusal::RolledBack);
        let unknown = Refusal::from(0x1234);
        assert_eq!(unknown, Refusal::Other(0x1234));
        assert!(unknown.to_string().contains("0x00001234"));
    }

    #[test]
    fn a_heap_that_is_not_there_names_those_that_are() {
        let error = Error::NoHeap {
            name: "camra".into(),
            known: vec!["camera".into(), "protected-video".into()],
        };
        assert_eq!(
            error.to_string(),
            "there is no heap \"camra\": this system has camera, protected-video; \
             protected heaps come with OP-TEE, see `ringfence status`"
        );
        let error = Error::NoHeap {
            name: "camera".into(),
            known: vec![],
        };
        assert!(error.to_string().contains("load the module"));
    }
}
