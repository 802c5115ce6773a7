// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocations that ask for more than a size: what the buffer must be like, and
//! which heap to turn to when the first one can't, all in one call of the driver.
//!
//! [`fallback`](crate::fallback) does without the driver, and so takes other
//! drivers' heaps too; but it can't ask for more than a size.

use std::io;

use rustix::io::Errno;

use crate::error::{AllocationFailure, Error};
use crate::fallback::{Reason, Refused};
use crate::uapi;

/// What is asked for. Nothing of it is ever traded for something else: a heap
/// that can't do all of it refuses, and the next one is asked.
///
/// ```no_run
/// use ringfence::control::Control;
/// use ringfence::request::Request;
///
/// let frame = Request::new(8 << 20).from("camera").or_from("system").aligned_to(1 << 16);
/// let allocated = Control::open()?.allocate(&frame)?;
/// println!("{} served", allocated.heap);
/// # Ok::<(), ringfence::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    size: u64,
    heaps: Vec<String>,
    /// Bytes to which the buffer's start is aligned: a power of two.
    pub alignment: Option<u64>,
    flags: u32,
}

impl Request {
    /// Asks for `size` bytes; the kernel rounds up to whole pages.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            heaps: Vec::new(),
            alignment: None,
            flags: 0,
        }
    }

    /// Names the heap that is wanted.
    pub fn from(self, heap: impl Into<String>) -> Self {
        self.or_from(heap)
    }

    /// Names a heap to turn to when those named before can't serve.
    pub fn or_from(mut self, heap: impl Into<String>) -> Self {
        self.heaps.push(heap.into());
        self
    }

    /// Wants the buffer's start at a multiple of `alignment` bytes.
    pub fn aligned_to(mut self, alignment: u64) -> Self {
        self.alignment = Some(alignment);
        self
    }

    /// Wants the upper end of the memory that fits.
    pub fn top_down(self) -> Self {
        self.with(uapi::ALLOC_TOP_DOWN)
    }

    /// Rather fails than takes longer for a larger buffer.
    pub fn no_wait(self) -> Self {
        self.with(uapi::ALLOC_NO_WAIT)
    }

    /// The buffer must be physically contiguous.
    pub fn contiguous(self) -> Self {
        self.with(uapi::CONTIGUOUS)
    }

    /// The CPU must be able to map the buffer.
    pub fn cpu_access(self) -> Self {
        self.with(uapi::CPU_ACCESS)
    }

    /// The buffer must be fenced off from the normal world.
    pub fn protected(self) -> Self {
        self.with(uapi::PROTECTED)
    }

    fn with(mut self, flag: u32) -> Self {
        self.flags |= flag;
        self
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    pub(crate) fn heap(&self, index: usize) -> &str {
        self.heaps.get(index).map_or("?", String::as_str)
    }

    /// The names as the driver takes them.
    pub(crate) fn encode_names(&self) -> Result<Vec<[u8; uapi::NAME_SIZE]>, Error> {
        if self.heaps.is_empty() || self.heaps.len() > uapi::ALLOC_MAX_HEAPS {
            return Err(Error::Malformed("1 to 16 heaps can be named"));
        }
        self.heaps
            .iter()
            .map(|name| {
                uapi::encode_name(name).ok_or(Error::Malformed(
                    "a heap's name has 1 to 63 bytes, none of them 0",
                ))
            })
            .collect()
    }

    /// The refusals among what came of each heap.
    pub(crate) fn refusals(&self, outcomes: &[i32]) -> Vec<Refused> {
        self.heaps
            .iter()
            .zip(outcomes)
            .filter(|&(_, &outcome)| outcome > 0)
            .map(|(heap, &outcome)| Refused {
                heap: heap.clone(),
                reason: Reason::Failed(AllocationFailure::from(io::Error::from_raw_os_error(
                    outcome,
                ))),
            })
            .collect()
    }

    /// Why the whole call failed.
    pub(crate) fn failure(&self, errno: Errno, outcomes: &[i32]) -> Error {
        let refused = self.refusals(outcomes);
        if refused.is_empty() {
            // It did not come to the heaps.
            return Error::Driver {
                what: "allocate",
                source: errno.into(),
            };
        }
        Error::NoneServed {
            size: self.size,
            refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_order() {
        let request = Request::new(1).from("camera").or_from("system");
        let names = request.encode_names().unwrap();
        assert_eq!(
            names.iter().map(uapi::name).collect::<Vec<_>>(),
            ["camera", "system"]
        );
        assert_eq!(request.heap(1), "system");
    }

    #[test]
    fn what_the_driver_would_refuse_is_refused_here() {
        assert!(Request::new(1).encode_names().is_err());
        assert!(Request::new(1).from("").encode_names().is_err());
        assert!(Request::new(1).from("x".repeat(64)).encode_names().is_err());
        let many = (0..17).fold(Request::new(1), |request, _| request.or_from("a"));
        assert!(many.encode_names().is_err());
    }

    #[test]
    fn every_refusal_is_told() {
        let request = Request::new(1)
            .from("camera")
            .or_from("cma")
            .or_from("system");
        let error = request.failure(
            Errno::NOMEM,
            &[
                Errno::NOMEM.raw_os_error(),
                Errno::DQUOT.raw_os_error(),
                uapi::NOT_TRIED,
            ],
        );
        let text = error.to_string();
        assert!(text.contains("camera: no free run"), "{text}");
        assert!(text.contains("a control group"), "{text}");
        assert!(!text.contains("system"), "{text}");
    }

    #[test]
    fn a_call_that_fails_before_any_heap_is_the_drivers_failure() {
        let request = Request::new(0).from("camera");
        let error = request.failure(Errno::INVAL, &[uapi::NOT_TRIED]);
        assert!(matches!(error, Error::Driver { .. }), "{error}");
    }
}
