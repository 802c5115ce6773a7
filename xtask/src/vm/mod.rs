// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boots the stack in QEMU and runs one command, or a shell, in it.
//!
//! The guest's memory is an anonymous file that QEMU and this process share, so that the host can
//! look at every byte of it. Output of the command, its exit status, and questions to the host each
//! have a virtio-serial port of their own; the consoles go to log files and are watched for crashes.

pub mod console;
pub mod machine;
pub mod pictures;
mod ports;
mod qemu;
mod qmp;
pub mod search;
mod terminal;
mod wires;
mod witness;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::artefact::devicetree::Board;
use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::stack::Stack;
use machine::{Arguments, INITRAMFS_ADDRESS, KERNEL_ADDRESS};
use pictures::Album;
use qemu::Qemu;
use search::Needles;
use wires::{Screen, Wires};

/// How long the consoles are still listened to after a crash, for its backtrace.
const AFTERMATH: Duration = Duration::from_secs(2);

/// One nanosecond of guest time for each instruction, and none while the guest only waits.
pub const ICOUNT: &str = "shift=0,sleep=off";

/// Directories of earlier runs that are kept.
const KEPT_RUNS: usize = 8;

/// Where a piece of the command's output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Takes the command's output as it comes.
pub type Sink = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// What runs in the guest.
#[derive(Debug, Clone)]
pub enum Task {
    /// A shell on this terminal.
    Shell,
    /// A command with its arguments.
    Command(Vec<String>),
}

/// What the guest loads before its task starts.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// OP-TEE's driver, and the supplicant.
    pub optee: bool,
    /// This project's modules.
    pub heaps: bool,
    /// The upstream heaps, written in C.
    pub upstream: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            optee: true,
            heaps: true,
            upstream: false,
        }
    }
}

/// One boot.
pub struct Boot<'a> {
    /// What runs.
    pub task: Task,
    /// Where its logs go: a fresh [`run_directory`].
    pub directory: PathBuf,
    /// Which machine it is, with which carveouts.
    pub board: Board,
    /// What is loaded before it.
    pub conditions: Conditions,
    /// Guest time counts instructions.
    pub icount: bool,
    /// A directory that the guest sees as /mnt/share, read and write.
    pub share: Option<&'a Path>,
    /// When it is given up.
    pub timeout: Option<Duration>,
    /// More words for the kernel's command line.
    pub bootargs: &'a str,
    /// What the guest may have the host search its memory for.
    pub needles: Vec<Needles>,
    /// Pictures that the guest may have those of its screen compared with, as `NAME.png`.
    pub originals: Option<PathBuf>,
    /// Where the command's output goes.
    pub sink: Sink,
}

impl Boot<'_> {
    /// A boot of `task` under default conditions, with its output on this process's own streams.
    pub fn of(task: Task, directory: PathBuf) -> Self {
        Self {
            task,
            directory,
            board: Board::default(),
            conditions: Conditions::default(),
            icount: false,
            share: None,
            timeout: None,
            bootargs: "",
            needles: Vec::new(),
            originals: None,
            sink: Arc::new(pass_on),
        }
    }

    /// Where pictures of the guest's screen are.
    pub fn pictures(&self) -> PathBuf {
        self.directory.join("pictures")
    }
}

/// Writes output to this process's own streams.
pub fn pass_on(stream: Stream, bytes: &[u8]) {
    // A reader that went away (a closed pipe) is no reason to stop the guest.
    let _ = match stream {
        Stream::Output => io::stdout()
            .write_all(bytes)
            .and_then(|()| io::stdout().flush()),
        Stream::Error => io::stderr()
            .write_all(bytes)
            .and_then(|()| io::stderr().flush()),
    };
}

/// How a boot ended.
#[derive(Debug)]
pub enum Verdict {
    /// The command ended by itself, with this status.
    Exit(u8),
    /// The command ended with this status, but the kernel has found faults.
    Reported(u8, Vec<String>),
    /// The kernel or the firmware crashed; the line that says so.
    Crashed(String),
    /// It took too long.
    TimedOut(Duration),
    /// QEMU ended without the guest's saying so.
    Lost,
    /// This signal asked for the end.
    Interrupted(i32),
}

/// What is left of a boot.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// The last lines of the kernel's console.
    pub console_tail: Vec<String>,
    /// The directory with the logs.
    pub directory: PathBuf,
}

impl Outcome {
    /// How it ended, with the last lines of the console and where the logs are.
    pub fn explain(&self) -> String {
        let summary = match &self.verdict {
            Verdict::Exit(status) => format!("the command ended with status {status}"),
            Verdict::Reported(status, reports) => format!(
                "the command ended with status {status}, but the kernel reported:\n  {}",
                reports.join("\n  ")
            ),
            Verdict::Crashed(line) => format!("the guest crashed: {line}"),
            Verdict::TimedOut(limit) => format!("no end after {} seconds", limit.as_secs()),
            Verdict::Lost => "the guest is gone".to_owned(),
            Verdict::Interrupted(signal) => format!("interrupted by signal {signal}"),
        };
        format!(
            "---- last lines of the console\n{}\n---- {summary}\nlogs: {}",
            self.console_tail.join("\n"),
            self.directory.display()
        )
    }
}

/// Something that the waiting thread has to act upon.
enum Event {
    Crash,
    Status(String),
    Signal(i32),
    Gone,
}

/// Boots `stack` and waits for the end.
pub fn boot(stack: &Stack, boot: &Boot<'_>) -> Result<Outcome> {
    let directory = boot.directory.as_path();
    let memory = memfd_create("ringfence-guest-memory", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, machine::memory_size(boot.board))?;
    let (events, received) = channel();
    let mut arguments = Arguments::new(boot.board);
    arguments
        .memory(memory.as_raw_fd())
        .option("-drive", flash_drive(&stack.firmware.flash()))
        .load(&stack.kernel.image(), KERNEL_ADDRESS)
        .load(&stack.initramfs.archive(), INITRAMFS_ADDRESS)
        .option("-dtb", finish_devicetree(stack, boot, directory)?);
    if boot.icount {
        arguments.option("-icount", ICOUNT);
    }
    if let Some(share) = boot.share {
        let share = share
            .canonicalize()
            .with_context(|| format!("the shared directory {}", share.display()))?;
        let path = machine::quote(&share);
        arguments.option(
            "-virtfs",
            format!("local,path={path},mount_tag=share,security_model=none,multidevs=remap"),
        );
    }
    for (name, path) in configuration(stack, boot, directory)? {
        arguments.config(name, &path);
    }

    let mut wires = Wires::default();
    let consoles = wires.consoles(&mut arguments, directory, &events)?;
    arguments.option("-device", "virtio-serial-pci");
    wires.status(&mut arguments, &events)?;
    let album = Album::new(boot.pictures(), boot.originals.clone());
    wires.host(&mut arguments, &memory, &boot.needles, album)?;
    let mut screen = Screen::None;
    match boot.task {
        Task::Command(_) => wires.output(&mut arguments, &boot.sink)?,
        Task::Shell => screen = wires.screen(&mut arguments)?,
    }

    let qemu = Qemu::start(arguments, &memory, wires.inherited(), directory)?;
    let signals = watch_signals(&events)?;
    let pid = qemu.pid();
    wires.close_inherited();
    let end = wait(boot.timeout, &received, &screen);
    if matches!(end, End::Crash) {
        thread::sleep(AFTERMATH);
    }
    signals.close();
    qemu.stop()
        .with_context(|| format!("stop QEMU, process {pid}"))?;
    wires.join();
    drop(screen);

    let console = consoles.normal.lock().expect("its reader has ended");
    let secure = consoles.secure.lock().expect("its reader has ended");
    let reports = console.reports().to_vec();
    let verdict = match (end, console.crash().or(secure.crash())) {
        (_, Some(line)) => Verdict::Crashed(line.to_owned()),
        (End::Exit(status), None) if reports.is_empty() => Verdict::Exit(status),
        (End::Exit(status), None) => Verdict::Reported(status, reports),
        (End::TimedOut, None) => Verdict::TimedOut(boot.timeout.unwrap_or_default()),
        (End::Signal(number), None) => Verdict::Interrupted(number),
        (End::Gone | End::Crash, None) => Verdict::Lost,
    };
    Ok(Outcome {
        verdict,
        console_tail: console.tail(),
        directory: directory.to_owned(),
    })
}

/// Why waiting ended.
enum End {
    Exit(u8),
    Crash,
    TimedOut,
    Signal(i32),
    Gone,
}

fn wait(timeout: Option<Duration>, events: &Receiver<Event>, screen: &Screen) -> End {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let event = match deadline {
            Some(deadline) => {
                events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Crash) => return End::Crash,
            Ok(Event::Status(line)) => {
                if let Some(status) = line
                    .strip_prefix("exit ")
                    .and_then(|status| status.trim().parse().ok())
                {
                    return End::Exit(status);
                }
            }
            Ok(Event::Signal(SIGWINCH)) => screen.resize(),
            Ok(Event::Signal(number)) => return End::Signal(number),
            Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => return End::Gone,
            Err(RecvTimeoutError::Timeout) => return End::TimedOut,
        }
    }
}

/// Sends signals to this process on as events, until the handle is closed.
fn watch_signals(events: &Sender<Event>) -> Result<signal_hook::iterator::Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
    let handle = signals.handle();
    let events = events.clone();
    thread::spawn(move || {
        for number in signals.forever() {
            // Nobody listens any more when the boot has just ended.
            let _ = events.send(Event::Signal(number));
        }
    });
    Ok(handle)
}

/// A directory of this boot's own; removes those of older ones.
pub fn run_directory(cache: &Cache) -> Result<PathBuf> {
    let runs = cache.subdirectory("run")?;
    let mut old: Vec<_> = fs::read_dir(&runs)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(KEPT_RUNS);
    for (_, path) in old.drain(..surplus) {
        let owner = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split('-').next());
        let is_alive = owner.is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !is_alive {
            // Another xtask may be removing the same one.
            let _ = fs::remove_dir_all(path);
        }
    }
    for number in 0.. {
        let directory = runs.join(format!("{}-{number}", std::process::id()));
        match fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("create {}", directory.display()))
            }
        }
    }
    bail!("no name is left for a directory in {}", runs.display())
}

fn flash_drive(flash: &Path) -> String {
    format!(
        "if=pflash,unit=0,format=raw,readonly=on,file={}",
        machine::quote(flash)
    )
}

/// Adds to the devicetree what belongs to one boot; returns the blob.
fn finish_devicetree(stack: &Stack, boot: &Boot<'_>, directory: &Path) -> Result<PathBuf> {
    let blob = directory.join("guest.dtb");
    fs::copy(stack.devicetree.blob(boot.board), &blob)?;
    let end = INITRAMFS_ADDRESS + fs::metadata(stack.initramfs.archive())?.len();
    let mut bootargs = "console=ttyAMA0 panic=-1".to_owned();
    if stack.kernel.flavour == Flavour::Debug {
        // Allocators with sheaves (mm/slub.c) keep a pointer to every object that they hand out, and
        // kmemleak takes it for a reference: no leak would be found. Checked caches have none.
        bootargs.push_str(" kmemleak=on slab_debug=F,kmalloc-*");
    }
    if !boot.bootargs.is_empty() {
        bootargs.push(' ');
        bootargs.push_str(boot.bootargs);
    }
    let cells = |address: u64| {
        [
            format!("{:x}", address >> 32),
            format!("{:x}", address & 0xffff_ffff),
        ]
    };
    let put = |kind: &str, property: &str, values: &[String]| -> Result<()> {
        let mut fdtput = Command::new("fdtput");
        fdtput
            .args(["-t", kind])
            .arg(&blob)
            .args(["/chosen", property])
            .args(values);
        let output = fdtput.output().context("start fdtput")?;
        if !output.status.success() {
            bail!(
                "fdtput {property}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    };
    put("s", "bootargs", &[bootargs])?;
    put("x", "linux,initrd-start", &cells(INITRAMFS_ADDRESS))?;
    put("x", "linux,initrd-end", &cells(end))?;
    Ok(blob)
}

/// Writes what the guest's first process is told: names and files.
fn configuration(
    stack: &Stack,
    boot: &Boot<'_>,
    directory: &Path,
) -> Result<Vec<(&'static str, PathBuf)>> {
    let word = |set: bool| if set { "yes" } else { "no" };
    let (rows, columns) = terminal::size();
    let mode = if matches!(boot.task, Task::Shell) {
        "shell"
    } else {
        "command"
    };
    let assignments = format!(
        "MODE={mode}\nOPTEE={}\nHEAPS={}\nUPSTREAM={}\nSHARE={}\nLEAKS={}\nROWS={rows}\nCOLS={columns}\n",
        word(boot.conditions.optee),
        word(boot.conditions.heaps),
        word(boot.conditions.upstream),
        word(boot.share.is_some()),
        word(stack.kernel.flavour == Flavour::Debug && mode == "command"),
    );
    let mut files = vec![("boot", directory.join("boot"))];
    fs::write(&files[0].1, assignments)?;
    if let Task::Command(words) = &boot.task {
        let script = directory.join("command");
        fs::write(&script, format!("exec {}\n", shell_words::join(words)))?;
        files.push(("command", script));
    }
    Ok(files)
}
