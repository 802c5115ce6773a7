// SPDX-License-Identifier: MIT OR Apache-2.0

//! Many processes do at random what can be done with buffers, and are killed in
//! the middle of it.
//!
//! `RINGFENCE_SOAK_OPERATIONS` is how many operations there are, and
//! `RINGFENCE_SEED` what they are.

use std::env;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::hostile::{Hostile, TRUSTED_DISPLAY};
use ringfence_tests::guest::memory::expect_zero;
use ringfence_tests::guest::ta::Ta;
use ringfence_tests::guest::{allocation, deadline, debug, heap_info, socket};
use rustix::io::Errno;
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

use super::fixture::Fixture;
use super::region::{self, CAMERA, DECLARED, RECORD, UI, VIDEO, WHOLE};
use super::{settled, Test};

pub const TESTS: &[Test] = &[("processes_killed_at_random_leave_nothing", soak)];

/// First argument that makes this program a worker.
pub const WORKER: &str = "--soak-worker";

const PAGE: u64 = 4096;

/// Processes at a time.
const WORKERS: usize = 8;

/// Buffers that a worker holds at most.
const HELD: usize = 12;

/// Until everything is back after the last process was killed.
const SETTLING: Duration = Duration::from_secs(120);

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}

/// A process that does things at random, and says so by a byte for each.
#[derive(Debug)]
pub struct Worker(Child);

impl Worker {
    /// Starts one that stays with a heap, and talks to nobody.
    pub fn start(seed: u64, heap: &str) -> anyhow::Result<Self> {
        Self::spawn(seed, heap, Stdio::null())
    }

    fn spawn(seed: u64, heap: &str, output: Stdio) -> anyhow::Result<Self> {
        Ok(Self(
            Command::new("/proc/self/exe")
                .args([WORKER, &seed.to_string(), heap])
                .stdin(Stdio::null())
                .stdout(output)
                .spawn()?,
        ))
    }

    /// Kills it; it must have lived until then.
    pub fn kill(mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        self.0.kill()?;
        self.0.wait()?;
        match ended {
            Some(status) => anyhow::bail!("a worker has ended by itself: {status}"),
            None => Ok(()),
        }
    }
}

/// The worker's part, if the arguments are those of one.
pub fn child(arguments: &[String]) -> Option<ExitCode> {
    match arguments {
        [first, seed, heap] if first == WORKER => Some(match work(seed, heap) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("worker {seed}: {error:#}");
                ExitCode::FAILURE
            }
        }),
        _ => None,
    }
}

/// What a worker has.
struct State {
    random: fastrand::Rng,
    heap: String,
    control: Control,
    fixture: Fixture,
    ta: Option<Ta>,
    buffers: Vec<Buffer>,
    ends: (OwnedFd, OwnedFd),
    in_flight: usize,
}

/// Does things until it is killed.
fn work(seed: &str, heap: &str) -> anyhow::Result<()> {
    let mut state = State {
        random: fastrand::Rng::with_seed(seed.parse()?),
        heap: heap.to_owned(),
        control: Control::open()?,
        fixture: Fixture::read()?,
        ta: None,
        buffers: Vec::new(),
        ends: socketpair(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?,
        in_flight: 0,
    };
    loop {
        state.step()?;
        io::stdout().write_all(b".")?;
        io::stdout().flush()?;
    }
}

impl State {
    fn step(&mut self) -> anyhow::Result<()> {
        match self.random.u32(0..16) {
            0..=4 => self.allocate(),
            5..=7 => {
                self.take();
                Ok(())
            }
            8 => {
                if let Some(buffer) = self.pick() {
                    let copy = Buffer::from(buffer.as_fd().try_clone_to_owned()?);
                    self.keep(copy);
                }
                Ok(())
            }
            9 | 10 => self.ask(),
            11 | 12 => self.decrypt(),
            13 => self.attach(),
            14 => self.send(),
            _ => self.receive(),
        }
    }

    /// One of the buffers.
    fn pick(&mut self) -> Option<&Buffer> {
        let index = self.random.usize(0..self.buffers.len().max(1));
        self.buffers.get(index)
    }

    /// One of the buffers, to be closed or given away.
    fn take(&mut self) -> Option<Buffer> {
        let index = self.random.usize(0..self.buffers.len().max(1));
        (index < self.buffers.len()).then(|| self.buffers.swap_remove(index))
    }

    fn keep(&mut self, buffer: Buffer) {
        if self.buffers.len() == HELD {
            self.take();
        }
        self.buffers.push(buffer);
    }

    fn allocate(&mut self) -> anyhow::Result<()> {
        let heap = match self.heap.as_str() {
            "all" => match self.random.u32(0..5) {
                0 => UI,
                1 => CAMERA,
                2 => RECORD,
                _ => VIDEO,
            },
            one => one,
        };
        // Small ones are many, large ones are there.
        let largest = 1_u64 << self.random.u32(0..12);
        let size = PAGE * self.random.u64(1..=largest);
        match allocation::allocate_size(&allocation::open(heap)?, size) {
            Ok(buffer) => self.keep(buffer),
            Err(Errno::NOMEM) => {
                self.buffers.clear();
            }
            Err(errno) => anyhow::bail!("{size} bytes of {heap}: {errno}"),
        }
        Ok(())
    }

    fn ask(&mut self) -> anyhow::Result<()> {
        if let Some(buffer) = self.pick() {
            let copy = buffer.as_fd().try_clone_to_owned()?;
            self.control.buffer(&copy)?;
        }
        self.control.heaps()?;
        Ok(())
    }

    fn decrypt(&mut self) -> anyhow::Result<()> {
        let Some(buffer) = self.pick() else {
            return Ok(());
        };
        let copy = buffer.as_fd().try_clone_to_owned()?;
        let info = self.control.buffer(&copy)?;
        if info.heap != VIDEO {
            return Ok(());
        }
        let handle = info.protected_handle()?.raw();
        if self.ta.is_none() {
            // There may be no room for one more session at the moment.
            let Ok(mut ta) = Ta::open() else {
                return Ok(());
            };
            ta.load_licence(&self.fixture.licence)
                .map_err(|code| anyhow::anyhow!("LOAD_LICENCE: {code:#x}"))?;
            self.ta = Some(ta);
        }
        let request = self.fixture.request(0);
        let length = info.size.min(16 * PAGE) as usize;
        if let Some(ta) = &mut self.ta {
            ta.decrypt(handle, &request, &self.fixture.ciphertext[..length])
                .map_err(|code| anyhow::anyhow!("DECRYPT: {code:#x}"))?;
        }
        if self.random.u32(0..8) == 0 {
            self.ta = None;
        }
        Ok(())
    }

    /// Has a device take the buffer, and perhaps keep it for a while.
    fn attach(&mut self) -> anyhow::Result<()> {
        let keep = self.random.bool();
        let device = match self.random.bool() {
            true => "64",
            false => TRUSTED_DISPLAY,
        };
        let Some(buffer) = self.pick() else {
            return Ok(());
        };
        let Some(hostile) = Hostile::loaded() else {
            return Ok(());
        };
        let outcome = match keep {
            true => hostile.take(buffer, device),
            false => hostile.attach(buffer, device),
        };
        match outcome {
            // A heap with a list of consumers does not have this one.
            Ok(()) | Err(Errno::ACCESS) => {}
            Err(errno) => anyhow::bail!("attach: {errno}"),
        }
        if self.random.u32(0..4) == 0 {
            hostile.release()?;
        }
        Ok(())
    }

    /// Gives a buffer away, to be received later, or never.
    fn send(&mut self) -> anyhow::Result<()> {
        let Some(buffer) = self.take() else {
            return Ok(());
        };
        match socket::send(&self.ends.0, &buffer) {
            Ok(()) => self.in_flight += 1,
            Err(Errno::AGAIN) => {}
            Err(errno) => anyhow::bail!("sendmsg: {errno}"),
        }
        Ok(())
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        if self.in_flight == 0 {
            return Ok(());
        }
        let received = socket::receive(&self.ends.1)?;
        self.in_flight -= 1;
        for descriptor in received {
            self.keep(Buffer::from(descriptor));
        }
        Ok(())
    }
}

/// Fails unless nothing is fenced or allocated, and all of every carveout is
/// zero.
pub fn nothing_is_left() -> anyhow::Result<()> {
    let info = SecureSession::open()?.info()?;
    anyhow::ensure!((info.ranges, info.quarantined) == (0, 0), "{info:?}");
    for declared in DECLARED.iter().chain([&WHOLE]) {
        let heap = heap_info(declared.name)?;
        anyhow::ensure!(
            heap.protected_bytes == 0 && heap.free == heap.size && heap.buffers == 0,
            "{heap:?}"
        );
        anyhow::ensure!(debug::ranges(declared.name)?.is_empty(), "ranges are left");
        deadline::until(SETTLING, "the scrubber is done", || {
            Ok((debug::figure(declared.name, "dirty")? == 0).then_some(()))
        })?;
        expect_zero(region::of(declared.name)?, declared.name)?;
    }
    Ok(())
}

fn soak() -> anyhow::Result<()> {
    let wanted = setting("RINGFENCE_SOAK_OPERATIONS", debug::tries(500))?;
    let seed = setting("RINGFENCE_SEED", fastrand::u64(..))?;
    println!("{wanted} operations, RINGFENCE_SEED={seed}");
    let before = Control::open()?.heaps()?;
    let hostile = Hostile::load()?;
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut reader, writer) = io::pipe()?;
    let done = Arc::new(AtomicU64::new(0));
    let counter = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            let mut room = [0; 256];
            // The pipe ends with the last worker.
            while let Ok(count @ 1..) = reader.read(&mut room) {
                done.fetch_add(count as u64, Ordering::Relaxed);
            }
        })
    };
    let mut workers = Vec::new();
    let mut kills = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && done.load(Ordering::Relaxed) < wanted {
        if workers.len() < WORKERS {
            let output = Stdio::from(writer.try_clone()?);
            workers.push(Worker::spawn(random.u64(..), "all", output)?);
            continue;
        }
        thread::sleep(Duration::from_millis(random.u64(20..200)));
        let victim: Worker = workers.swap_remove(random.usize(0..workers.len()));
        outcome = victim.kill();
        kills += 1;
    }
    for worker in workers {
        outcome = worker.kill().and(outcome);
        kills += 1;
    }
    drop(writer);
    counter
        .join()
        .map_err(|_| anyhow::anyhow!("the counter panicked"))?;
    outcome?;
    let operations = done.load(Ordering::Relaxed);
    let took = start.elapsed();
    println!("{operations} operations and {kills} kills in {took:.1?}");
    hostile.release()?;
    drop(hostile);
    settled(&before)?;
    nothing_is_left()
}
