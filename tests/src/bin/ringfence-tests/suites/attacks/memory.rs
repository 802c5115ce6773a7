// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks on the buffer's physical memory.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Context;
use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;
use ringfence_tests::guest::memory::{
    self, expect_killed, expect_zero, is_refusal, Outcome, Spinner, PAGE,
};
use ringfence_tests::guest::{allocation, debug, expect_errno, kcore};
use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use rustix::pipe::pipe;

use super::prey::{attacked, Prey};
use crate::suites::region::{self, VIDEO};

/// How long a reader may take to die.
const SOON: Duration = Duration::from_secs(30);

fn dev_mem(write: bool) -> anyhow::Result<File> {
    let file = OpenOptions::new().read(true).write(write).open("/dev/mem");
    file.context("/dev/mem")
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Root maps the pages; the page beside them shows that the way works.
pub fn dev_mem_mapping() -> anyhow::Result<()> {
    attacked(|prey| {
        for index in 0..prey.range.size / PAGE {
            // Every page would take a while on a slow machine.
            if index % 7 == 0 || index == prey.range.size / PAGE - 1 {
                expect_killed(prey.range.page(index), "a page of the buffer")?;
            }
        }
        let written = memory::fill(prey.range.page(1))?;
        anyhow::ensure!(is_refusal(written), "a writer: {written:?}");
        let beside = memory::read(region::free_neighbour(VIDEO, prey.range)?)?;
        anyhow::ensure!(matches!(beside, Outcome::Read { .. }), "{beside:?}");
        Ok(())
    })
}

/// Root reads and writes the device instead of mapping it: Linux serves that
/// from its own mapping, and has none of a carveout.
pub fn dev_mem_calls() -> anyhow::Result<()> {
    attacked(|prey| {
        let memory = dev_mem(true)?;
        let mut room = [0; 64];
        for at in [prey.range.start, prey.range.end() - 64] {
            let read = memory.read_at(&mut room, at).map_err(errno_of);
            expect_errno(read, Errno::FAULT, "read of /dev/mem")?;
            let written = memory.write_at(&room, at).map_err(errno_of);
            expect_errno(written, Errno::FAULT, "write to /dev/mem")?;
        }
        Ok(())
    })
}

/// A page of physical memory in this process, untouched.
pub struct Mapped(*mut std::ffi::c_void);

impl Mapped {
    /// Maps it.
    pub fn new(physical: u64) -> anyhow::Result<Self> {
        let memory = dev_mem(false)?;
        // SAFETY: A new mapping at an address of the kernel's choice, which nobody
        // in this process touches.
        let mapped = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE as usize,
                ProtFlags::READ,
                MapFlags::SHARED,
                &memory,
                physical,
            )
        };
        Ok(Self(mapped?))
    }

    /// Where it is in this process.
    pub fn address(&self) -> u64 {
        self.0 as u64
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.0, PAGE as usize) };
    }
}

/// The kernel is asked to take hold of pages that root has mapped.
pub fn borrowed_pages() -> anyhow::Result<()> {
    attacked(|prey| {
        let mapped = Mapped::new(prey.range.start)?;
        let (_reader, writer) = pipe()?;
        let pages = libc::iovec {
            iov_base: mapped.0,
            iov_len: 64,
        };
        // SAFETY: The kernel reads one `iovec`. The memory that it names is mapped
        // for longer than the call, and read by nobody.
        let moved = unsafe { libc::vmsplice(writer.as_raw_fd(), &pages, 1, 0) };
        let outcome = match moved {
            -1 => Err(errno_of(io::Error::last_os_error())),
            moved => Ok(moved),
        };
        expect_errno(outcome, Errno::FAULT, "vmsplice")?;
        let mut room = [0; 64];
        let remote = RemoteIoVec {
            base: mapped.address() as usize,
            len: 64,
        };
        let outcome = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut room)], &[remote]);
        let outcome = outcome.map_err(|errno| Errno::from_raw_os_error(errno as i32));
        expect_errno(outcome, Errno::FAULT, "process_vm_readv")
    })
}

/// The kernel's own view of its memory has no carveout in it.
pub fn proc_kcore() -> anyhow::Result<()> {
    attacked(|prey| {
        const PATH: &str = "/proc/kcore";
        let core = File::open(PATH).context(PATH)?;
        let segments = kcore::segments(&core)?;
        let ram: Vec<_> = segments
            .iter()
            .filter(|segment| segment.physical != u64::MAX)
            .collect();
        let first = ram.first().context("no memory in /proc/kcore")?;
        let holds = |segment: &kcore::Segment| {
            segment.physical < prey.range.end()
                && prey.range.start < segment.physical + segment.size
        };
        anyhow::ensure!(!ram.iter().any(|segment| holds(segment)), "{ram:x?}");
        // Where it would be if the linear mapping had it.
        let distance = prey.range.start.wrapping_sub(first.physical);
        let mut room = [0x5a; 4096];
        let at = first.offset.wrapping_add(distance);
        let read = core.read_at(&mut room, at)?;
        anyhow::ensure!(
            room[..read].iter().all(|byte| *byte == 0) && room[read..].iter().all(|b| *b == 0x5a),
            "/proc/kcore shows something"
        );
        // The way works: the kernel's own memory can be read like that.
        let read = core.read_at(&mut room, first.offset)?;
        anyhow::ensure!(read == room.len(), "{read} bytes of the kernel's memory");
        Ok(())
    })
}

/// One CPU reads without pause, through a mapping it has made while the page was
/// free, when another CPU has it protected.
pub fn reader_beside_protect() -> anyhow::Result<()> {
    const ROUNDS: usize = 3;
    attacked(|_| {
        for _ in 0..ROUNDS {
            // Where the next buffer of this size will be.
            let (buffer, range) = region::allocate(VIDEO, PAGE)?;
            drop(buffer);
            let reader = Spinner::start(range)?;
            let (buffer, again) = region::allocate(VIDEO, PAGE)?;
            anyhow::ensure!(again == range, "{again:x?}, not {range:x?}");
            let end = reader.end(SOON)?;
            anyhow::ensure!(is_refusal(end), "the reader reads on: {end:?}");
            drop(buffer);
        }
        Ok(())
    })
}

/// Readers wait for the moment in which a page full of content opens.
pub fn reader_beside_release() -> anyhow::Result<()> {
    const ROUNDS: usize = 3;
    for _ in 0..ROUNDS {
        let prey = Prey::new()?;
        let range = prey.range;
        let reader = std::thread::spawn(move || {
            // One after the other is killed, until one lives: what does it see?
            loop {
                match memory::read(range.last_page()) {
                    Ok(outcome) if is_refusal(outcome) => {}
                    other => return other,
                }
            }
        });
        drop(prey);
        let seen = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        anyhow::ensure!(seen == Outcome::Read { nonzero: 0 }, "{seen:?}");
    }
    Ok(())
}

/// The next owner of the memory looks for what it held, in the normal world and
/// in the secure one.
pub fn release_and_allocate() -> anyhow::Result<()> {
    let prey = Prey::new()?;
    let (range, size) = (prey.range, prey.range.size);
    prey.release()?;
    let (buffer, again) = region::allocate(VIDEO, size)?;
    anyhow::ensure!(again == range, "{again:x?}, not {range:x?}");
    let handle = crate::suites::protect::handle(&buffer)?;
    let mut ta = ringfence_tests::guest::ta::Ta::open()?;
    crate::suites::fixture::expect_zeros(&mut ta, handle, size)?;
    drop(buffer);
    expect_zero(range, "after two owners")
}

/// Two threads allocate and release, and a third looks at every range that is
/// said to be protected: none may be open.
pub fn ranges_beside_allocation() -> anyhow::Result<()> {
    const ROUNDS: usize = 20;
    attacked(|prey| {
        let worker = std::thread::spawn(move || -> anyhow::Result<()> {
            let heap = allocation::open(VIDEO)?;
            for round in 0..ROUNDS as u64 {
                drop(allocation::allocate_size(&heap, (round % 3 + 1) * PAGE)?);
            }
            Ok(())
        });
        let mut seen = 0;
        while !worker.is_finished() {
            for line in debug::ranges(VIDEO)? {
                if line.range == prey.range {
                    seen += 1;
                    expect_killed(line.range.page(seen % 60), "the buffer meanwhile")?;
                }
            }
        }
        anyhow::ensure!(seen > 0, "the live buffer was never shown");
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("the allocating thread panicked"))?
    })
}
