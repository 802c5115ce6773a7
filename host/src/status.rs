// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole picture: every heap, and the secure world under them.

use serde::Serialize;

use crate::control::Control;
use crate::error::Error;
use crate::heap::HeapInfo;

/// How the system stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Ringfence's heaps.
    pub heaps: Vec<HeapInfo>,
    /// The trusted application.
    pub secure_world: SecureWorld,
}

/// How the trusted application stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SecureWorld {
    /// It answers.
    Present {
        /// Version of its protocol.
        protocol: u32,
        /// Whether it is a test build, whose digest command is an oracle.
        test_build: bool,
        /// Unit of protection, in bytes.
        granule: u32,
        /// Carveouts that it knows.
        regions: u32,
        /// Ranges that are fenced now, quarantined ones included.
        ranges: u32,
        /// Ranges in quarantine.
        quarantined: u32,
    },
    /// It doesn't.
    Absent {
        /// Why, and what to do.
        reason: String,
    },
}

impl Status {
    /// Asks the driver and the trusted application.
    ///
    /// # Errors
    ///
    /// Those of the driver; an absent trusted application is an answer.
    pub fn read() -> Result<Self, Error> {
        Ok(Self {
            heaps: Control::open()?.heaps()?,
            secure_world: secure_world(),
        })
    }
}

#[cfg(all(feature = "tee", target_arch = "aarch64"))]
fn secure_world() -> SecureWorld {
    use crate::secure::SecureSession;

    match SecureSession::open().and_then(|mut session| session.info()) {
        Ok(info) => SecureWorld::Present {
            protocol: info.protocol,
            test_build: info.test_commands,
            granule: info.granule,
            regions: info.regions,
            ranges: info.ranges,
            quarantined: info.quarantined,
        },
        Err(error) => SecureWorld::Absent {
            reason: error.to_string(),
        },
    }
}

#[cfg(not(all(feature = "tee", target_arch = "aarch64")))]
fn secure_world() -> SecureWorld {
    SecureWorld::Absent {
        reason: Error::WithoutTee.to_string(),
    }
}
