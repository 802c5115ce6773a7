// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer as a file: what it says of itself, and which calls it knows.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use ringfence::buffer::Buffer;
use ringfence_tests::guest::allocation::{self, allocate_size, ioctl_sized};
use ringfence_tests::guest::{coherence, dma_buf};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{
    fallocate, fcntl_add_seals, fcntl_setfl, flock, fstat, fsync, ftruncate, seek, FallocateFlags,
    FlockOperation, OFlags, SealFlags, SeekFrom,
};
use rustix::io::{pread, pwrite, read, write};

use super::{Notes, Subject};

const SIZE: u64 = 5 * 4096;

pub fn look(subject: &Subject, notes: &mut Notes) -> anyhow::Result<()> {
    let heap = allocation::open(subject.name)?;
    let buffer = allocate_size(&heap, SIZE)?;
    seeks(&buffer, notes);
    calls(&buffer, notes);
    says(subject, &buffer, notes)?;
    syncs(&buffer, notes)?;
    let device = coherence::map(&buffer)?;
    syncs(&buffer, notes)?;
    drop(device);
    ioctls(&buffer, notes);
    imports(&buffer, notes)?;
    Ok(())
}

fn seeks(buffer: &Buffer, notes: &mut Notes) {
    for (what, place) in [
        ("the end", SeekFrom::End(0)),
        ("the start", SeekFrom::Start(0)),
        ("a byte on", SeekFrom::Start(1)),
        ("behind the end", SeekFrom::End(1)),
        ("before the end", SeekFrom::End(-1)),
        ("here", SeekFrom::Current(0)),
        ("a byte from here", SeekFrom::Current(1)),
        ("data", SeekFrom::Data(0)),
        ("a hole", SeekFrom::Hole(0)),
    ] {
        let outcome = seek(buffer, place);
        if let Some(at) = notes.call(format!("lseek to {what}"), outcome) {
            notes.note(format!("lseek to {what}: where"), at);
        }
    }
}

fn calls(buffer: &Buffer, notes: &mut Notes) {
    let mut bytes = [0; 16];
    notes.call("read", read(buffer, &mut bytes));
    notes.call("pread", pread(buffer, &mut bytes, 0));
    notes.call("write", write(buffer, &bytes));
    notes.call("pwrite", pwrite(buffer, &bytes, 0));
    notes.call("ftruncate", ftruncate(buffer, 0));
    notes.call("ftruncate, larger", ftruncate(buffer, SIZE * 2));
    notes.call(
        "fallocate",
        fallocate(buffer, FallocateFlags::empty(), 0, SIZE),
    );
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    notes.call("a hole", fallocate(buffer, hole, 0, 4096));
    notes.call("fsync", fsync(buffer));
    notes.call("flock", flock(buffer, FlockOperation::LockExclusive));
    notes.call("flock, undone", flock(buffer, FlockOperation::Unlock));
    notes.call("seals", fcntl_add_seals(buffer, SealFlags::WRITE));
    notes.call("fcntl: not blocking", fcntl_setfl(buffer, OFlags::NONBLOCK));
    notes.call("fcntl: direct", fcntl_setfl(buffer, OFlags::DIRECT));
    notes.call("fcntl: nothing", fcntl_setfl(buffer, OFlags::empty()));
    for (what, events) in [
        ("in", PollFlags::IN),
        ("out", PollFlags::OUT),
        ("both", PollFlags::IN | PollFlags::OUT),
    ] {
        let mut fds = [PollFd::new(buffer, events)];
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        notes.call(format!("poll {what}"), poll(&mut fds, Some(&none)));
        notes.note(format!("poll {what}: events"), fds[0].revents().bits());
    }
}

fn says(subject: &Subject, buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let fd = buffer.as_fd().as_raw_fd();
    let stat = fstat(buffer)?;
    notes.note("stat: mode", stat.st_mode);
    notes.note("stat: size", stat.st_size);
    notes.note("stat: links", stat.st_nlink);
    let link = fs::read_link(format!("/proc/self/fd/{fd}"))?;
    notes.note("the link in /proc", link.display());
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    for line in text.lines().filter(|line| !line.starts_with("ino:")) {
        let line = line.replace(subject.name, "NAME");
        let (key, value) = line.split_once(':').unwrap_or((&line, ""));
        notes.note(format!("fdinfo: {key}"), value.trim());
    }
    Ok(())
}

fn syncs(buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    for flags in (0..32).chain([1 << 31, 1 << 32, 1 << 63, u64::MAX]) {
        notes.call(format!("sync {flags:#x}"), dma_buf::sync(buffer, flags));
    }
    Ok(())
}

fn ioctls(buffer: &Buffer, notes: &mut Notes) {
    let file = match buffer.as_fd().try_clone_to_owned() {
        Ok(fd) => fs::File::from(fd),
        Err(_) => return,
    };
    for magic in [b'b', b'H', 0xb6] {
        for number in 0..8 {
            for length in [0, 4, 8, 16, 64] {
                let mut bytes = vec![0; length];
                let outcome = ioctl_sized(&file, magic, number, &mut bytes);
                notes.call(format!("ioctl {magic:#x} {number} of {length}"), outcome);
            }
        }
    }
}

fn imports(buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let importer = dma_buf::Importer::open()?;
    for round in 0..3 {
        if let Some(imported) = notes.call(format!("import {round}"), importer.import(buffer)) {
            notes.call(format!("import {round}: close"), importer.close(imported));
        }
    }
    for round in 0..2 {
        notes.note(
            format!("a device that is not coherent {round}"),
            coherence::map(buffer).is_ok(),
        );
    }
    Ok(())
}
