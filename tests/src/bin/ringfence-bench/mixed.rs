// SPDX-License-Identifier: MIT OR Apache-2.0

//! A heap that is nearly full, under several threads.
//!
//! What a call takes is read from the calling thread's own clock: all of its
//! instructions, but not those of another thread that the scheduler let run in
//! between. So the ways through locks count, and the time until somebody who was
//! stopped with a lock in hand gives it back does not; how many calls had to wait for
//! that is counted. A call in which an interrupt came has the instructions of that in
//! its time, and whatever the kernel does after one for others; these calls are told
//! apart.
//!
//! Each thread releases a buffer and allocates another of another size, over and over,
//! without a rest. Allocations do not wait for memory to be zeroed: that, and a run that
//! is not there, is answered at once, and the thread tries another size a little later.
//!
//! What the kernel makes for any dma-buf, its file, inode and directory entry, comes from
//! caches that a call has to fill or to empty now and then. A heap that has nothing but
//! these objects shows what that costs.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::error::Error;
use ringfence::request::Request;
use ringfence_tests::bench::{Counter, MixedFigures, Spread};
use ringfence_tests::guest::importer::Importer;
use ringfence_tests::guest::module;
use ringfence_tests::guest::open_files::Limit;
use ringfence_tests::guest::{deadline, heap_info};
use rustix::time::{clock_gettime, ClockId};

use crate::rounds;

/// The module of the heap, and how many MiB in a second it zeroes at most here.
const MODULE: &str = "ringfence_carveout";
const RATE: &str = "scrub_rate=1000000";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Threads.
const THREADS: u32 = 4;
/// Calls that count, of both kinds together.
const CALLS: u64 = 100_000;
/// Calls before these: in the first ones the kernel's caches of small objects grow to what
/// so many buffers need.
const WARM_UP: u64 = 10_000;
/// Per cent of the region that are allocated, about.
const OCCUPANCY: u32 = 90;
/// Units of 4 KiB in the largest buffer, as a power of two: 4 MiB.
const LARGEST: u32 = 10;
const PAGE: u64 = 4096;
/// Files that may be open, one for each buffer.
const OPEN_FILES: u64 = 1 << 14;
/// How long a thread waits when it was refused.
const REST: Duration = Duration::from_millis(1);

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    allocs: Vec<u64>,
    closes: Vec<u64>,
    interrupted: Vec<u64>,
    waited: u64,
    preempted: u64,
    put_off: u64,
}

/// What the threads share.
struct Shared<'a> {
    clock: &'a Clock,
    /// Knows of interrupts.
    importer: &'a Importer,
    heap: &'a str,
    region: u64,
    used: AtomicU64,
    calls: AtomicU64,
    /// Passed when the region is filled.
    full: Barrier,
}

/// Measures heaps, with as much memory as the largest of them has.
pub fn measure(counter: &Counter, heaps: &[&str]) -> anyhow::Result<Vec<MixedFigures>> {
    if heaps.is_empty() {
        return Ok(Vec::new());
    }
    // A scrubber that takes no rests leaves the threads none, in which time would hardly pass.
    reload(heaps, &[RATE])?;
    let sizes = heaps.iter().map(|heap| Ok(heap_info(heap)?.size));
    let region = sizes.collect::<anyhow::Result<Vec<_>>>()?;
    let region = region.into_iter().max().unwrap_or_default();
    let figures = heaps
        .iter()
        .map(|heap| measure_one(counter, heap, region))
        .collect();
    reload(heaps, &[])?;
    figures
}

fn measure_one(counter: &Counter, heap: &str, region: u64) -> anyhow::Result<MixedFigures> {
    let importer = Importer::open()?;
    rounds::rest(heap)?;
    let clock = Clock::new(counter)?;
    let _limit = Limit::set(OPEN_FILES)?;
    let shared = Shared {
        clock: &clock,
        importer: &importer,
        heap,
        region,
        used: AtomicU64::new(0),
        calls: AtomicU64::new(0),
        full: Barrier::new(THREADS as usize),
    };
    let seen = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || shared.work(u64::from(number)))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut all = Seen::default();
    for mut one in seen {
        all.allocs.append(&mut one.allocs);
        all.closes.append(&mut one.closes);
        all.interrupted.append(&mut one.interrupted);
        all.waited += one.waited;
        all.preempted += one.preempted;
        all.put_off += one.put_off;
    }
    Ok(MixedFigures {
        heap: heap.to_owned(),
        region: shared.region,
        occupancy: OCCUPANCY,
        threads: THREADS,
        largest: PAGE << LARGEST,
        calls: (all.allocs.len() + all.closes.len()) as u64,
        interrupted: all.interrupted.len() as u64,
        interrupted_max: all.interrupted.iter().copied().max().unwrap_or_default(),
        waited: all.waited,
        preempted: all.preempted,
        put_off: all.put_off,
        alloc: Spread::of(all.allocs).context("no allocation")?,
        close: Spread::of(all.closes).context("no release")?,
    })
}

/// Loads the module of the carveouts among `heaps` anew.
fn reload(heaps: &[&str], parameters: &[&str]) -> anyhow::Result<()> {
    // What was released is given back by and by.
    deadline::until(PATIENCE, "rmmod", || {
        module::unload(MODULE).map(Some).map_err(Into::into)
    })?;
    module::load_with(MODULE, parameters)?;
    deadline::until(PATIENCE, "the heaps come up", || {
        for heap in heaps {
            if !heap_info(heap)?.online {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    /// Each power of two is as likely as the next one.
    fn size(&mut self) -> u64 {
        let order = self.roll(u64::from(LARGEST) + 1);
        let most = 1_u64 << order;
        PAGE * (most / 2 + 1 + self.roll(most.div_ceil(2))).min(most)
    }
}

/// A thread's own clock.
struct Clock {
    /// Instructions in a nanosecond of it.
    instructions: u64,
    /// Nanoseconds from one look at it to the next.
    overhead: u64,
}

impl Clock {
    /// # Errors
    ///
    /// When instructions of a nanosecond are no whole number.
    fn new(counter: &Counter) -> anyhow::Result<Self> {
        const SECOND: u64 = 1_000_000_000;
        let instructions = counter.hertz * counter.instructions_per_step;
        anyhow::ensure!(
            instructions.is_multiple_of(SECOND),
            "{instructions} instructions in a second"
        );
        let overhead = (0..100)
            .map(|_| {
                let start = now();
                now() - start
            })
            .min()
            .unwrap_or_default();
        Ok(Self {
            instructions: instructions / SECOND,
            overhead,
        })
    }
}

/// Nanoseconds that this thread has run.
fn now() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // CAST: It does not run backwards, and started at 0.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How often this thread has waited, and how often another one was given its turn.
fn switches() -> anyhow::Result<(i64, i64)> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: There is room for the answer, which is whole when the call succeeds.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error().into());
        }
        usage.assume_init()
    };
    Ok((usage.ru_nvcsw, usage.ru_nivcsw))
}

/// What a call took.
struct Time {
    instructions: u64,
    /// Whether an interrupt came meanwhile.
    interrupted: bool,
}

impl Shared<'_> {
    /// Times one call.
    fn time<T>(&self, seen: &mut Seen, call: impl FnOnce() -> T) -> anyhow::Result<(T, Time)> {
        let (waited, preempted) = switches()?;
        let had = self.importer.interrupts()?;
        let start = now();
        let answer = call();
        let end = now();
        let has = self.importer.interrupts()?;
        let after = switches()?;
        seen.waited += u64::from(after.0 != waited);
        seen.preempted += u64::from(after.1 != preempted);
        let own = (end - start).saturating_sub(self.clock.overhead);
        let time = Time {
            instructions: own * self.clock.instructions,
            interrupted: has != had,
        };
        Ok((answer, time))
    }

    /// Takes note of a call; `times` are those of its kind in which nothing came between.
    fn note(&self, times: fn(&mut Seen) -> &mut Vec<u64>, seen: &mut Seen, time: Time) {
        let earlier = self.calls.load(Ordering::Relaxed);
        let times = if time.interrupted {
            &mut seen.interrupted
        } else {
            self.calls.fetch_add(1, Ordering::Relaxed);
            times(seen)
        };
        if earlier >= WARM_UP {
            times.push(time.instructions);
        }
    }

    /// Takes this thread's share of what is to be allocated.
    fn fill(
        &self,
        control: &Control,
        dice: &mut Dice,
        live: &mut VecDeque<(Buffer, u64)>,
    ) -> anyhow::Result<()> {
        let mut own = 0;
        while own < self.wanted() / u64::from(THREADS) {
            let size = dice.size();
            let request = Request::new(size).from(self.heap);
            live.push_back((control.allocate(&request)?.buffer, size));
            own += size;
        }
        self.used.fetch_add(own, Ordering::Relaxed);
        Ok(())
    }

    /// Releases a buffer and allocates another, over and over.
    fn work(&self, number: u64) -> anyhow::Result<Seen> {
        let control = Control::open()?;
        let mut dice = Dice(number);
        let mut seen = Seen::default();
        let mut live = VecDeque::new();
        let filled = self.fill(&control, &mut dice, &mut live);
        // Whoever has failed lets the others go on, too.
        self.full.wait();
        filled?;
        while self.calls.load(Ordering::Relaxed) < WARM_UP + CALLS {
            let released = self.release(&mut live, &mut dice, &mut seen)?;
            live.push_back(self.allocate(&control, released, &mut dice, &mut seen)?);
        }
        Ok(seen)
    }

    /// Bytes that are to be allocated.
    fn wanted(&self) -> u64 {
        self.region / 100 * u64::from(OCCUPANCY)
    }

    /// Gives a buffer back, and answers its size.
    fn release(
        &self,
        live: &mut VecDeque<(Buffer, u64)>,
        dice: &mut Dice,
        seen: &mut Seen,
    ) -> anyhow::Result<u64> {
        let index = dice.roll(live.len().max(1) as u64) as usize;
        let (buffer, size) = live.swap_remove_back(index).context("nothing is live")?;
        let ((), time) = self.time(seen, || drop(buffer))?;
        self.note(|seen| &mut seen.closes, seen, time);
        self.used.fetch_sub(size, Ordering::Relaxed);
        Ok(size)
    }

    /// Allocates a buffer: a larger one than was released if too little is allocated, a
    /// smaller one if too much.
    fn allocate(
        &self,
        control: &Control,
        released: u64,
        dice: &mut Dice,
        seen: &mut Seen,
    ) -> anyhow::Result<(Buffer, u64)> {
        loop {
            let too_little = self.used.load(Ordering::Relaxed) + released < self.wanted();
            let size = dice.size();
            if (too_little && size < released) || (!too_little && size > released) {
                continue;
            }
            let request = Request::new(size).from(self.heap).no_wait();
            let (allocated, time) = self.time(seen, || control.allocate(&request))?;
            match allocated {
                Ok(allocation) => {
                    self.note(|seen| &mut seen.allocs, seen, time);
                    self.used.fetch_add(size, Ordering::Relaxed);
                    return Ok((allocation.buffer, size));
                }
                Err(Error::NoneServed { .. }) => {
                    seen.put_off += 1;
                    thread::sleep(REST);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
