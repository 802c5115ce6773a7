// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device that is not coherent with the CPU's caches: `ringfence_importer`, a
//! module for tests.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter};

use super::module;

const DEVICE: &str = "/dev/ringfence-importer";

/// The device has a buffer mapped until this is dropped.
#[derive(Debug)]
pub struct Mapped(#[expect(dead_code, reason = "closing it unmaps")] File);

/// Has the device map a buffer.
pub fn map(buffer: impl AsFd) -> anyhow::Result<Mapped> {
    const MAP: Opcode = opcode::write::<i32>(b'r', 0);
    module::load("ringfence_importer")?;
    let device = OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = device.context(DEVICE)?;
    let fd = buffer.as_fd().as_raw_fd();
    // SAFETY: The number carries the size of an `i32`, which the kernel only reads.
    unsafe { ioctl(&device, Setter::<MAP, i32>::new(fd)) }.context("the device maps the buffer")?;
    Ok(Mapped(device))
}
