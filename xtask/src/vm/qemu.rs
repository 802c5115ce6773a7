// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulator as a process: started with what it inherits, and never left behind.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process, set_parent_process_death_signal, Pid, Signal};

use super::machine::Arguments;
use crate::host;

/// How long QEMU has to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running emulator.
pub struct Qemu {
    child: Child,
    log: PathBuf,
}

impl Qemu {
    /// Starts it with `memory` and the sockets `inherited`, and ends it when this process ends.
    pub fn start(
        arguments: Arguments,
        memory: &OwnedFd,
        inherited: &[OwnedFd],
        directory: &Path,
    ) -> Result<Self> {
        let log = directory.join("qemu.log");
        let mut command = Command::new(host::QEMU);
        command.args(arguments.into_inner()).stdin(Stdio::null());
        command
            .stdout(fs::File::create(&log)?)
            .stderr(fs::File::options().append(true).open(&log)?);
        // Signals of the terminal are for this process, which ends QEMU in order.
        command.process_group(0);
        let mut fds: Vec<i32> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
        fds.push(memory.as_raw_fd());
        // SAFETY: the closure runs between fork and exec, allocates nothing and makes only
        // async-signal-safe system calls; the descriptors are open, for `inherited` and `memory`
        // outlive the call of `spawn`.
        unsafe {
            command.pre_exec(move || {
                for &fd in &fds {
                    let fd = rustix::fd::BorrowedFd::borrow_raw(fd);
                    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                }
                Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("start {}", host::QEMU))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the emulator, with what it said when it ended by itself as an error.
    pub fn stop(mut self) -> Result<()> {
        let pid =
            Pid::from_raw(i32::try_from(self.child.id())?).context("a process id is positive")?;
        if let Some(status) = self.child.try_wait()? {
            if !status.success() {
                bail!(
                    "QEMU ended with {status}: {}",
                    fs::read_to_string(&self.log)?.trim()
                );
            }
            return Ok(());
        }
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Already gone in the ordinary case; an error elsewhere must not leave it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
