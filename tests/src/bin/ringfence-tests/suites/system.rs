// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system heap: whatever becomes of a request, nobody sees anybody's data, and
//! no byte stays behind; and its pool, which is never in the way of others.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::control::Control;
use ringfence_tests::guest::fault::{self, AnyAllocation};
use ringfence_tests::guest::importer::{Direction, Importer};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::module::{self, SYSTEM as MODULE};
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno, heap_info};
use rustix::io::Errno;

use super::{Test, ALLOCATE_FOR_EVER};

pub const TESTS: &[Test] = &[
    ("buffers_of_every_size_are_zeroed", zeroed),
    ("buffers_say_what_they_are", buffer_info),
    ("more_than_there_is_is_refused_at_once", too_much),
    ("more_than_is_left_kills_nobody", more_than_is_left),
    ("a_killed_process_leaves_nothing", killed),
    ("failures_leave_nothing", injected),
    ("what_is_released_is_cleared_ahead_of_need", cleared),
    ("the_pool_is_bounded", bounded),
    ("the_pool_is_given_back_under_pressure", given_back),
    ("nobody_sees_what_another_left", no_stale_data),
    ("the_module_comes_and_goes", come_and_go),
];

/// The tests that only a kernel can run that fails allocations on request. What the others have
/// instead is in [`injected`].
pub fn on_this_kernel() -> &'static [Test] {
    match fault::is_possible() {
        true => &[(
            "any_failed_allocation_leaves_nothing",
            every_allocation_fails,
        )],
        false => &[],
    }
}

const HEAP: &str = "system";
const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Dirty bytes from which on the worker is at work.
const MANY_DIRTY: u64 = MIB;

/// How long the worker may take for what a test gives it.
const SETTLING: Duration = Duration::from_secs(30);

/// Sizes of one block of each order, and of several orders together.
const SIZES: [u64; 8] = [
    PAGE,
    3 * PAGE,
    64 << 10,
    (64 << 10) + PAGE,
    MIB,
    MIB + (68 << 10),
    3 * MIB + (124 << 10),
    8 * MIB,
];

/// Allocates, and fails unless everything is zero; then everything is not.
fn use_up(size: u64) -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    let buffer = allocation::allocate_size(&device, size)?;
    let mut mapping = Mapping::new(&buffer, size as usize)?;
    let others = mapping.others_than(0);
    anyhow::ensure!(others == 0, "{others} of {size} bytes were not zeroed");
    mapping.fill(0xa5);
    Ok(())
}

fn zeroed() -> anyhow::Result<()> {
    for size in SIZES {
        // The second time it is memory of the first.
        use_up(size)?;
        use_up(size)?;
    }
    Ok(())
}

fn buffer_info() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    for (size, contiguous) in [(1, true), (PAGE, true), (64 << 10, true), (5 * PAGE, false)] {
        let buffer = allocation::allocate_size(&device, size)?;
        let info = Control::open()?.buffer(&buffer)?;
        anyhow::ensure!(
            info.size == size.next_multiple_of(PAGE)
                && info.heap == HEAP
                && info.cpu_access
                && !info.protected
                && info.contiguous == contiguous,
            "{info:?}"
        );
    }
    let info = heap_info(HEAP)?;
    anyhow::ensure!(
        info.cpu_access && !info.contiguous && !info.protected && info.size > 0,
        "{info:?}"
    );
    Ok(())
}

/// A line of a file of names and numbers.
fn number(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).context(path.to_owned())?;
    text.lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()?.trim_end_matches(':') == name).then(|| words.next()?.parse().ok())?
        })
        .with_context(|| format!("{path}: no {name}"))
}

fn available() -> anyhow::Result<u64> {
    Ok(number("/proc/meminfo", "MemAvailable")? << 10)
}

fn killed_for_memory() -> anyhow::Result<u64> {
    number("/proc/vmstat", "oom_kill")
}

/// Runs something, and fails if the kernel killed anybody for memory meanwhile.
fn without_kills(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let before = killed_for_memory()?;
    work()?;
    let after = killed_for_memory()?;
    anyhow::ensure!(after == before, "{} were killed", after - before);
    Ok(())
}

fn too_much() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    let total = heap_info(HEAP)?.size;
    without_kills(|| {
        let began = Instant::now();
        for size in [total + 1, 2 * total, 1 << 40, 1 << 63, u64::MAX << 13] {
            let outcome = allocation::allocate_size(&device, size);
            expect_errno(outcome, Errno::NOMEM, &format!("{size:#x} bytes"))?;
        }
        // Rounded up to pages, these are nothing.
        for size in [0, u64::MAX, u64::MAX - PAGE + 2] {
            let outcome = allocation::allocate_size(&device, size);
            expect_errno(outcome, Errno::INVAL, &format!("{size:#x} bytes"))?;
        }
        let took = began.elapsed();
        anyhow::ensure!(took < Duration::from_secs(1), "it took {took:?}");
        Ok(())
    })
}

fn more_than_is_left() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    without_kills(|| {
        let step = available()? / 4;
        let held = (0..3)
            .map(|_| allocation::allocate_size(&device, step))
            .collect::<Result<Vec<_>, _>>()?;
        let outcome = allocation::allocate_size(&device, 2 * step);
        expect_errno(outcome, Errno::NOMEM, "more than is left")?;
        drop(held);
        drop(allocation::allocate_size(&device, 2 * step)?);
        Ok(())
    })
}

fn killed() -> anyhow::Result<()> {
    // So large that most of the time goes to zeroing it.
    let size = available()? / 4 * 3;
    let device = allocation::open(HEAP)?;
    let began = Instant::now();
    drop(allocation::allocate_size(&device, size)?);
    let whole = began.elapsed();
    let kills = debug::tries(8) as u32;
    for round in 0..kills {
        let mut child = Command::new("/proc/self/exe")
            .args([ALLOCATE_FOR_EVER, HEAP, &size.to_string()])
            .spawn()?;
        thread::sleep(whole * round * 2 / kills);
        child.kill()?;
        let status = child.wait()?;
        anyhow::ensure!(
            status.signal() == Some(9),
            "the child ended by itself: {status}"
        );
        nothing_left()?;
    }
    deadline::until(SETTLING, "the memory is back", || {
        Ok((available()? >= size).then_some(()))
    })
}

/// Fails unless no buffer is left.
fn nothing_left() -> anyhow::Result<()> {
    let used = debug::figure(HEAP, "used")?;
    anyhow::ensure!(used == 0, "{used} bytes are left in buffers");
    Ok(())
}

fn injected() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    // Two blocks of 1 MiB, one of 64 KiB, three pages.
    let size = 2 * MIB + (64 << 10) + 3 * PAGE;
    for (point, passes) in [("pages", 6), ("export", 1)] {
        for nth in 1..=passes {
            let armed = debug::arm(point, nth)?;
            let outcome = allocation::allocate_size(&device, size);
            expect_errno(outcome, Errno::NOMEM, &format!("{point} {nth}"))?;
            drop(armed);
            nothing_left()?;
        }
        drop(allocation::allocate_size(&device, size)?);
    }
    let importer = Importer::open()?;
    let buffer = allocation::allocate_size(&device, size)?;
    let armed = debug::arm("map", 1)?;
    let outcome = importer.map(&buffer, Direction::Both);
    expect_errno(outcome.map(drop), Errno::IO, "a mapping that fails")?;
    drop(armed);
    let entries = importer.map(&buffer, Direction::Both)?;
    anyhow::ensure!(entries > 0, "nothing is mapped");
    Ok(())
}

/// Refusals that [`every_allocation_fails`] wants to have seen, and rounds in which it may see them.
///
/// How many a round has is a matter of luck: 3 to 16 were seen. What is not a buffer's own, like the
/// memory of the kernel's detectors, is asked for more often, and differently each time, and
/// nothing is refused for want of it.
const REFUSALS: u32 = 20;
const MAX_ROUNDS: u32 = 20;

/// Has one allocation of the kernel after the other fail.
fn every_allocation_fails() -> anyhow::Result<()> {
    let any = AnyAllocation::new()?;
    let mut refused = 0;
    for _ in 0..MAX_ROUNDS {
        refused += each_allocation_fails_once(&any)?;
        if refused >= REFUSALS {
            return use_up(PIECES);
        }
    }
    anyhow::bail!("only {refused} refusals in {MAX_ROUNDS} rounds")
}

/// A size for which several blocks are needed.
const PIECES: u64 = MIB + (64 << 10) + 2 * PAGE;

/// Uses a buffer while the first allocation of the kernel fails, then while the second one does, until
/// there are not so many; answers how often the buffer, or its use, was refused.
fn each_allocation_fails_once(any: &AnyAllocation) -> anyhow::Result<u32> {
    let device = allocation::open(HEAP)?;
    let importer = Importer::open()?;
    let mut refused = 0;
    for nth in 1.. {
        let (outcome, failed) = any.with_nth(nth, || {
            let buffer = allocation::allocate_size(&device, PIECES)?;
            // What a device writes to is tracked by the kernel's DMA debugging, which would not
            // survive a failure of its own.
            importer.map(&buffer, Direction::ToDevice)?;
            let mapping = Mapping::new(&buffer, PIECES as usize);
            importer.release()?;
            mapping.map(drop)
        })?;
        importer.release()?;
        match outcome {
            Ok(()) => {}
            Err(Errno::NOMEM) => refused += 1,
            Err(errno) => anyhow::bail!("allocation {nth} fails: {errno}"),
        }
        nothing_left()?;
        if !failed {
            anyhow::ensure!(outcome.is_ok(), "{outcome:?} without a failure");
            break;
        }
    }
    Ok(refused)
}

/// What the pool holds, in bytes: zeroed, and to be zeroed.
fn pool() -> anyhow::Result<(u64, u64)> {
    Ok((debug::figure(HEAP, "clean")?, debug::figure(HEAP, "dirty")?))
}

/// Waits until the worker has no more to do.
fn at_rest() -> anyhow::Result<u64> {
    deadline::until(SETTLING, "the pool is cleared", || {
        let (clean, dirty) = pool()?;
        Ok((dirty < MANY_DIRTY).then_some(clean))
    })
}

fn cleared() -> anyhow::Result<()> {
    const SIZE: u64 = 32 * MIB;
    use_up(SIZE)?;
    let clean = at_rest()?;
    anyhow::ensure!(clean >= SIZE - MANY_DIRTY, "{clean} bytes are clean");
    // And they are handed out.
    let device = allocation::open(HEAP)?;
    let buffer = allocation::allocate_size(&device, SIZE)?;
    let (left, _) = pool()?;
    anyhow::ensure!(left < clean, "{left} bytes are clean, and {clean} were");
    drop(buffer);
    use_up(SIZE)
}

/// The share of the machine's memory that the pool keeps at most.
const POOL_PERCENT: u64 = 5;

fn bounded() -> anyhow::Result<()> {
    let limit = heap_info(HEAP)?.size / 100 * POOL_PERCENT;
    use_up(4 * limit)?;
    let (clean, dirty) = pool()?;
    anyhow::ensure!(
        clean + dirty <= limit,
        "{clean} + {dirty} bytes, over {limit}"
    );
    anyhow::ensure!(clean + dirty > limit / 2, "{clean} + {dirty} bytes only");
    at_rest().map(drop)
}

/// Has the kernel ask everybody for memory.
fn press() -> anyhow::Result<()> {
    const PATH: &str = "/proc/sys/vm/drop_caches";
    fs::write(PATH, "2\n").context(PATH)
}

fn given_back() -> anyhow::Result<()> {
    use_up(32 * MIB)?;
    at_rest()?;
    let free = number("/proc/meminfo", "MemFree")?;
    press()?;
    let held = pool()?;
    anyhow::ensure!(held == (0, 0), "the pool still has {held:?} bytes");
    let gained = number("/proc/meminfo", "MemFree")?.saturating_sub(free);
    anyhow::ensure!(gained >= 16 << 10, "only {gained} KiB more are free");
    // It does not take at once what it has just given.
    thread::sleep(Duration::from_millis(200));
    anyhow::ensure!(pool()? == (0, 0), "the pool was filled again");
    use_up(MIB)
}

/// How long data is looked for.
const SEARCH_SECONDS: u64 = 3;

fn no_stale_data() -> anyhow::Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let users = [0, 1].map(|first| {
            let stop = &stop;
            scope.spawn(move || {
                for round in first.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    use_up(SIZES[round % SIZES.len()])?;
                }
                anyhow::Ok(())
            })
        });
        let end = Instant::now() + Duration::from_secs(debug::tries(SEARCH_SECONDS));
        let mut pressed = Ok(());
        while Instant::now() < end && pressed.is_ok() {
            thread::sleep(Duration::from_millis(100));
            pressed = press();
        }
        stop.store(true, Ordering::Relaxed);
        for user in users {
            user.join().expect("a user does not panic")?;
        }
        pressed
    })
}

fn come_and_go() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    let buffer = allocation::allocate_size(&device, 2 * PAGE)?;
    expect_errno(
        module::unload(MODULE),
        Errno::AGAIN,
        "rmmod with a live buffer",
    )?;
    // A mapping keeps the buffer, and the buffer keeps the module.
    let mapping = Mapping::new(&buffer, 2 * PAGE as usize)?;
    drop(buffer);
    expect_errno(module::unload(MODULE), Errno::AGAIN, "rmmod with a mapping")?;
    drop(mapping);
    use_up(16 * MIB)?;
    let free = number("/proc/meminfo", "MemFree")?;
    deadline::until(SETTLING, "rmmod", || {
        module::unload(MODULE).map(Some).map_err(Into::into)
    })?;
    let gained = number("/proc/meminfo", "MemFree")?.saturating_sub(free);
    anyhow::ensure!(gained >= 12 << 10, "only {gained} KiB came back");
    let outcome = allocation::allocate_size(&device, PAGE);
    expect_errno(outcome, Errno::NODEV, "a heap without its module")?;
    anyhow::ensure!(!heap_info(HEAP)?.online, "the heap is online");
    module::load(MODULE)?;
    drop(allocation::allocate_size(&device, PAGE)?);
    deadline::until(SETTLING, "the pool is filled", || {
        Ok((debug::figure(HEAP, "clean")? >= 4 * MIB).then_some(()))
    })
}
