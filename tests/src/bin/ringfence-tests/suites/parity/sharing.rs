// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in several hands: duplicates, other processes, other devices.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ringfence::buffer::Buffer;
use ringfence_tests::differences::Kind;
use ringfence_tests::guest::allocation::{self, allocate_size};
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::video::{Capture, Stream};
use ringfence_tests::guest::{child, dma_buf, socket};
use rustix::io::{dup, fcntl_dupfd_cloexec};

use super::{Notes, Subject};

const SIZE: usize = 3 * 4096;

pub fn look(subject: &Subject, notes: &mut Notes) -> anyhow::Result<()> {
    let heap = allocation::open(subject.name)?;
    duplicates(allocate_size(&heap, SIZE as u64)?, notes)?;
    passed_on(allocate_size(&heap, SIZE as u64)?, notes)?;
    forked(&allocate_size(&heap, SIZE as u64)?, notes)?;
    without_a_file(allocate_size(&heap, SIZE as u64)?, notes)?;

    // It does not say how long a piece it takes, which the debug kernel reports.
    if !Path::new("/sys/kernel/debug/dma-api").exists() {
        let device = Capture::open()?;
        let buffer = allocate_size(&heap, 8 << 20)?;
        notes.call(
            "a device that wants contiguous memory",
            device.queue(&buffer),
        );
    }
    if subject.kind == Kind::Cma {
        let stream = Stream::start(|size| allocate_size(&heap, size))?;
        let mut filmed = 0;
        for _ in 0..2 {
            stream.frame(|buffer, length| {
                filmed += usize::from(Mapping::new(buffer, length)?.others_than(0) > 0);
                Ok(())
            })?;
        }
        notes.note("frames of a stream", filmed);
    }
    Ok(())
}

/// What is written through one file, read through another.
fn seen_through(written: impl AsFd, read: impl AsFd, byte: u8) -> anyhow::Result<usize> {
    Mapping::new(written, SIZE)?.fill(byte);
    Ok(SIZE - Mapping::new(read, SIZE)?.others_than(byte))
}

fn duplicates(buffer: Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let (second, third) = (dup(&buffer)?, fcntl_dupfd_cloexec(&buffer, 100)?);
    notes.note(
        "written through one fd, seen through its dup",
        seen_through(&buffer, &second, 1)?,
    );
    notes.note("the other way round", seen_through(&third, &buffer, 2)?);
    drop(buffer);
    notes.note(
        "after the first is closed",
        seen_through(&second, &third, 3)?,
    );
    drop(second);
    notes.call(
        "sync through the last",
        dma_buf::sync(&third, dma_buf::SYNC_READ),
    );
    Ok(())
}

fn passed_on(buffer: Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let (here, there) = UnixStream::pair()?;
    notes.call("sent over a socket", socket::send(&here, &buffer));
    Mapping::new(&buffer, SIZE)?.fill(7);
    drop(buffer);
    let received = socket::receive(&there)?;
    notes.note("files that arrive", received.len());
    for fd in &received {
        let seen = SIZE - Mapping::new(fd, SIZE)?.others_than(7);
        notes.note("what was written before it was closed", seen);
    }
    Ok(())
}

fn forked(buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let mut mapping = Mapping::new(buffer, SIZE)?;
    mapping.fill(11);
    let status = child::run(|| {
        // Everything was mapped before; the child only looks and writes.
        let seen = mapping.others_than(11) == 0;
        mapping.fill(12);
        seen
    })?;
    notes.note("a child sees what was written", status);
    notes.note("what the child wrote", SIZE - mapping.others_than(12));
    Ok(())
}

fn without_a_file(buffer: Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let mut mapping = Mapping::new(&buffer, SIZE)?;
    drop(buffer);
    mapping.fill(21);
    notes.note(
        "a mapping outlives its file",
        SIZE - mapping.others_than(21),
    );
    Ok(())
}
