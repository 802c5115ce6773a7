// SPDX-License-Identifier: MIT OR Apache-2.0

//! tee-supplicant, which works for the secure world in Linux.

use std::fs;
use std::path::Path;

use rustix::process::{kill_process, Pid, Signal};

/// Its processes: one, or none while it is started again.
pub fn processes() -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_string_lossy().parse().ok();
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // A process that has ended meanwhile has no name.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim() == "tee-supplicant" {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a process is there, if only as what is left of one.
pub fn exists(process: Pid) -> bool {
    Path::new("/proc")
        .join(process.as_raw_pid().to_string())
        .exists()
}

/// A supplicant that does nothing, until this is dropped.
pub struct Stopped(Vec<Pid>);

/// Stops it.
pub fn stop() -> anyhow::Result<Stopped> {
    let stopped = Stopped(processes()?);
    anyhow::ensure!(!stopped.0.is_empty(), "there is no tee-supplicant to stop");
    for &process in &stopped.0 {
        kill_process(process, Signal::STOP)?;
    }
    Ok(stopped)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &process in &self.0 {
            // One that has ended is not stopped any more.
            let _ = kill_process(process, Signal::CONT);
        }
    }
}
