// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks on a process that holds the buffer.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno as NixErrno;
use nix::sys::ptrace;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;
use ringfence::buffer::Buffer;
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::{allocation, deadline, debug, dma_buf, expect_errno, heap_info};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::descriptor::no_mapping_of;
use super::prey::attacked;
use crate::suites::command::Holder;
use crate::suites::region::VIDEO;

/// Bytes of the holder's buffer.
const SIZE: u64 = 1 << 20;

fn pid(holder: &Holder) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(holder.pid.try_into()?))
}

/// The file descriptor is there for the taking, by root; it opens nothing.
pub fn stolen_descriptor() -> anyhow::Result<()> {
    attacked(|_| {
        let holder = Holder::allocate(VIDEO, SIZE)?;
        let range = debug::ranges(VIDEO)?.pop().context("no range")?.range;
        // pidfd_getfd()
        let stolen: Buffer = holder.buffer()?;
        let outcome = dma_buf::map(&stolen, SIZE as usize, 0, ProtFlags::READ, MapFlags::SHARED);
        expect_errno(outcome, Errno::PERM, "mmap of a stolen descriptor")?;
        let mut room = [0; 16];
        let outcome = rustix::io::read(stolen.as_fd(), &mut room);
        expect_errno(outcome, Errno::INVAL, "read of a stolen descriptor")?;
        let outcome = File::open(&holder.path)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        expect_errno(outcome, Errno::NXIO, "opened by its path in /proc")?;
        holder.kill()?;
        expect_killed(range.page(0), "while the thief has it")?;
        drop(stolen);
        deadline::until(Duration::from_secs(60), "release", || {
            Ok((debug::ranges(VIDEO)?.len() == 1).then_some(()))
        })?;
        expect_zero(range, "after release")
    })
}

/// The holder's memory is open to root, and the buffer is not in it.
pub fn holders_memory() -> anyhow::Result<()> {
    attacked(|_| {
        let holder = Holder::allocate(VIDEO, SIZE)?;
        let pid = pid(&holder)?;
        let range = debug::ranges(VIDEO)?.pop().context("no range")?.range;
        no_mapping_of(&holder.pid.to_string())?;
        let mut room = [0; 64];
        let mut read = |base: u64| {
            let remote = RemoteIoVec {
                base: base as usize,
                len: 64,
            };
            process_vm_readv(pid, &mut [IoSliceMut::new(&mut room)], &[remote])
        };
        let outcome = read(range.start);
        anyhow::ensure!(outcome == Err(NixErrno::EFAULT), "{outcome:?}");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let first = maps.split('-').next().context("no mapping")?;
        let outcome = read(u64::from_str_radix(first, 16)?);
        anyhow::ensure!(outcome == Ok(64), "the way does not work: {outcome:?}");
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let outcome = memory.read_at(&mut [0; 64], range.start);
        let outcome = outcome.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        expect_errno(outcome, Errno::IO, "/proc/PID/mem")?;
        holder.end()
    })
}

/// `svc #0`, the instruction of a system call.
const SVC: [u8; 4] = 0xd400_0001_u32.to_le_bytes();

/// Where a process has an instruction for system calls: in its C library.
fn system_call_instruction(pid: Pid) -> anyhow::Result<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for line in maps.lines().filter(|line| line.contains(" r-xp ")) {
        let (start, rest) = line.split_once('-').context("no range")?;
        let end = rest.split(' ').next().context("no range")?;
        let start = u64::from_str_radix(start, 16)?;
        let mut code = vec![0; (u64::from_str_radix(end, 16)? - start) as usize];
        if memory.read_exact_at(&mut code, start).is_err() {
            continue;
        }
        let found = code.chunks_exact(4).position(|word| word == SVC);
        if let Some(index) = found {
            return Ok(start + 4 * index as u64);
        }
    }
    anyhow::bail!("{pid} makes no system calls")
}

/// A debugger makes the holder itself do what it would never do: map its buffer.
pub fn debugged_holder() -> anyhow::Result<()> {
    attacked(|_| {
        let holder = Holder::allocate(VIDEO, SIZE)?;
        let pid = pid(&holder)?;
        let fd: u64 = holder
            .path
            .rsplit('/')
            .next()
            .context("no descriptor")?
            .parse()?;
        ptrace::attach(pid)?;
        waitpid(pid, None)?;
        let saved = ptrace::getregs(pid)?;
        let svc = system_call_instruction(pid)?;
        let call = |number: i64, arguments: [u64; 6]| -> anyhow::Result<i64> {
            let mut registers = saved;
            registers.pc = svc;
            registers.regs[8] = number as u64;
            registers.regs[..6].copy_from_slice(&arguments);
            ptrace::setregs(pid, registers)?;
            ptrace::step(pid, None)?;
            match waitpid(pid, None)? {
                WaitStatus::Stopped(..) => Ok(ptrace::getregs(pid)?.regs[0] as i64),
                other => anyhow::bail!("the holder: {other:?}"),
            }
        };
        // The way works.
        let answer = call(libc::SYS_getpid, [0; 6])?;
        anyhow::ensure!(answer == i64::from(pid.as_raw()), "getpid says {answer}");
        for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
            let protection = libc::PROT_READ as u64;
            let arguments = [0, SIZE, protection, flags as u64, fd, 0];
            let answer = call(libc::SYS_mmap, arguments)?;
            let expected = -i64::from(libc::EPERM);
            anyhow::ensure!(answer == expected, "mmap by the holder says {answer}");
        }
        let answer = call(libc::SYS_read, [fd, saved.sp, 16, 0, 0, 0])?;
        let expected = -i64::from(libc::EINVAL);
        anyhow::ensure!(answer == expected, "read by the holder says {answer}");
        ptrace::setregs(pid, saved)?;
        ptrace::detach(pid, None)?;
        holder.end()
    })
}

/// Every process that has something to do with protected memory is killed, at
/// whatever it is doing.
pub fn killed_holders() -> anyhow::Result<()> {
    const ROUNDS: u64 = 6;
    let before = heap_info(VIDEO)?;
    attacked(|_| {
        let with_prey = heap_info(VIDEO)?;
        let mut random = fastrand::Rng::with_seed(4);
        for round in 0..ROUNDS {
            let mut workers = Vec::new();
            for _ in 0..2 {
                workers.push(super::super::soak::Worker::start(round, VIDEO)?);
            }
            std::thread::sleep(Duration::from_millis(random.u64(5..120)));
            for worker in workers {
                worker.kill()?;
            }
        }
        // The parent may hear of a death before the last file is closed.
        deadline::until(Duration::from_secs(60), "release", || {
            let now = heap_info(VIDEO)?;
            anyhow::ensure!(now == with_prey, "{now:?}, not {with_prey:?}");
            Ok(Some(()))
        })?;
        let heap = allocation::open(VIDEO)?;
        drop(allocation::allocate_size(&heap, with_prey.largest_free)?);
        Ok(())
    })?;
    let after = heap_info(VIDEO)?;
    anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    Ok(())
}
