// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host that runs this machine, which sees its screen and all of its memory.

use std::fs::{File, OpenOptions};

use anyhow::Context;

use super::memory::PhysicalRange;
use crate::host_port::{ask, Reply, Request, PORT_PATH};

/// What a picture of the screen looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Pixels.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// [`crate::host_port::digest`] of its pixels, each as red, green and blue.
    pub digest: u64,
}

/// The way to the host.
#[derive(Debug)]
pub struct Host(File);

impl Host {
    /// Opens the port to it.
    pub fn open() -> anyhow::Result<Self> {
        let port = OpenOptions::new().read(true).write(true).open(PORT_PATH);
        Ok(Self(port.context(PORT_PATH)?))
    }

    /// Asks it something; a refusal is an error.
    fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        match ask(&mut self.0, request)? {
            Reply::Refused { error } => anyhow::bail!("the host refused: {error}"),
            reply => Ok(reply),
        }
    }

    /// Has it take a picture of the screen, and keep it.
    pub fn picture(&mut self, name: &str) -> anyhow::Result<Look> {
        match self.ask(&Request::Picture(name.to_owned()))? {
            Reply::Picture {
                width,
                height,
                digest,
            } => Ok(Look {
                width,
                height,
                digest,
            }),
            other => anyhow::bail!("the host answers {other:?}"),
        }
    }

    /// How much a picture that was taken is like one that the host has: the peak
    /// signal-to-noise ratio, in dB.
    pub fn compare(&mut self, picture: &str, with: &str) -> anyhow::Result<f64> {
        let (picture, with) = (picture.to_owned(), with.to_owned());
        match self.ask(&Request::Compare { picture, with })? {
            Reply::Likeness { psnr } => Ok(psnr),
            other => anyhow::bail!("the host answers {other:?}"),
        }
    }

    /// Has it look for a set of needles all over the machine's memory; those in
    /// these ranges are counted apart.
    pub fn search(&mut self, needles: &str, ranges: &[PhysicalRange]) -> anyhow::Result<Sightings> {
        let ranges = ranges.iter().map(|range| (range.start, range.size));
        let request = Request::Search {
            needles: needles.to_owned(),
            expect_in: ranges.collect(),
        };
        match self.ask(&request)? {
            Reply::Found {
                inside,
                outside,
                first_outside,
            } => Ok(Sightings {
                inside,
                outside,
                first_outside: first_outside.unwrap_or_default(),
            }),
            other => anyhow::bail!("the host answers {other:?}"),
        }
    }
}

/// Where the host has found needles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sightings {
    inside: u64,
    outside: u64,
    first_outside: String,
}

impl Sightings {
    /// How many are in the ranges, where they have to be: pieces of `what`.
    ///
    /// # Errors
    ///
    /// When one is elsewhere, or there are none, so that the search finds nothing.
    pub fn only_inside(&self, what: &str) -> anyhow::Result<u64> {
        self.none_outside(what)?;
        anyhow::ensure!(self.inside > 0, "the search does not find {what} at all");
        Ok(self.inside)
    }

    /// Fails if one is elsewhere.
    pub fn none_outside(&self, what: &str) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.outside == 0,
            "{} pieces of {what} outside, first at {}",
            self.outside,
            self.first_outside
        );
        Ok(())
    }
}
