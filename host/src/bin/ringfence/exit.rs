// SPDX-License-Identifier: MIT OR Apache-2.0

//! Exit codes, by which a script can tell what to do next.

use std::process::ExitCode;

use ringfence::decoder;
use ringfence::error::{AllocationFailure, Error, Refusal};
use ringfence::fallback::Reason;

/// The codes, as `--help` shows them.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed in a way that is not expected
  2  wrong usage
  3  something is not there: heap, buffer, file, driver or trusted application
  4  no room: no free run is that long, or a table is full
  5  refused: permissions, a request that can't be right, a wrong licence
  6  the secure world failed, or answered something unknown";

/// The exit code for an error.
pub fn code(error: &Error) -> ExitCode {
    ExitCode::from(number(error))
}

fn number(error: &Error) -> u8 {
    match error {
        Error::NoHeap { .. }
        | Error::Open { .. }
        | Error::NoFd { .. }
        | Error::Read { .. }
        | Error::NoSecureWorld
        | Error::WithoutTee => 3,
        Error::Foreign | Error::NotProtected { .. } => 5,
        Error::Licence(_) | Error::Provision(_) => 5,
        Error::Film { .. } | Error::Play(_) => 5,
        Error::Malformed(_) | Error::Sync { .. } => 5,
        Error::Policy(_) | Error::Profile { .. } => 2,
        Error::Allocation { reason, .. } => of_allocation(reason),
        // What would help most: room, then a driver; the first heap's trouble otherwise.
        Error::NoneServed { refused, .. } => {
            let codes = refused.iter().map(|refused| match &refused.reason {
                Reason::Failed(reason) => of_allocation(reason),
                Reason::Lacks(_) | Reason::Unknown(_) => 5,
            });
            let codes: Vec<u8> = codes.collect();
            let first = codes.first().copied().unwrap_or(5);
            [4, 3]
                .into_iter()
                .find(|code| codes.contains(code))
                .unwrap_or(first)
        }
        Error::Secure { refusal, .. } => of_refusal(*refusal),
        Error::Decoder(refusal) => match refusal {
            decoder::Refusal::Crowded => 4,
            decoder::Refusal::BadFormat
            | decoder::Refusal::Unsupported
            | decoder::Refusal::OtherSize
            | decoder::Refusal::BadParameters => 5,
            decoder::Refusal::Dead => 6,
            decoder::Refusal::Other(refusal) => of_refusal(*refusal),
        },
        Error::Answer(_) => 6,
        Error::Driver { .. } | Error::Ciphertext(_) => 1,
    }
}

fn of_refusal(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NotFound | Refusal::NotProvisioned | Refusal::NoStorage => 3,
        Refusal::OutOfMemory => 4,
        Refusal::AccessDenied
        | Refusal::BadParameters
        | Refusal::Busy
        | Refusal::Expired
        | Refusal::RolledBack
        | Refusal::WrongLicence => 5,
        Refusal::NotSupported | Refusal::Dead | Refusal::Communication | Refusal::Other(_) => 6,
    }
}

fn of_allocation(reason: &AllocationFailure) -> u8 {
    match reason {
        AllocationFailure::NoRoom | AllocationFailure::Quota | AllocationFailure::NotNow => 4,
        AllocationFailure::Offline | AllocationFailure::Unknown => 3,
        AllocationFailure::Malformed | AllocationFailure::Unable => 5,
        AllocationFailure::SecureWorld => 6,
        AllocationFailure::Other(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use ringfence::fallback::{Property, Refused};

    use super::*;

    #[test]
    fn of_several_heaps_the_remedy_that_helps_counts() {
        let refused = |reasons: Vec<Reason>| {
            number(&Error::NoneServed {
                size: 1,
                refused: reasons
                    .into_iter()
                    .map(|reason| Refused {
                        heap: "h".into(),
                        reason,
                    })
                    .collect(),
            })
        };
        let lacks = || Reason::Lacks(Property::Contiguous);
        assert_eq!(
            refused(vec![lacks(), Reason::Failed(AllocationFailure::NoRoom)]),
            4
        );
        assert_eq!(
            refused(vec![Reason::Failed(AllocationFailure::Offline), lacks()]),
            3
        );
        assert_eq!(refused(vec![lacks()]), 5);
    }

    #[test]
    fn failures_with_different_remedies_have_different_codes() {
        let allocation = |reason| {
            number(&Error::Allocation {
                heap: "camera".into(),
                size: 1,
                reason,
            })
        };
        assert_eq!(allocation(AllocationFailure::NoRoom), 4);
        assert_eq!(allocation(AllocationFailure::Offline), 3);
        assert_eq!(allocation(AllocationFailure::SecureWorld), 6);
        let secure = |refusal| {
            number(&Error::Secure {
                what: "decrypt",
                refusal,
            })
        };
        assert_eq!(secure(Refusal::WrongLicence), 5);
        assert_eq!(secure(Refusal::NotFound), 3);
        assert_eq!(secure(Refusal::Other(7)), 6);
    }

    #[test]
    fn every_code_is_explained() {
        for code in 0..=6 {
            assert!(HELP.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
