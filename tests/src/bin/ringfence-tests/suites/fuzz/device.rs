// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random ioctls.

use std::collections::HashSet;
use std::ffi::c_void;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ringfence::control::Control;
use ringfence::heap::HEAPS_PATH;
use ringfence_tests::guest::allocation::{self, Argument};
use rustix::io::Errno;
use rustix::mm::{mmap_anonymous, mprotect, munmap, MapFlags, MprotectFlags, ProtFlags};

use super::Chance;
use crate::suites::region::{self, VIDEO};
use crate::suites::settled;

const PAGE: usize = 4096;

/// What a call may be answered that makes no sense, or that there is no room for.
const REFUSALS: [Errno; 10] = [
    Errno::INVAL,
    Errno::FAULT,
    Errno::NOTTY,
    Errno::NOMEM,
    Errno::BADF,
    Errno::TOOBIG,
    Errno::NOENT,
    Errno::NODEV,
    Errno::PERM,
    Errno::ACCESS,
];

/// Sizes of the structures that the devices know, and what their magic numbers are.
const SIZES: [usize; 9] = [0, 4, 8, 16, 24, 32, 96, 128, 256];
const MAGICS: [u8; 3] = [b'H', b'b', ringfence::uapi::MAGIC];

/// The files that this process has open.
fn open_files() -> anyhow::Result<HashSet<i32>> {
    let mut files = HashSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Ok(fd) = entry?.file_name().to_string_lossy().parse() {
            files.insert(fd);
        }
    }
    // The directory that lists them is closed by now.
    files.retain(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    Ok(files)
}

/// Closes what the kernel has opened for this process since then.
fn close_new(before: &HashSet<i32>) -> anyhow::Result<usize> {
    let now = open_files()?;
    let new: Vec<_> = now.difference(before).collect();
    for fd in &new {
        // SAFETY: It was opened by the kernel for a call of this test, and nobody
        // else in this process knows it.
        drop(unsafe { OwnedFd::from_raw_fd(**fd) });
    }
    Ok(new.len())
}

/// Random structures of random sizes, under random numbers.
fn ioctls(files: &[File]) -> anyhow::Result<()> {
    let mut chance = Chance::new()?;
    let before = open_files()?;
    let (mut calls, mut taken) = (0, 0);
    while chance.goes_on() {
        let file = &files[chance.random.usize(0..files.len())];
        let size = match chance.random.u32(0..4) {
            0 => chance.random.usize(0..PAGE),
            1 => chance.one(&SIZES) + chance.random.usize(0..3),
            _ => chance.one(&SIZES),
        };
        let mut bytes = vec![0; size];
        chance.fill(&mut bytes);
        // Most structures are nearly right: zero where nothing is expected.
        if chance.random.bool() {
            let from = chance.random.usize(0..=size);
            bytes[from..].fill(0);
        }
        let magic = chance.one(&MAGICS);
        let number = match chance.random.u32(0..4) {
            0 => chance.random.u8(..),
            _ => chance.random.u8(0..4),
        };
        match allocation::ioctl_sized(file, magic, number, &mut bytes) {
            Ok(()) => taken += close_new(&before)?,
            Err(errno) if REFUSALS.contains(&errno) => {}
            Err(errno) => anyhow::bail!("{magic:#x}, {number}, {size} bytes: {errno}"),
        }
        calls += 1;
    }
    println!("{calls} calls, {taken} new files");
    let left = close_new(&before)?;
    anyhow::ensure!(left == 0, "{left} files are left by calls that failed");
    Ok(())
}

pub fn heaps() -> anyhow::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(HEAPS_PATH)? {
        files.push(File::open(entry?.path())?);
    }
    // A region that is fenced as a whole is opened a while after its last buffer.
    let before = Control::open()?.heaps()?;
    ioctls(&files)?;
    settled(&before)
}

pub fn control() -> anyhow::Result<()> {
    ioctls(&[File::open("/dev/ringfence")?])
}

pub fn buffer() -> anyhow::Result<()> {
    let (buffer, _) = region::allocate(VIDEO, 5 * PAGE as u64)?;
    ioctls(&[File::from(buffer.as_fd().try_clone_to_owned()?)])
}

/// Two pages, of which only the first can be accessed.
struct Edge(*mut c_void);

impl Edge {
    fn new() -> anyhow::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let edge = Self(unsafe {
            mmap_anonymous(ptr::null_mut(), 2 * PAGE, protection, MapFlags::PRIVATE)
        }?);
        // SAFETY: The second page holds nothing.
        unsafe { mprotect(edge.page(1), PAGE, MprotectFlags::empty()) }?;
        Ok(edge)
    }

    fn page(&self, index: usize) -> *mut c_void {
        self.0.cast::<u8>().wrapping_add(index * PAGE).cast()
    }

    /// Memory of which `inside` bytes can be accessed.
    fn argument(&self, bytes: &[u8], inside: usize) -> Argument {
        let start = self.page(1).cast::<u8>().wrapping_sub(inside);
        // SAFETY: The first page has at least that many bytes before its end.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, inside) };
        Argument(start.cast())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.0, 2 * PAGE) };
    }
}

/// Structures that end outside of the caller's memory, by every number of bytes.
pub fn edges() -> anyhow::Result<()> {
    let edge = Edge::new()?;
    let (buffer, _) = region::allocate(VIDEO, PAGE as u64)?;
    let heap = allocation::open(VIDEO)?;
    let control = File::open("/dev/ringfence")?;
    let mut request = [0; 24];
    request[..8].copy_from_slice(&(PAGE as u64).to_ne_bytes());
    request[12..16].copy_from_slice(&allocation::ordinary_flags().to_ne_bytes());
    let mut question = [0; 96];
    question[..4].copy_from_slice(&buffer.as_fd().as_raw_fd().to_ne_bytes());
    let cases: [(&str, &File, u8, u8, &[u8]); 3] = [
        ("ALLOC", &heap, b'H', 0, &request),
        (
            "BUFFER_INFO",
            &control,
            ringfence::uapi::MAGIC,
            0,
            &question,
        ),
        ("HEAP_INFO", &control, ringfence::uapi::MAGIC, 1, &[0; 128]),
    ];
    let before = open_files()?;
    for (what, file, magic, number, bytes) in cases {
        for inside in 0..bytes.len() {
            let argument = edge.argument(bytes, inside);
            // SAFETY: The kernel finds that it can't reach all of the argument.
            let outcome = unsafe { argument.ioctl(file, magic, number, bytes.len()) };
            anyhow::ensure!(
                outcome == Err(Errno::FAULT),
                "{what} with {inside} of {} bytes: {outcome:?}",
                bytes.len()
            );
        }
        let argument = edge.argument(bytes, bytes.len());
        // SAFETY: All of the argument is inside the first page.
        unsafe { argument.ioctl(file, magic, number, bytes.len()) }?;
        let opened = close_new(&before)?;
        anyhow::ensure!(opened == usize::from(what == "ALLOC"), "{opened} new files");
    }
    Ok(())
}

/// Another thread writes to the structure all the time.
pub fn races() -> anyhow::Result<()> {
    let mut chance = Chance::new()?;
    let before = open_files()?;
    let (buffer, _) = region::allocate(VIDEO, PAGE as u64)?;
    let heap = allocation::open(VIDEO)?;
    let control = File::open("/dev/ringfence")?;
    let kept = open_files()?;
    let words: [AtomicU64; 16] = Default::default();
    let stop = AtomicBool::new(false);
    let seed = chance.random.u64(..);
    let fd = buffer.as_fd().as_raw_fd() as u64;
    let outcome = thread::scope(|scope| -> anyhow::Result<()> {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            let good = [0, PAGE as u64, 3 * PAGE as u64, fd, 0x80002 << 32, 1 << 63];
            while !stop.load(Ordering::Relaxed) {
                let word = &words[random.usize(0..words.len())];
                let value = match random.u32(0..4) {
                    0 => random.u64(..),
                    _ => good[random.usize(0..good.len())],
                };
                word.store(value, Ordering::Relaxed);
            }
        });
        let mut attempt = || -> anyhow::Result<()> {
            while chance.goes_on() {
                let (file, magic, number, size) = chance.one(&[
                    (&heap, b'H', 0, 24),
                    (&control, ringfence::uapi::MAGIC, 0, 96),
                    (&control, ringfence::uapi::MAGIC, 1, 128),
                ]);
                let argument = Argument(words.as_ptr().cast_mut().cast());
                // SAFETY: The words have 128 bytes, which the kernel may change
                // like every thread may.
                match unsafe { argument.ioctl(file, magic, number, size) } {
                    Ok(()) => {}
                    Err(errno) if REFUSALS.contains(&errno) => {}
                    Err(errno) => anyhow::bail!("{magic:#x}, {number}: {errno}"),
                }
                // What was opened may have been written over before anybody saw it.
                close_new(&kept)?;
            }
            Ok(())
        };
        let outcome = attempt();
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    drop((buffer, heap, control));
    outcome?;
    let left = close_new(&before)?;
    anyhow::ensure!(left == 0, "{left} files are left");
    Ok(())
}
