// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks by the calls that take the buffer's file descriptor.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use anyhow::Context;
use io_uring::{opcode, types, IoUring};
use ringfence_tests::guest::{dma_buf, expect_errno};
use rustix::fs::{fallocate, ftruncate, memfd_create, FallocateFlags, MemfdFlags};
use rustix::io::Errno;
use rustix::mm::{mmap_anonymous, mremap, munmap, MapFlags, MremapFlags, ProtFlags};
use rustix::pipe::{pipe, splice, SpliceFlags};

use super::prey::{attacked, Prey};

const PAGE: usize = 4096;

/// The buffer mapped in every way that the call knows.
pub fn mmap() -> anyhow::Result<()> {
    attacked(|prey| {
        let length = prey.length();
        let map = |length, offset, protection, flags| {
            dma_buf::map(&prey.buffer, length, offset, protection, flags)
        };
        let protections = [
            ProtFlags::empty(),
            ProtFlags::READ,
            ProtFlags::WRITE,
            ProtFlags::READ | ProtFlags::WRITE,
            ProtFlags::READ | ProtFlags::EXEC,
        ];
        let extras = [
            MapFlags::empty(),
            MapFlags::POPULATE,
            MapFlags::LOCKED,
            MapFlags::NORESERVE,
        ];
        for protection in protections {
            for kind in [
                MapFlags::SHARED,
                MapFlags::PRIVATE,
                MapFlags::SHARED_VALIDATE,
            ] {
                for extra in extras {
                    let what = format!("{protection:?}, {:?}", kind | extra);
                    let outcome = map(length, 0, protection, kind | extra);
                    expect_errno(outcome, Errno::PERM, &what)?;
                }
            }
        }
        let parts = [
            (PAGE, 0),
            (1, 0),
            (length - PAGE, PAGE as u64),
            (PAGE, (length - PAGE) as u64),
        ];
        for (part, offset) in parts {
            let what = format!("{part} bytes at {offset:#x}");
            let outcome = map(part, offset, ProtFlags::READ, MapFlags::SHARED);
            expect_errno(outcome, Errno::PERM, &what)?;
        }
        let beyond = [
            (length + PAGE, 0, Errno::INVAL),
            (length, PAGE as u64, Errno::INVAL),
            (PAGE, length as u64, Errno::INVAL),
            (PAGE, 1 << 40, Errno::INVAL),
            (PAGE, (1 << 62) - PAGE as u64, Errno::INVAL),
            (PAGE, (1 << 63) - PAGE as u64, Errno::INVAL),
            (0, 0, Errno::INVAL),
            (1 << 60, 0, Errno::NOMEM),
        ];
        for (part, offset, errno) in beyond {
            let what = format!("{part:#x} bytes at {offset:#x}");
            let outcome = map(part, offset, ProtFlags::READ, MapFlags::SHARED);
            expect_errno(outcome, errno, &what)?;
        }
        for (what, flags, errno) in [
            (
                "huge pages",
                MapFlags::SHARED | MapFlags::HUGETLB,
                Errno::INVAL,
            ),
            (
                "MAP_SYNC",
                MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
                Errno::OPNOTSUPP,
            ),
        ] {
            expect_errno(map(length, 0, ProtFlags::READ, flags), errno, what)?;
        }
        Ok(())
    })
}

/// Memory of this process, which is unmapped when this is dropped.
struct Pages(*mut c_void, usize);

impl Pages {
    fn new(size: usize) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: A new mapping at an address of the kernel's choice.
        let mapped =
            unsafe { mmap_anonymous(ptr::null_mut(), size, protection, MapFlags::PRIVATE) }?;
        Ok(Self(mapped, size))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: The addresses are this value's own, and nobody refers to them.
        let _ = unsafe { munmap(self.0, self.1) };
    }
}

/// The buffer put in the place of memory that is there already.
pub fn mmap_over_memory() -> anyhow::Result<()> {
    attacked(|prey| {
        let length = prey.length();
        let pages = Pages::new(length)?;
        for (flags, errno) in [
            (MapFlags::FIXED_NOREPLACE, Errno::EXIST),
            (MapFlags::FIXED, Errno::PERM),
        ] {
            // SAFETY: The place is `pages`, which holds nothing.
            let outcome = unsafe {
                rustix::mm::mmap(
                    pages.0,
                    length,
                    ProtFlags::READ,
                    MapFlags::SHARED | flags,
                    &prey.buffer,
                    0,
                )
            };
            expect_errno(outcome, errno, &format!("{flags:?}"))?;
        }
        // Memory of one's own does not become the buffer by growing or moving.
        let pages = Pages::new(PAGE)?;
        // SAFETY: The mapping is `pages`, which holds nothing, and goes on as what
        // the call answers.
        let grown = unsafe { mremap(pages.0, PAGE, length, MremapFlags::MAYMOVE) }?;
        std::mem::forget(pages);
        let grown = Pages(grown, length);
        // SAFETY: The mapping was just made, with `length` readable bytes.
        let bytes = unsafe { std::slice::from_raw_parts(grown.0.cast::<u8>(), length) };
        anyhow::ensure!(bytes.iter().all(|byte| *byte == 0), "not empty");
        let path = format!("/proc/self/fd/{}", prey.buffer.as_fd().as_raw_fd());
        for write in [false, true] {
            let outcome = OpenOptions::new().read(true).write(write).open(&path);
            let outcome =
                outcome.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            expect_errno(outcome, Errno::NXIO, "opened again by its path")?;
        }
        no_mapping_of("self")
    })
}

/// Fails if a process has a dma-buf mapped.
pub fn no_mapping_of(process: &str) -> anyhow::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    anyhow::ensure!(!maps.contains("dmabuf"), "{maps}");
    Ok(())
}

/// The buffer read and written by every call for that.
pub fn read_and_write() -> anyhow::Result<()> {
    attacked(|prey| {
        let fd = prey.buffer.as_fd();
        let mut room = [0x5a_u8; 64];
        let bytes = [0xa5_u8; 64];
        // There is nothing to read or write, and no position to do it at.
        let (invalid, no_seek) = (Errno::INVAL, Errno::SPIPE);
        expect_errno(rustix::io::read(fd, &mut room), invalid, "read")?;
        expect_errno(rustix::io::write(fd, &bytes), invalid, "write")?;
        for offset in [0, 64, PAGE as u64] {
            expect_errno(rustix::io::pread(fd, &mut room, offset), no_seek, "pread")?;
            expect_errno(rustix::io::pwrite(fd, &bytes, offset), no_seek, "pwrite")?;
            let into = &mut [IoSliceMut::new(&mut room)];
            expect_errno(rustix::io::preadv(fd, into, offset), no_seek, "preadv")?;
            let from = &[IoSlice::new(&bytes)];
            expect_errno(rustix::io::pwritev(fd, from, offset), no_seek, "pwritev")?;
        }
        let into = &mut [IoSliceMut::new(&mut room)];
        expect_errno(rustix::io::readv(fd, into), invalid, "readv")?;
        let from = &[IoSlice::new(&bytes)];
        expect_errno(rustix::io::writev(fd, from), invalid, "writev")?;
        anyhow::ensure!(room == [0x5a; 64], "something was read");
        for size in [0, PAGE as u64, 1 << 40] {
            expect_errno(ftruncate(fd, size), invalid, "ftruncate")?;
            let outcome = fallocate(fd, FallocateFlags::empty(), 0, size.max(1));
            expect_errno(outcome, Errno::NODEV, "fallocate")?;
        }
        Ok(())
    })
}

/// A file with known content.
fn file() -> anyhow::Result<File> {
    let file = File::from(memfd_create("bait", MemfdFlags::CLOEXEC)?);
    rustix::io::pwrite(&file, &[0x77; PAGE], 0)?;
    Ok(file)
}

/// The buffer as one end of calls that move bytes inside the kernel.
pub fn splice_and_copy() -> anyhow::Result<()> {
    attacked(|prey| {
        let fd = prey.buffer.as_fd();
        let (reader, writer): (OwnedFd, OwnedFd) = pipe()?;
        let moves = SpliceFlags::NONBLOCK;
        let out = splice(fd, None, &writer, None, PAGE, moves);
        expect_errno(out, Errno::INVAL, "splice from the buffer")?;
        rustix::io::write(&writer, &[1; 16])?;
        let into = splice(&reader, None, fd, None, 16, moves);
        expect_errno(into, Errno::INVAL, "splice into the buffer")?;
        let file = file()?;
        let invalid = Errno::INVAL;
        let outcome = rustix::fs::sendfile(&writer, fd, None, PAGE);
        expect_errno(outcome, invalid, "sendfile to a pipe")?;
        let outcome = rustix::fs::sendfile(&file, fd, None, PAGE);
        expect_errno(outcome, invalid, "sendfile to a file")?;
        let outcome = rustix::fs::sendfile(&file, fd, Some(&mut 0), PAGE);
        expect_errno(outcome, Errno::SPIPE, "sendfile from a position")?;
        let outcome = rustix::fs::sendfile(fd, &file, Some(&mut 0), PAGE);
        expect_errno(outcome, invalid, "sendfile from a file")?;
        let copy = rustix::fs::copy_file_range(fd, Some(&mut 0), &file, Some(&mut 0), PAGE);
        expect_errno(copy, invalid, "copy_file_range from the buffer")?;
        let copy = rustix::fs::copy_file_range(&file, Some(&mut 0), fd, Some(&mut 0), PAGE);
        expect_errno(copy, invalid, "copy_file_range into the buffer")?;
        let mut seen = [0; PAGE];
        rustix::io::pread(&file, &mut seen, 0)?;
        anyhow::ensure!(seen == [0x77; PAGE], "the file has changed");
        Ok(())
    })
}

/// What one request to a ring is answered.
fn submit(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> anyhow::Result<i32> {
    // SAFETY: Whatever the request refers to outlives this function, which waits
    // for the request's end.
    unsafe { ring.submission().push(entry) }?;
    ring.submit_and_wait(1)?;
    let answer = ring.completion().next().context("no answer")?;
    Ok(answer.result())
}

/// The buffer in the hands of io_uring.
pub fn io_uring() -> anyhow::Result<()> {
    attacked(|prey: &mut Prey| {
        let mut ring = IoUring::new(4)?;
        let raw = prey.buffer.as_fd().as_raw_fd();
        let mut room = [0x5a_u8; 64];
        let length = room.len() as u32;
        let (reader, writer): (OwnedFd, OwnedFd) = pipe()?;
        ring.submitter().register_files(&[raw])?;
        let mut expect = |what: &str, entry: io_uring::squeue::Entry| -> anyhow::Result<()> {
            let answer = submit(&mut ring, &entry)?;
            let expected = -Errno::INVAL.raw_os_error();
            anyhow::ensure!(answer == expected, "{what}: {answer}, not {expected}");
            Ok(())
        };
        let fd = types::Fd(raw);
        let bytes = room.as_mut_ptr();
        expect("READ", opcode::Read::new(fd, bytes, length).build())?;
        expect("WRITE", opcode::Write::new(fd, bytes, length).build())?;
        let fixed = types::Fixed(0);
        expect(
            "READ of a registered file",
            opcode::Read::new(fixed, bytes, length).build(),
        )?;
        let pipe = types::Fd(writer.as_raw_fd());
        let splice = opcode::Splice::new(fd, 0, pipe, -1, length);
        expect("SPLICE", splice.build())?;
        drop((reader, writer));
        ring.submitter().unregister_files()?;
        anyhow::ensure!(room == [0x5a; 64], "something was read");
        Ok(())
    })
}

/// `DMA_BUF_IOCTL_SYNC`, in all its forms.
pub fn cpu_access() -> anyhow::Result<()> {
    use dma_buf::{sync, SYNC_READ, SYNC_WRITE};
    attacked(|prey| {
        for flags in [SYNC_READ, SYNC_WRITE, SYNC_READ | SYNC_WRITE] {
            expect_errno(sync(&prey.buffer, flags), Errno::ACCESS, "SYNC")?;
        }
        Ok(())
    })
}
