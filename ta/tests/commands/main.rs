// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of the trusted application over a model of the firewall.

mod content;
mod decoder;
mod model;
mod protection;
mod samples;
