// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers the guest's questions about what can't be seen from inside: its memory, where no
//! protection hides anything, and its screen.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use ringfence_tests::host_port::{Reply, Request};

use super::pictures::Album;
use super::qmp::Monitor;
use super::search::{self, Needles};

/// Who answers.
pub struct Witness {
    /// The machine's memory.
    pub memory: OwnedFd,
    /// What it may be searched for.
    pub needles: Vec<Needles>,
    /// The machine itself.
    pub monitor: Monitor,
    /// Pictures of its screen.
    pub album: Album,
}

impl Witness {
    /// Answers one line of JSON after the other, until the guest is gone.
    pub fn serve(&mut self, port: UnixStream) {
        let Ok(mut answers) = port.try_clone() else {
            return;
        };
        for line in BufReader::new(port).lines() {
            let Ok(line) = line else { return };
            let reply = self.answer(&line).unwrap_or_else(|error| Reply::Refused {
                error: format!("{error:#}"),
            });
            let Ok(mut text) = serde_json::to_vec(&reply) else {
                return;
            };
            text.push(b'\n');
            if answers.write_all(&text).is_err() {
                return;
            }
        }
    }

    fn answer(&mut self, line: &str) -> Result<Reply> {
        match serde_json::from_str(line).context("not a request")? {
            Request::Search { needles, expect_in } => {
                search::answer(&self.memory, &self.needles, &needles, &expect_in)
            }
            Request::Picture(name) => {
                let path = self.album.place(&name)?;
                self.monitor.screendump(&path)?;
                self.album.describe(&name)
            }
            Request::Compare { picture, with } => self.album.compare(&picture, &with),
        }
    }
}
