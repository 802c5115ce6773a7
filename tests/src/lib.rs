// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the guest's programs and the host that drives them agree upon, and
//! what the guest's programs share.
//!
//! * [`job`]: the job file of a scenario. The host writes it, the guest plays it.
//! * [`host_port`]: questions that a guest program asks the host over a
//!   virtio-serial port, for what can't be measured from inside: whether the
//!   plaintext lies anywhere in the machine's memory.
//! * [`screening`]: a film that is played before witnesses, and what they saw.
//! * [`needles`]: what is looked for in memory by those who must not know it.
//! * [`attacks`], [`bad_cases`]: what the suites try, as tables.
//! * [`bench`]: the figures that `ringfence-bench` prints.
//! * [`content`]: keys, licences and films that the host prepares for tests.
//! * [`foreign`]: the trusted application that has no business here.
//! * `guest` (feature `guest`, aarch64): looking at a system from below: raw
//!   ioctls, physical memory, the trusted application's raw commands.

pub mod attacks;
pub mod bad_cases;
pub mod bench;
pub mod content;
pub mod differences;
pub mod foreign;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
pub mod guest;
pub mod host_port;
pub mod job;
pub mod needles;
pub mod screening;
