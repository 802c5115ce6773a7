// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the allocation ioctl takes and refuses.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::Path;

use ringfence::heap::HEAPS_PATH;
use ringfence_tests::differences::Kind;
use ringfence_tests::guest::allocation::{
    allocate, allocate_size, ioctl_null, ioctl_sized, ordinary_flags, AllocationData, ReadOnlyPage,
    ALLOC,
};
use ringfence_tests::guest::dma_buf;
use ringfence_tests::guest::mapping::Mapping;
use rustix::fs::fcntl_getfl;
use rustix::io::fcntl_getfd;
use rustix::mm::{MapFlags, ProtFlags};

use super::{Notes, Subject};

const PAGE: u64 = 4096;

pub fn look(subject: &Subject, notes: &mut Notes) -> anyhow::Result<()> {
    let path = Path::new(HEAPS_PATH).join(subject.name);
    let heap = File::open(&path)?;
    sizes(subject, &heap, notes)?;
    flags(&heap, notes)?;
    structures(&heap, notes)?;
    devices(&path, notes)?;
    Ok(())
}

fn sizes(subject: &Subject, heap: &File, notes: &mut Notes) -> anyhow::Result<()> {
    for size in [
        0,
        1,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        16 << 10,
        (64 << 10) + 1,
        1 << 20,
        2 << 20,
        (8 << 20) + 5,
        32 << 20,
        // Rounded up to whole pages these are 0.
        u64::MAX,
        u64::MAX - PAGE + 2,
    ] {
        let what = format!("{size:#x} bytes");
        if let Some(buffer) = notes.call(&what, allocate_size(heap, size)) {
            let mut file = File::from(rustix::io::dup(&buffer)?);
            let length = file.seek(SeekFrom::End(0))?;
            notes.note(format!("{what}: the size"), length);
            let mapping = Mapping::new(&buffer, length as usize)?;
            notes.note(
                format!("{what}: bytes that are not 0"),
                mapping.others_than(0),
            );
        }
    }
    for size in [u64::MAX - PAGE + 1, 1 << 63, 1 << 45] {
        let what = format!("{size:#x} bytes");
        if subject.kind == Kind::System && subject.upstream {
            notes.note(
                what,
                "not tried: the kernel would kill one process after the other",
            );
        } else {
            notes.call(what, allocate_size(heap, size));
        }
    }
    Ok(())
}

fn flags(heap: &File, notes: &mut Notes) -> anyhow::Result<()> {
    let good = AllocationData {
        len: PAGE,
        fd: 0,
        fd_flags: ordinary_flags(),
        heap_flags: 0,
    };
    let mut all: Vec<u32> = (0..32).map(|bit| 1 << bit).collect();
    all.extend([0, 3, 0o2000000, 0o2000001, 0o2000002, 0o2000003, u32::MAX]);
    for fd_flags in all {
        let what = format!("fd flags {fd_flags:#o}");
        if let Some(buffer) = notes.call(&what, allocate(heap, AllocationData { fd_flags, ..good }))
        {
            notes.note(format!("{what}: the file's"), fcntl_getfl(&buffer)?.bits());
            notes.note(format!("{what}: the fd's"), fcntl_getfd(&buffer)?.bits());
        }
    }
    for bit in 0..64 {
        let heap_flags = 1 << bit;
        let outcome = allocate(heap, AllocationData { heap_flags, ..good });
        notes.call(format!("heap flags {heap_flags:#x}"), outcome);
    }
    for fd in [1, u32::MAX] {
        let outcome = allocate(heap, AllocationData { fd, ..good });
        notes.call(format!("fd {fd} in the question"), outcome);
    }
    Ok(())
}

fn structures(heap: &File, notes: &mut Notes) -> anyhow::Result<()> {
    for length in [0, 4, 8, 12, 16, 20, 24, 32, 128, 129, 8192] {
        for tail in [0, 0xff] {
            let mut bytes = vec![0; length];
            let known = length.min(16);
            let mut head = [0; 16];
            head[..8].copy_from_slice(&PAGE.to_ne_bytes());
            head[12..].copy_from_slice(&ordinary_flags().to_ne_bytes());
            bytes[..known].copy_from_slice(&head[..known]);
            if length > 24 {
                bytes[24..].fill(tail);
            }
            let next = next_fd()?;
            let outcome = ioctl_sized(heap, b'H', 0, &mut bytes);
            notes.call(
                format!("{length} bytes of structure, tail {tail:#x}"),
                outcome,
            );
            if outcome.is_ok() {
                // A structure without room for it hides the fd from the caller.
                close(next);
            }
        }
    }
    for (magic, number) in [(b'H', 1), (b'H', 255), (b'b', 0), (0xb6, 0), (0xb6, 2)] {
        let mut bytes = [0; 24];
        let outcome = ioctl_sized(heap, magic, number, &mut bytes);
        notes.call(format!("ioctl {magic:#x} {number}"), outcome);
    }
    notes.call("a structure at 0", ioctl_null(heap, ALLOC));
    let page = ReadOnlyPage::new(&[PAGE, u64::from(ordinary_flags()) << 32])?;
    notes.call("a structure in read-only memory", page.ioctl(heap, ALLOC));
    Ok(())
}

/// The number of the fd that the next call will answer with.
fn next_fd() -> anyhow::Result<i32> {
    Ok(File::open("/dev/null")?.as_raw_fd())
}

fn close(fd: i32) {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: The call that answered with it has succeeded, so this is a new fd of ours.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

fn devices(path: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    for (what, read, write) in [
        ("read only", true, false),
        ("write only", false, true),
        ("read and write", true, true),
    ] {
        let heap = OpenOptions::new().read(read).write(write).open(path)?;
        notes.call(
            format!("a device that is open {what}"),
            allocate_size(&heap, PAGE),
        );
        let mut byte = [0; 1];
        notes.call(format!("{what}: read"), rustix::io::read(&heap, &mut byte));
        notes.call(format!("{what}: write"), rustix::io::write(&heap, &byte));
        let outcome = rustix::fs::seek(&heap, rustix::fs::SeekFrom::Start(0));
        notes.call(format!("{what}: lseek"), outcome);
        let outcome = dma_buf::map(&heap, 4096, 0, ProtFlags::READ, MapFlags::SHARED);
        notes.call(format!("{what}: mmap"), outcome);
    }
    Ok(())
}
