// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in the hands of a device that is not coherent with the CPU's caches.

use std::os::fd::AsFd;

use anyhow::Context;

use super::importer::{Direction, Importer};

/// The device has a buffer mapped until this is dropped.
pub struct Mapped(#[expect(dead_code, reason = "closing it unmaps")] Importer);

/// Has the device map a buffer.
pub fn map(buffer: impl AsFd) -> anyhow::Result<Mapped> {
    let importer = Importer::open()?;
    importer
        .map(buffer, Direction::Both)
        .context("the device maps the buffer")?;
    Ok(Mapped(importer))
}
