// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every heap module comes and goes, again and again, with traffic in between.
//!
//! `RINGFENCE_CYCLES` says how often.

use std::env;
use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::control::Control;
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::module::{self, CARVEOUT, CMA, SYSTEM};
use ringfence_tests::guest::{allocation, deadline, debug, dma_buf, expect_errno, heap_info};
use rustix::io::Errno;

use super::cma::{DEFAULT, REGION};
use super::modules::all_online;
use super::region::{CAMERA, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[(
    "heap_modules_come_and_go_under_traffic",
    come_and_go_under_traffic,
)];

/// Cycles on the plain kernel, if nothing else is said.
const CYCLES: u64 = 10;

/// What the threads are told.
#[derive(Default)]
struct Signals {
    /// To end.
    stop: AtomicBool,
    /// To have no buffer for a while.
    pause: AtomicBool,
}

/// Buffers that a thread allocates one after the other, and how long it pauses then.
const BURST: usize = 4;
const GAP: Duration = Duration::from_millis(20);

/// Between two tries to unload a module, and for how long it is tried under full
/// traffic.
const RETRY: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(20);

const MODULES: [&str; 3] = [SYSTEM, CMA, CARVEOUT];
/// Whole regions would be zeroed again and again, and that is not what this is about.
const PARAMETERS: [&CStr; 3] = [c"", c"", c"scrub_rate=0"];

const HEAPS: [&str; 5] = ["system", DEFAULT, REGION, CAMERA, VIDEO];

/// Allocates and uses buffers of a heap until it is told to stop; a heap without a
/// module is no failure. Answers how many buffers there were.
fn traffic(heap: &str, signals: &Signals) -> anyhow::Result<u64> {
    let device = allocation::open(heap)?;
    let cpu_access = heap_info(heap)?.cpu_access;
    let mut served = 0;
    let mut kept = Vec::new();
    while !signals.stop.load(Ordering::Relaxed) {
        if signals.pause.load(Ordering::Relaxed) {
            kept.clear();
            thread::sleep(RETRY);
            continue;
        }
        let size = 4096 << (served % 7);
        match allocation::allocate_size(&device, size) {
            Ok(buffer) => {
                served += 1;
                if cpu_access {
                    let mut mapping = Mapping::new(&buffer, size as usize)?;
                    anyhow::ensure!(mapping.others_than(0) == 0, "{heap}: not zeroed");
                    mapping.fill(1);
                    dma_buf::sync(&buffer, dma_buf::SYNC_WRITE | dma_buf::SYNC_END)?;
                }
                kept.push(buffer);
            }
            // Its module is away.
            Err(Errno::NODEV) => thread::sleep(Duration::from_millis(1)),
            Err(errno) => anyhow::bail!("{heap}: {errno}"),
        }
        if kept.len() == BURST {
            // A moment without any buffer, in which the module can go.
            kept.clear();
            thread::sleep(GAP);
        }
    }
    Ok(served)
}

fn cycle(number: u64, files: &[PathBuf], signals: &Signals) -> anyhow::Result<()> {
    // Not always in the same order.
    let first = number as usize % MODULES.len();
    let order = (0..MODULES.len()).map(|index| (first + index) % MODULES.len());
    for module in order.clone().map(|index| MODULES[index]) {
        // Refused while a buffer lives, which is most of the time.
        let begun = Instant::now();
        loop {
            match module::unload(module) {
                Ok(()) => break,
                Err(Errno::AGAIN) if begun.elapsed() < Duration::from_secs(60) => {
                    let pause = begun.elapsed() > PATIENCE;
                    signals.pause.store(pause, Ordering::Relaxed);
                    thread::sleep(RETRY);
                }
                Err(errno) => anyhow::bail!("rmmod {module}: {errno}"),
            }
        }
        signals.pause.store(false, Ordering::Relaxed);
    }
    for index in order {
        module::insert(&files[index], PARAMETERS[index])?;
    }
    // The others are there at once.
    if heap_info(VIDEO)?.online {
        return Ok(());
    }
    all_online()
}

/// Keeps what is no warning from the console, until it is dropped.
struct Quiet(String);

impl Quiet {
    const FILE: &str = "/proc/sys/kernel/printk";

    fn new() -> anyhow::Result<Self> {
        let old = fs::read_to_string(Self::FILE).context(Self::FILE)?;
        fs::write(Self::FILE, "5").context(Self::FILE)?;
        Ok(Self(old))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // It was writable a moment ago.
        let _ = fs::write(Self::FILE, &self.0);
    }
}

fn come_and_go_under_traffic() -> anyhow::Result<()> {
    let cycles = match env::var("RINGFENCE_CYCLES") {
        Ok(text) => text.parse().context("RINGFENCE_CYCLES")?,
        Err(_) => debug::tries(CYCLES),
    };
    let before = Control::open()?.heaps()?.len();
    let files: Vec<PathBuf> = MODULES
        .into_iter()
        .map(module::file)
        .collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    let signals = Signals::default();
    // Warnings and worse go to the console, and not every word of every module's tests.
    let quiet = Quiet::new()?;
    let (served, done) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let workers: Vec<_> = HEAPS
            .iter()
            .map(|heap| {
                let (signals, served) = (&signals, &served);
                scope.spawn(move || {
                    let count = traffic(heap, signals)?;
                    served.fetch_add(count, Ordering::Relaxed);
                    anyhow::Ok(())
                })
            })
            .collect();
        let outcome = (0..cycles).try_for_each(|number| {
            anyhow::ensure!(
                workers.iter().all(|worker| !worker.is_finished()),
                "the traffic has ended"
            );
            cycle(number, &files, &signals).with_context(|| format!("cycle {number}"))?;
            if (done.fetch_add(1, Ordering::Relaxed) + 1) % 50 == 0 {
                println!("{} cycles in {:.1?}", number + 1, begun.elapsed());
            }
            anyhow::Ok(())
        });
        signals.stop.store(true, Ordering::Relaxed);
        let ended: anyhow::Result<Vec<()>> = workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(_) => anyhow::bail!("a thread panicked"),
            })
            .collect();
        outcome.and(ended.map(drop))
    })?;
    drop(quiet);
    let (served, done) = (served.load(Ordering::Relaxed), done.load(Ordering::Relaxed));
    println!(
        "{done} cycles of {} modules with {served} buffers in {:.1?}",
        MODULES.len(),
        begun.elapsed()
    );
    anyhow::ensure!(served > cycles, "only {served} buffers in {cycles} cycles");
    // Each heap is there once, and empty.
    let heaps = Control::open()?.heaps()?;
    anyhow::ensure!(heaps.len() == before, "{heaps:#?}");
    for heap in heaps.iter().filter(|heap| heap.online) {
        anyhow::ensure!(heap.used == 0 && heap.buffers == 0, "{heap:?}");
    }
    for module in MODULES {
        module::unload(module).map_err(|errno| anyhow::anyhow!("rmmod {module}: {errno}"))?;
    }
    for heap in HEAPS {
        let device = allocation::open(heap)?;
        expect_errno(allocation::allocate_size(&device, 1), Errno::NODEV, heap)?;
    }
    let modules = fs::read_to_string("/proc/modules")?;
    anyhow::ensure!(
        !MODULES.iter().any(|name| modules.contains(name)),
        "{modules}"
    );
    for module in MODULES {
        module::load(module)?;
    }
    all_online()?;
    deadline::until(Duration::from_secs(60), "the scrubber", || {
        Ok((debug::figure(CAMERA, "dirty")? == 0).then_some(()))
    })
}
