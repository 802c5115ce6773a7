// SPDX-License-Identifier: MIT OR Apache-2.0

//! A carveout that is nearly full, under several threads.
//!
//! The threads share a processor: each other's instructions would be in their
//! figures otherwise. A call in which another thread ran is left out, be it that the
//! scheduler made this one let it, or that this one waited for a lock of a thread which
//! had been interrupted; one in which a tick of the clock came counts. Allocations
//! do not wait for memory to be zeroed: that, and a run that is not there, is
//! answered at once, and the thread gives something back or rests.

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
use ringfence::error::{AllocationFailure, Error};
use ringfence::fallback::Reason;
use ringfence::request::Request;
use ringfence_tests::bench::{Counter, MixedFigures, Spread};
use ringfence_tests::guest::heap_info;
use ringfence_tests::guest::open_files::Limit;

use crate::{counter, rounds};

/// Threads.
const THREADS: u32 = 4;
/// Calls that count, of both kinds together.
const CALLS: u64 = 100_000;
/// Per cent of the region that are allocated, about.
const OCCUPANCY: u32 = 90;
/// Units of 4 KiB in the largest buffer, as a power of two.
const LARGEST: u32 = 10;
const PAGE: u64 = 4096;
/// Files that may be open, one for each buffer.
const OPEN_FILES: u64 = 1 << 14;
/// How long a thread rests when there is no clean memory.
const REST: Duration = Duration::from_millis(1);

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    allocs: Vec<u64>,
    closes: Vec<u64>,
    interrupted: u64,
    put_off: u64,
}

/// What the threads share.
struct Shared<'a> {
    counter: &'a Counter,
    heap: &'a str,
    region: u64,
    used: AtomicU64,
    calls: AtomicU64,
    /// Passed when the region is filled.
    full: Barrier,
}

/// Measures a heap.
pub fn measure(counter: &Counter, heap: &str) -> anyhow::Result<MixedFigures> {
    rounds::rest(heap)?;
    let _limit = Limit::set(OPEN_FILES)?;
    let shared = Shared {
        counter,
        heap,
        region: heap_info(heap)?.size,
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
        all.interrupted += one.interrupted;
        all.put_off += one.put_off;
    }
    Ok(MixedFigures {
        heap: heap.to_owned(),
        region: shared.region,
        occupancy: OCCUPANCY,
        threads: THREADS,
        calls: (all.allocs.len() + all.closes.len()) as u64,
        interrupted: all.interrupted,
        put_off: all.put_off,
        alloc: Spread::of(all.allocs).context("no allocation")?,
        close: Spread::of(all.closes).context("no release")?,
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

/// How often another thread has run in place of this one.
fn interruptions() -> anyhow::Result<i64> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: There is room for the answer, which is whole when the call succeeds.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error().into());
        }
        usage.assume_init()
    };
    Ok(usage.ru_nivcsw + usage.ru_nvcsw)
}

impl Shared<'_> {
    /// Times one call; answers nothing of the time when it was interrupted.
    fn time<T>(&self, call: impl FnOnce() -> T) -> anyhow::Result<(T, Option<u64>)> {
        let before = interruptions()?;
        let start = counter::now();
        let answer = call();
        let end = counter::now();
        let is_whole = interruptions()? == before;
        let instructions = (end - start) * self.counter.instructions_per_step;
        Ok((answer, is_whole.then_some(instructions)))
    }

    /// Takes note of a call that counts.
    fn note(&self, times: &mut Vec<u64>, interrupted: &mut u64, time: Option<u64>) {
        match time {
            Some(time) => {
                times.push(time);
                self.calls.fetch_add(1, Ordering::Relaxed);
            }
            None => *interrupted += 1,
        }
    }

    fn work(&self, number: u64) -> anyhow::Result<Seen> {
        let control = Control::open()?;
        let mut dice = Dice(number);
        let mut seen = Seen::default();
        let mut live = VecDeque::new();
        let limit = self.region / 100 * u64::from(OCCUPANCY);
        while self.used.load(Ordering::Relaxed) < limit {
            let size = dice.size();
            let request = Request::new(size).from(self.heap);
            live.push_back((control.allocate(&request)?.buffer, size));
            self.used.fetch_add(size, Ordering::Relaxed);
        }
        self.full.wait();
        while self.calls.load(Ordering::Relaxed) < CALLS {
            if self.used.load(Ordering::Relaxed) >= limit {
                self.release(&mut live, &mut dice, &mut seen)?;
                continue;
            }
            let size = dice.size();
            let request = Request::new(size).from(self.heap).no_wait();
            let (allocated, time) = self.time(|| control.allocate(&request))?;
            match allocated {
                Ok(allocation) => {
                    self.note(&mut seen.allocs, &mut seen.interrupted, time);
                    self.used.fetch_add(size, Ordering::Relaxed);
                    live.push_back((allocation.buffer, size));
                }
                Err(Error::NoneServed { refused, .. }) => {
                    seen.put_off += 1;
                    let no_room = refused.iter().any(|refused| {
                        matches!(refused.reason, Reason::Failed(AllocationFailure::NoRoom))
                    });
                    if no_room {
                        self.release(&mut live, &mut dice, &mut seen)?;
                    }
                    thread::sleep(REST);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(seen)
    }

    fn release(
        &self,
        live: &mut VecDeque<(Buffer, u64)>,
        dice: &mut Dice,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        if live.is_empty() {
            thread::sleep(REST);
            return Ok(());
        }
        let index = dice.roll(live.len() as u64) as usize;
        let (buffer, size) = live.swap_remove_back(index).context("nothing is live")?;
        let ((), time) = self.time(|| drop(buffer))?;
        self.note(&mut seen.closes, &mut seen.interrupted, time);
        self.used.fetch_sub(size, Ordering::Relaxed);
        Ok(())
    }
}
