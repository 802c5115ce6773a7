// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocation, release and description of buffers, on every heap.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use ringfence::control::Control;
use ringfence::heap::{Heap, HEAPS_PATH};
use ringfence::uapi;
use ringfence_tests::guest::allocation::{
    self, allocate, allocate_size, ioctl_null, ioctl_sized, ordinary_flags, AllocationData,
    ReadOnlyPage, ALLOC,
};
use ringfence_tests::guest::{debug, dma_buf, expect_errno, heap_info, open_files};
use rustix::fs::{fcntl_getfl, OFlags};
use rustix::io::{fcntl_getfd, Errno, FdFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::region::{CAMERA, DECLARED, VIDEO, WHOLE};
use super::Test;

pub const TESTS: &[Test] = &[
    ("every_declared_heap_is_there", every_declared_heap_is_there),
    (
        "a_buffer_takes_whole_pages_and_gives_them_back",
        a_buffer_takes_whole_pages,
    ),
    ("sizes_that_can_not_be_are_refused", sizes_that_can_not_be),
    (
        "flags_that_do_not_exist_are_refused",
        flags_that_do_not_exist,
    ),
    ("fd_flags_are_kept", fd_flags_are_kept),
    ("no_kind_of_mmap_is_allowed", no_kind_of_mmap),
    (
        "a_full_heap_refuses_and_is_whole_again_after_close",
        a_full_heap_is_whole_again,
    ),
    (
        "an_answer_that_can_not_be_written_leaks_nothing",
        an_unwritable_answer,
    ),
    ("a_process_without_a_free_fd_leaks_nothing", no_free_fd),
    (
        "the_control_device_takes_older_and_newer_structures",
        structures_of_other_sizes,
    ),
    (
        "the_control_device_refuses_what_is_malformed",
        malformed_control_calls,
    ),
    (
        "the_control_device_refuses_what_is_no_buffer_of_ours",
        foreign_files,
    ),
    (
        "threads_that_allocate_and_release_lose_nothing",
        threads_lose_nothing,
    ),
];

const PAGE: u64 = 4096;

fn every_declared_heap_is_there() -> anyhow::Result<()> {
    for declared in DECLARED.iter().chain([&WHOLE]) {
        let info = heap_info(declared.name)?;
        let is_whole = declared.name == WHOLE.name;
        anyhow::ensure!(info.whole_region == is_whole, "{info:?}");
        anyhow::ensure!(info.online, "{} is offline", declared.name);
        anyhow::ensure!(info.size == declared.size, "{info:?}");
        anyhow::ensure!(info.use_case.0 == declared.use_case, "{info:?}");
        anyhow::ensure!(info.protected == (declared.use_case != 0), "{info:?}");
        anyhow::ensure!(
            info.contiguous && info.cpu_access == declared.cpu_access,
            "{info:?}"
        );
        anyhow::ensure!(info.alignment.is_power_of_two(), "{info:?}");
        anyhow::ensure!(u64::from(info.alignment) >= PAGE, "{info:?}");
        let node = fs::metadata(Path::new(HEAPS_PATH).join(declared.name))?;
        anyhow::ensure!(node.file_type().is_char_device(), "no device node");
        Heap::open(declared.name)?;
    }
    Ok(())
}

fn a_buffer_takes_whole_pages() -> anyhow::Result<()> {
    let control = Control::open()?;
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        for asked in [
            1,
            PAGE - 1,
            PAGE,
            PAGE + 1,
            65536,
            (3 << 20) + PAGE,
            8 << 20,
        ] {
            let before = heap_info(declared.name)?;
            let size = asked.next_multiple_of(PAGE);
            let buffer = allocate_size(&heap, asked)?;
            let during = heap_info(declared.name)?;
            anyhow::ensure!(during.buffers == before.buffers + 1, "{during:?}");
            anyhow::ensure!(during.free == before.free - size, "{asked}: {during:?}");
            if declared.use_case != 0 {
                let fenced = during.protected_bytes - before.protected_bytes;
                anyhow::ensure!(fenced == size, "{fenced} bytes fenced for {asked}");
            }
            let info = control.buffer(&buffer)?;
            anyhow::ensure!(info.size == size && info.heap == declared.name, "{info:?}");
            anyhow::ensure!(info.protected == (declared.use_case != 0), "{info:?}");
            anyhow::ensure!(info.handle.is_some() == info.protected, "{info:?}");
            anyhow::ensure!(
                info.contiguous && info.cpu_access == declared.cpu_access,
                "{info:?}"
            );
            let mut file = File::from(buffer.as_fd().try_clone_to_owned()?);
            anyhow::ensure!(
                file.seek(SeekFrom::End(0))? == size,
                "lseek tells another size"
            );
            drop((file, buffer));
            let after = heap_info(declared.name)?;
            anyhow::ensure!(after == before, "{after:?} after release, not {before:?}");
        }
    }
    Ok(())
}

fn sizes_that_can_not_be() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        let cases = [
            (0, Errno::INVAL),
            // Rounded up to whole pages these are 0.
            (u64::MAX, Errno::INVAL),
            (u64::MAX - PAGE + 2, Errno::INVAL),
            (u64::MAX - PAGE + 1, Errno::NOMEM),
            (1 << 63, Errno::NOMEM),
            (1 << 40, Errno::NOMEM),
            (declared.size + 1, Errno::NOMEM),
        ];
        for (size, errno) in cases {
            let what = format!("{size:#x} bytes of {}", declared.name);
            expect_errno(allocate_size(&heap, size), errno, &what)?;
        }
    }
    Ok(())
}

fn flags_that_do_not_exist() -> anyhow::Result<()> {
    let good = AllocationData {
        len: PAGE,
        fd: 0,
        fd_flags: ordinary_flags(),
        heap_flags: 0,
    };
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        let fd_flags = good.fd_flags | OFlags::NONBLOCK.bits();
        let cases = [
            ("an fd flag", AllocationData { fd_flags, ..good }),
            (
                "all fd flags",
                AllocationData {
                    fd_flags: u32::MAX,
                    ..good
                },
            ),
            (
                "a heap flag",
                AllocationData {
                    heap_flags: 1,
                    ..good
                },
            ),
            (
                "the last heap flag",
                AllocationData {
                    heap_flags: 1 << 63,
                    ..good
                },
            ),
            ("an fd that is not 0", AllocationData { fd: 1, ..good }),
        ];
        for (what, data) in cases {
            expect_errno(allocate(&heap, data), Errno::INVAL, what)?;
        }
    }
    Ok(())
}

fn fd_flags_are_kept() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        let modes = [OFlags::RDONLY, OFlags::RDWR, OFlags::RDWR | OFlags::CLOEXEC];
        for mode in modes {
            let buffer = allocate(
                &heap,
                AllocationData {
                    len: PAGE,
                    fd: 0,
                    fd_flags: mode.bits(),
                    heap_flags: 0,
                },
            )?;
            let closes = fcntl_getfd(&buffer)?.contains(FdFlags::CLOEXEC);
            anyhow::ensure!(closes == mode.contains(OFlags::CLOEXEC), "{mode:?}");
            let access = fcntl_getfl(&buffer)? & OFlags::RWMODE;
            anyhow::ensure!(access == mode & OFlags::RWMODE, "{mode:?}: {access:?}");
        }
    }
    Ok(())
}

fn no_kind_of_mmap() -> anyhow::Result<()> {
    const SIZE: usize = 4 << 12;
    let read_write = ProtFlags::READ | ProtFlags::WRITE;
    for declared in DECLARED.iter().filter(|heap| !heap.cpu_access) {
        let heap = allocation::open(declared.name)?;
        let buffer = allocate_size(&heap, SIZE as u64)?;
        let cases = [
            (
                "whole, read and write",
                SIZE,
                0,
                read_write,
                MapFlags::SHARED,
            ),
            ("read only", SIZE, 0, ProtFlags::READ, MapFlags::SHARED),
            ("write only", SIZE, 0, ProtFlags::WRITE, MapFlags::SHARED),
            ("no access", SIZE, 0, ProtFlags::empty(), MapFlags::SHARED),
            ("executable", SIZE, 0, ProtFlags::EXEC, MapFlags::SHARED),
            ("private", SIZE, 0, read_write, MapFlags::PRIVATE),
            (
                "populated",
                SIZE,
                0,
                read_write,
                MapFlags::SHARED | MapFlags::POPULATE,
            ),
            (
                "locked",
                SIZE,
                0,
                read_write,
                MapFlags::SHARED | MapFlags::LOCKED,
            ),
            ("first page", 4096, 0, read_write, MapFlags::SHARED),
            ("last page", 4096, 3 << 12, read_write, MapFlags::SHARED),
            ("one byte", 1, 0, ProtFlags::READ, MapFlags::SHARED),
        ];
        for (what, length, offset, protection, flags) in cases {
            let what = format!("mmap of {}: {what}", declared.name);
            let outcome = dma_buf::map(&buffer, length, offset, protection, flags);
            expect_errno(outcome, Errno::PERM, &what)?;
        }
        for (what, length, offset) in [
            ("one page too many", SIZE + 1, 0),
            ("behind the end", 4096, SIZE as u64),
            ("across the end", 8192, 3 << 12),
        ] {
            let what = format!("mmap of {}: {what}", declared.name);
            let outcome = dma_buf::map(&buffer, length, offset, ProtFlags::READ, MapFlags::SHARED);
            expect_errno(outcome, Errno::INVAL, &what)?;
        }
    }
    Ok(())
}

fn a_full_heap_is_whole_again() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let before = heap_info(declared.name)?;
        anyhow::ensure!(
            before.free == before.size,
            "not empty to begin with: {before:?}"
        );
        let heap = allocation::open(declared.name)?;
        let piece = declared.size / 16;
        let mut buffers = Vec::new();
        for _ in 0..16 {
            buffers.push(allocate_size(&heap, piece)?);
        }
        let full = heap_info(declared.name)?;
        anyhow::ensure!(full.free == 0 && full.largest_free == 0, "{full:?}");
        expect_errno(
            allocate_size(&heap, 1),
            Errno::NOMEM,
            "one byte of a full heap",
        )?;

        // Every second one goes: half is free, and nothing longer than a piece.
        let mut index = 0;
        buffers.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        let holes = heap_info(declared.name)?;
        anyhow::ensure!(holes.free == declared.size / 2, "{holes:?}");
        anyhow::ensure!(holes.largest_free == piece, "{holes:?}");
        expect_errno(
            allocate_size(&heap, piece + PAGE),
            Errno::NOMEM,
            "more than the longest run",
        )?;
        drop(allocate_size(&heap, piece)?);

        drop(buffers);
        drop(allocate_size(&heap, declared.size)?);
    }
    Ok(())
}

fn an_unwritable_answer() -> anyhow::Result<()> {
    let request = ReadOnlyPage::new(&[1 << 20, u64::from(ordinary_flags()) << 32])?;
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        let before = heap_info(declared.name)?;
        for _ in 0..20 {
            let outcome = request.ioctl(&heap, ALLOC);
            expect_errno(outcome, Errno::FAULT, "a buffer into read-only memory")?;
        }
        let after = heap_info(declared.name)?;
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    }
    let control = File::open(uapi::CONTROL_PATH)?;
    let heap = allocation::open(VIDEO)?;
    let buffer = allocate_size(&heap, PAGE)?;
    let fd = u64::from(raw_fd(&buffer).unsigned_abs());
    for (what, opcode, first) in [
        ("a heap", uapi::HEAP_INFO, 0),
        ("a buffer", uapi::BUFFER_INFO, fd),
    ] {
        let outcome = ReadOnlyPage::new(&[first])?.ioctl(&control, opcode);
        expect_errno(
            outcome,
            Errno::FAULT,
            &format!("{what} into read-only memory"),
        )?;
        let outcome = ioctl_null(&control, opcode);
        expect_errno(outcome, Errno::FAULT, &format!("{what} at address 0"))?;
    }
    Ok(())
}

fn no_free_fd() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let heap = allocation::open(declared.name)?;
        let before = heap_info(declared.name)?;
        // The lowest free number is the first that is not allowed.
        let next = raw_fd(&heap.try_clone()?);
        let limit = open_files::Limit::set(next.try_into()?)?;
        let outcomes: Vec<_> = (0..20).map(|_| allocate_size(&heap, 1 << 20)).collect();
        drop(limit);
        for outcome in outcomes {
            expect_errno(outcome, Errno::MFILE, declared.name)?;
        }
        let after = heap_info(declared.name)?;
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    }
    Ok(())
}

fn raw_fd(file: impl AsFd) -> i32 {
    file.as_fd().as_raw_fd()
}

/// Where `size` and `heap` are in a buffer's description.
const SIZE_AT: usize = 8;
const NAME_AT: usize = 32;
/// Bytes of a heap's description.
const HEAP_INFO: usize = size_of::<uapi::HeapInfo>();

fn structures_of_other_sizes() -> anyhow::Result<()> {
    let control = File::open(uapi::CONTROL_PATH)?;
    let heap = allocation::open(CAMERA)?;
    let buffer = allocate_size(&heap, 1 << 20)?;
    let fd = raw_fd(&buffer).to_ne_bytes();
    let ask = |length: usize, tail: u8| {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&fd);
        if length > 96 {
            bytes[length - 1] = tail;
        }
        ioctl_sized(&control, uapi::MAGIC, 0, &mut bytes).map(|()| bytes)
    };
    for length in [4, 8, 16, 32, 64, 96, 97, 128, 1024, 8192] {
        let answer = ask(length, 0).map_err(|errno| anyhow::anyhow!("{length} bytes: {errno}"))?;
        if length >= SIZE_AT + 8 {
            let size = u64::from_ne_bytes(answer[SIZE_AT..SIZE_AT + 8].try_into()?);
            anyhow::ensure!(size == 1 << 20, "size {size} in {length} bytes");
        }
        if length >= NAME_AT + CAMERA.len() {
            anyhow::ensure!(answer[NAME_AT..].starts_with(CAMERA.as_bytes()), "{length}");
        }
        if length > 96 {
            let what = format!("{length} bytes with a tail that means something");
            expect_errno(ask(length, 1), Errno::TOOBIG, &what)?;
        }
    }
    for length in [0, 1, 3] {
        let mut bytes = vec![0; length];
        for number in [0, 1] {
            let outcome = ioctl_sized(&control, uapi::MAGIC, number, &mut bytes);
            expect_errno(outcome, Errno::INVAL, &format!("{length} bytes"))?;
        }
    }
    // 128 bytes are the structure as it was at first.
    for length in [4, 64, 128, 129, HEAP_INFO, HEAP_INFO + 1, 4096] {
        let mut bytes = vec![0; length];
        ioctl_sized(&control, uapi::MAGIC, 1, &mut bytes)
            .map_err(|errno| anyhow::anyhow!("heap 0 in {length} bytes: {errno}"))?;
        if length > HEAP_INFO {
            bytes.fill(0);
            bytes[HEAP_INFO] = 1;
            let outcome = ioctl_sized(&control, uapi::MAGIC, 1, &mut bytes);
            expect_errno(outcome, Errno::TOOBIG, "a newer question")?;
        }
    }
    Ok(())
}

fn malformed_control_calls() -> anyhow::Result<()> {
    let control = File::open(uapi::CONTROL_PATH)?;
    let mut bytes = vec![0; 96];
    for (what, magic, number) in [
        ("an unknown number", uapi::MAGIC, 4),
        ("the last number", uapi::MAGIC, 255),
        ("another magic", b'H', 0),
    ] {
        let outcome = ioctl_sized(&control, magic, number, &mut bytes);
        expect_errno(outcome, Errno::NOTTY, what)?;
    }
    let ask = |number: u8, first: u32, pad_at: usize| {
        let mut bytes = vec![0; 128];
        bytes[..4].copy_from_slice(&first.to_ne_bytes());
        bytes[pad_at] = 1;
        bytes.truncate(if number == 0 { 96 } else { 128 });
        ioctl_sized(&control, uapi::MAGIC, number, &mut bytes)
    };
    let heap = allocation::open(CAMERA)?;
    let buffer = allocate_size(&heap, PAGE)?;
    let fd = raw_fd(&buffer).unsigned_abs();
    expect_errno(ask(0, fd, 28), Errno::INVAL, "a buffer's pad")?;
    expect_errno(ask(1, 0, 60), Errno::INVAL, "a heap's pad")?;
    let count = u32::try_from(Control::open()?.heaps()?.len())?;
    for index in [count, count + 1, i32::MAX as u32, u32::MAX] {
        let info = Control::open()?.heap(index)?;
        anyhow::ensure!(info.is_none(), "heap {index}: {info:?}");
    }
    Ok(())
}

fn foreign_files() -> anyhow::Result<()> {
    let control = File::open(uapi::CONTROL_PATH)?;
    let ask = |fd: i32| {
        let mut bytes = [0; 96];
        bytes[..4].copy_from_slice(&fd.to_ne_bytes());
        ioctl_sized(&control, uapi::MAGIC, 0, &mut bytes)
    };
    for fd in [-1, i32::MIN, i32::MAX, 9999] {
        expect_errno(ask(fd), Errno::BADF, &format!("fd {fd}"))?;
    }
    let null = File::open("/dev/null")?;
    expect_errno(ask(raw_fd(&null)), Errno::INVAL, "/dev/null")?;
    expect_errno(
        ask(raw_fd(&control)),
        Errno::INVAL,
        "the control device itself",
    )?;
    let (reader, _writer) = UnixStream::pair()?;
    expect_errno(ask(raw_fd(&reader)), Errno::INVAL, "a socket")?;
    let foreign = dma_buf::foreign(1 << 20)?;
    expect_errno(
        ask(raw_fd(&foreign)),
        Errno::INVAL,
        "another exporter's dma-buf",
    )?;
    Ok(())
}

fn threads_lose_nothing() -> anyhow::Result<()> {
    const THREADS: u64 = 4;
    for name in [CAMERA, VIDEO] {
        let rounds = debug::tries(if name == CAMERA { 200 } else { 25 });
        let heap = allocation::open(name)?;
        let heap = &heap;
        thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|worker| {
                    scope.spawn(move || -> Result<(), Errno> {
                        let mut kept = Vec::new();
                        for round in 0..rounds {
                            let pages = 1 + (worker * 7 + round * 5) % 61;
                            kept.push(allocate_size(heap, pages * PAGE)?);
                            if kept.len() > 3 {
                                kept.swap_remove((round % 3) as usize);
                            }
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| match worker.join() {
                    Ok(outcome) => outcome.map_err(|errno| anyhow::anyhow!("{name}: {errno}")),
                    Err(_) => anyhow::bail!("a thread panicked"),
                })
        })?;
    }
    Ok(())
}
