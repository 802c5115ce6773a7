// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that has been in use: its memory is full of files, and some of it is
//! pinned.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::ptr;

use anyhow::Context;
use rustix::io::Errno;
use rustix::mm::{mmap_anonymous, munmap, MapFlags, ProtFlags};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, vmsplice, IoSliceRaw, PipeFlags, SpliceFlags};

const MIB: u64 = 1 << 20;

/// Bytes in a page.
const PAGE: usize = 4096;

/// A figure of /proc/meminfo, in bytes.
pub fn meminfo(name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = text
        .lines()
        .find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            value.split_whitespace().next()?.parse().ok()
        })
        .with_context(|| format!("/proc/meminfo has no {name}"))?;
    Ok(kib << 10)
}

/// Files in memory, until this is dropped.
#[derive(Debug)]
pub struct Files {
    /// Where they are: a tmpfs, whose pages the kernel can move, but not drop.
    folder: &'static str,
    first: u32,
    count: u32,
}

impl Files {
    /// Bytes of one file.
    const SIZE: u64 = 8 * MIB;

    /// Writes files until so many bytes of memory are left.
    pub fn fill(left: u64) -> anyhow::Result<Self> {
        let mut this = Self {
            folder: "/dev/shm/pressure",
            first: 0,
            count: 0,
        };
        // The mount's limit is half of the memory.
        let status = std::process::Command::new("mount")
            .args(["-o", "remount,size=100%", "/dev/shm"])
            .status()?;
        anyhow::ensure!(status.success(), "mount: {status}");
        fs::create_dir_all(this.folder)?;
        let bytes = vec![0x5a; usize::try_from(Self::SIZE)?];
        while meminfo("MemFree")? > left + Self::SIZE {
            let mut file = File::create(this.path(this.count))?;
            this.count += 1;
            file.write_all(&bytes)?;
        }
        anyhow::ensure!(this.count > 0, "there is no memory to fill");
        Ok(this)
    }

    /// Removes the files that were written first, until so many bytes are free again.
    ///
    /// The kernel gives out its CMA memory when it has little else, so that these are
    /// not in it.
    pub fn remove_first(&mut self, bytes: u64) -> anyhow::Result<()> {
        let end = (self.first + u32::try_from(bytes.div_ceil(Self::SIZE))?).min(self.count);
        for number in self.first..end {
            fs::remove_file(self.path(number))?;
        }
        self.first = end;
        Ok(())
    }

    fn path(&self, number: u32) -> String {
        format!("{}/{number}", self.folder)
    }

    /// Bytes of them.
    pub fn size(&self) -> u64 {
        u64::from(self.count - self.first) * Self::SIZE
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left of it shows in the figures of whoever measures after this.
        let _ = fs::remove_dir_all(self.folder);
    }
}

/// Pages all over the memory that the kernel can't move, until this is dropped: they
/// are on their way through pipes, as those of a network or a disk are for a moment.
#[derive(Debug)]
pub struct Pins {
    pipes: Vec<(OwnedFd, OwnedFd)>,
    count: usize,
}

impl Pins {
    /// Pages in a pipe.
    const ROOM: usize = 256;

    /// Takes `bytes` of memory, pins one page of every `stride` bytes of it, and gives
    /// the rest back.
    pub fn scatter(bytes: usize, stride: usize) -> anyhow::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let memory =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
        let mut this = Self {
            pipes: Vec::new(),
            count: 0,
        };
        for offset in (0..bytes).step_by(PAGE) {
            let page = memory.wrapping_byte_add(offset).cast::<u8>();
            // SAFETY: The page is inside the mapping, and nobody else knows it.
            unsafe { page.write_volatile(1) };
        }
        let pinned = (0..bytes)
            .step_by(stride)
            .try_for_each(|offset| this.pin(memory.wrapping_byte_add(offset).cast()));
        // SAFETY: The mapping is this function's own; the pipes keep the pages that they have.
        unsafe { munmap(memory, bytes) }?;
        pinned?;
        Ok(this)
    }

    fn pin(&mut self, page: *mut u8) -> anyhow::Result<()> {
        if self.count.is_multiple_of(Self::ROOM) {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setpipe_size(&writer, Self::ROOM * PAGE)?;
            self.pipes.push((reader, writer));
        }
        let (_, writer) = self.pipes.last().context("no pipe")?;
        // SAFETY: The page is mapped, and nobody writes to it any more.
        let bytes = unsafe { std::slice::from_raw_parts(page, PAGE) };
        let slice = [IoSliceRaw::from_slice(bytes)];
        // SAFETY: As above; the kernel takes a reference to the page.
        let moved = unsafe { vmsplice(writer, &slice, SpliceFlags::NONBLOCK) }?;
        if moved != PAGE {
            return Err(Errno::AGAIN.into());
        }
        self.count += 1;
        Ok(())
    }

    /// How many pages are pinned.
    pub fn count(&self) -> usize {
        self.count
    }
}
