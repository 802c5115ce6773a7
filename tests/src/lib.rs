// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the guest's programs and the host that drives them agree upon.
//!
//! * [`job`]: the job file of a scenario. The host writes it, the guest plays it.
//! * [`host_port`]: questions that a guest program asks the host over a
//!   virtio-serial port, for what can't be measured from inside: whether the
//!   plaintext lies anywhere in the machine's memory.

pub mod host_port;
pub mod job;
