// SPDX-License-Identifier: MIT OR Apache-2.0

//! The player (`ringfence play`) as a process of its own, which stops at some pictures until it is
//! told to go on.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use super::memory::PhysicalRange;
use super::{debug, display};
use crate::screening::Screening;

/// How the player ended.
#[derive(Debug)]
pub struct Ending {
    /// Its status.
    pub status: ExitStatus,
    /// What it printed after its last stop.
    pub output: String,
    /// What it complained about.
    pub complaint: String,
}

/// How the player's line begins that says where compressed pictures are.
pub const BITSTREAM: &str = "bitstream buffer";
/// The same, of decoded ones.
pub const FRAME: &str = "frame buffer";

/// The number of the inode behind `/proc/PID/fd/N`.
fn inode(path: &str) -> anyhow::Result<u64> {
    let path = path.replace("/fd/", "/fdinfo/");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("ino:"));
    Ok(line.context("no inode")?.trim().parse()?)
}

/// Plays a film at its own rate, without stops.
pub fn at_its_rate(folder: &Path, screening: &Screening) -> anyhow::Result<Ending> {
    let output = command(folder, screening, &screening.licence)
        .args(["--fps", "auto"])
        .output()
        .context("ringfence play")?;
    Ok(Ending {
        status: output.status,
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn command(folder: &Path, screening: &Screening, licence: &Path) -> Command {
    let mut command = Command::new("ringfence");
    command
        .arg("play")
        .arg(folder.join(&screening.film))
        .arg("--provision")
        .arg(folder.join(&screening.provision))
        .arg("--licence")
        .arg(folder.join(licence))
        .args(["--display", display::PATH]);
    command
}

/// A film that is being played; dropping it kills the player.
#[derive(Debug)]
pub struct Player {
    child: Child,
    orders: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What its buffers are for, and their files.
    places: Vec<(&'static str, String)>,
}

impl Drop for Player {
    fn drop(&mut self) {
        // One that has ended is gone already; another must not keep its buffers.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Player {
    /// Begins to play a film with a licence: every picture, as fast as it goes, with
    /// stops at some.
    pub fn start(folder: &Path, screening: &Screening, licence: &Path) -> anyhow::Result<Self> {
        let pauses: Vec<String> = screening.pauses.iter().map(u32::to_string).collect();
        let mut child = command(folder, screening, licence)
            .args(["--pause-at", &pauses.join(",")])
            .args(["--fps", "max", "--events"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("ringfence play")?;
        let orders = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self {
            child,
            orders,
            output: BufReader::new(output),
            places: Vec::new(),
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a picture is on the screen, and the film stands still.
    pub fn until(&mut self, frame: u32) -> anyhow::Result<()> {
        let expected = format!("paused at {frame}");
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                let mut complaint = String::new();
                if let Some(mut errors) = self.child.stderr.take() {
                    errors.read_to_string(&mut complaint)?;
                }
                let status = self.child.wait()?;
                anyhow::bail!(
                    "it ended before {expected:?} ({status}): {}",
                    complaint.trim()
                );
            }
            let line = line.trim();
            if line == expected {
                return Ok(());
            }
            for what in [BITSTREAM, FRAME] {
                if let Some(path) = line.strip_prefix(what) {
                    self.places.push((what, path.trim().to_owned()));
                }
            }
        }
    }

    /// Has the film go on.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        self.orders.write_all(b"\n")?;
        Ok(self.orders.flush()?)
    }

    /// Where its buffers for this ([`BITSTREAM`], [`FRAME`]) are. Those for different
    /// things have different sizes.
    pub fn memory(&self, heap: &str, what: &str) -> anyhow::Result<Vec<PhysicalRange>> {
        let buffers = debug::buffers(heap)?;
        let mut sizes = Vec::new();
        for (_, path) in self.places.iter().filter(|(is, _)| *is == what) {
            let inode = inode(path)?;
            let buffer = buffers.iter().find(|buffer| buffer.inode == inode);
            sizes.push(
                buffer
                    .with_context(|| format!("{path} is no buffer of {heap}"))?
                    .size,
            );
        }
        let ranges: Vec<_> = debug::ranges(heap)?
            .into_iter()
            .filter(|line| line.pid == self.pid() && sizes.contains(&line.range.size))
            .map(|line| line.range)
            .collect();
        anyhow::ensure!(ranges.len() == sizes.len(), "{what}: {ranges:x?}");
        Ok(ranges)
    }

    /// The dma-bufs that it has open, taken from it.
    pub fn buffers(&self) -> anyhow::Result<Vec<OwnedFd>> {
        let pid = Pid::from_raw(self.pid().try_into()?).context("a process has a number")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let mut buffers = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            let entry = entry?;
            let target = std::fs::read_link(entry.path())?;
            if !target.to_string_lossy().starts_with("/dmabuf:") {
                continue;
            }
            let number = entry.file_name().to_string_lossy().parse()?;
            buffers.push(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
        }
        Ok(buffers)
    }

    /// Waits for its end.
    pub fn end(&mut self) -> anyhow::Result<Ending> {
        let (mut output, mut complaint) = (String::new(), String::new());
        self.output.read_to_string(&mut output)?;
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut complaint)?;
        }
        Ok(Ending {
            status: self.child.wait()?,
            output,
            complaint,
        })
    }
}
