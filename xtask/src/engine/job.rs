// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a running step has at hand: its directories, its log, and commands that write to that log.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process, set_parent_process_death_signal, Pid, Signal};

use crate::cache::Cache;

/// Lines of a log that an error shows.
const TAIL_LINES: usize = 20;

/// Child processes of all running steps, so that one failure stops the rest.
#[derive(Debug, Default)]
pub struct Children {
    running: Mutex<HashSet<i32>>,
    cancelled: AtomicBool,
}

impl Children {
    /// Stops every running command; later ones do not start.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let running = self.running.lock().expect("no holder panics");
        for pid in running.iter().filter_map(|&raw| Pid::from_raw(raw)) {
            // Fails when the process has just ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// A step that is running.
pub struct Job<'r> {
    name: &'r str,
    dir: &'r Path,
    cache: &'r Cache,
    log: PathBuf,
    children: &'r Children,
}

impl<'r> Job<'r> {
    pub(super) fn start(
        name: &'r str,
        dir: &'r Path,
        cache: &'r Cache,
        children: &'r Children,
    ) -> Result<Self> {
        let log = cache.log(name)?;
        File::create(&log)?;
        Ok(Self {
            name,
            dir,
            cache,
            log,
            children,
        })
    }

    /// The step's output directory.
    pub fn dir(&self) -> &Path {
        self.dir
    }

    /// A file in the step's output directory.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Scratch of this step that survives runs.
    pub fn work(&self) -> Result<PathBuf> {
        self.cache.work(self.name)
    }

    /// The complete output of this step that was used last, under another key.
    pub fn previous(&self) -> Option<PathBuf> {
        self.cache
            .outputs(self.name)
            .into_iter()
            .rev()
            .map(|(_, path)| path)
            .find(|path| path != self.dir && crate::cache::is_complete(path))
    }

    /// Writes a line to the step's log.
    pub fn note(&self, line: &str) -> Result<()> {
        let mut log = File::options().append(true).open(&self.log)?;
        writeln!(log, "{line}")?;
        Ok(())
    }

    /// Runs a command with its output in the step's log; an exit status other than 0 is an error.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let log = File::options().append(true).open(&self.log)?;
        command.stdout(log.try_clone()?);
        self.supervise(command, log).map(|_| ())
    }

    /// Runs a command and returns what it printed on its standard output.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        let log = File::options().append(true).open(&self.log)?;
        command.stdout(Stdio::piped());
        self.supervise(command, log)
    }

    fn supervise(&self, command: &mut Command, mut log: File) -> Result<String> {
        if self.children.cancelled.load(Ordering::SeqCst) {
            bail!("not started: another step failed");
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let arguments = command
            .get_args()
            .map(|argument| argument.to_string_lossy());
        writeln!(log, "$ {program} {}", shell_words::join(arguments))?;
        command.stdin(Stdio::null()).stderr(log);
        // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let pid = i32::try_from(child.id()).expect("process ids are positive i32");
        self.children
            .running
            .lock()
            .expect("no holder panics")
            .insert(pid);
        let mut printed = String::new();
        let read = child
            .stdout
            .take()
            .map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut printed));
        let status = child.wait();
        self.children
            .running
            .lock()
            .expect("no holder panics")
            .remove(&pid);
        read?;
        let status = status?;
        if !status.success() {
            bail!("{program} failed ({status})");
        }
        Ok(printed)
    }

    /// The error of this step, with the last lines of its log and the command to see all of it.
    pub(super) fn explain(&self, error: &anyhow::Error) -> String {
        let mut text = format!("{}: {error:#}\n", self.name);
        for line in last_lines(&self.log).unwrap_or_default() {
            text.push_str("  | ");
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!("whole log: less {}", self.log.display()));
        text
    }
}

/// The last lines of a file.
fn last_lines(path: &Path) -> Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..]
        .iter()
        .map(|&line| line.to_owned())
        .collect())
}
