// SPDX-License-Identifier: MIT OR Apache-2.0

//! A buffer in a process's memory: which mappings there can be, and what can be
//! done with them.

use std::ffi::c_void;
use std::fs;
use std::os::fd::AsFd;
use std::ptr;

use ringfence::buffer::Buffer;
use ringfence_tests::guest::allocation::{self, allocate, AllocationData};
use ringfence_tests::guest::dma_buf;
use rustix::io::{read, write, Errno};
use rustix::mm::{
    madvise, mlock, mmap, mprotect, mremap, msync, munlock, munmap, Advice, MapFlags,
    MprotectFlags, MremapFlags, MsyncFlags, ProtFlags,
};
use rustix::pipe::pipe;

use super::{Notes, Subject};

const PAGE: usize = 4096;
const SIZE: usize = 5 * PAGE;

pub fn look(subject: &Subject, notes: &mut Notes) -> anyhow::Result<()> {
    let heap = allocation::open(subject.name)?;
    // Of one page, of a few, and of more than one block of the page allocator.
    for size in [PAGE, SIZE, 3 << 20] {
        for (fd_mode, fd_flags) in [("read only", 0), ("write only", 1), ("read and write", 2)] {
            let buffer = allocate(
                &heap,
                AllocationData {
                    len: size as u64,
                    fd: 0,
                    fd_flags,
                    heap_flags: 0,
                },
            )?;
            kinds(&buffer, size, fd_mode, notes);
        }
    }
    let buffer = allocation::allocate_size(&heap, SIZE as u64)?;
    contents(&buffer, notes)?;
    for (what, flags) in [
        ("shared", MapFlags::SHARED),
        ("populated", MapFlags::SHARED | MapFlags::POPULATE),
    ] {
        in_use(&buffer, what, flags, notes)?;
    }
    changes(&buffer, notes)?;
    Ok(())
}

/// Every kind of mapping.
fn kinds(buffer: &Buffer, size: usize, fd_mode: &str, notes: &mut Notes) {
    let places = [
        ("all", size, 0),
        ("one byte", 1, 0),
        ("the first page", PAGE, 0),
        ("the last page", PAGE, size - PAGE),
        ("all but the first page", size - PAGE, PAGE),
        ("a byte too many", size + 1, 0),
        ("twice as much", 2 * size, 0),
        ("a page behind the end", PAGE, size),
        ("across the end", 2 * PAGE, size - PAGE),
        ("far behind the end", PAGE, 1 << 40),
        ("at the last page there can be", PAGE, usize::MAX - PAGE + 1),
        ("an odd place", PAGE, 1),
        ("nothing", 0, 0),
    ];
    let protections = [
        ("none", ProtFlags::empty()),
        ("r", ProtFlags::READ),
        ("w", ProtFlags::WRITE),
        ("rw", ProtFlags::READ | ProtFlags::WRITE),
        ("x", ProtFlags::EXEC),
        ("rx", ProtFlags::READ | ProtFlags::EXEC),
    ];
    let flags = [
        ("shared", MapFlags::SHARED),
        ("private", MapFlags::PRIVATE),
        ("shared, populated", MapFlags::SHARED | MapFlags::POPULATE),
        ("private, populated", MapFlags::PRIVATE | MapFlags::POPULATE),
        ("shared, locked", MapFlags::SHARED | MapFlags::LOCKED),
    ];
    let kind = if size == PAGE {
        "one page"
    } else if size == SIZE {
        "five pages"
    } else {
        "3 MiB"
    };
    for (place, length, offset) in places {
        for (protection_name, protection) in protections {
            for (flag_name, flag) in flags {
                let outcome = dma_buf::map(buffer, length, offset as u64, protection, flag);
                notes.call(
                    format!("{kind}, fd {fd_mode}, {place}, {protection_name}, {flag_name}"),
                    outcome,
                );
            }
        }
    }
}

/// A mapping, which is undone when this is dropped.
struct Map {
    address: *mut c_void,
    length: usize,
}

impl Map {
    fn new(
        buffer: impl AsFd,
        protection: ProtFlags,
        flags: MapFlags,
        length: usize,
        offset: usize,
    ) -> Result<Self, Errno> {
        // SAFETY: A new mapping at an address of the kernel's choice.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                flags,
                buffer,
                offset as u64,
            )
        }?;
        Ok(Self { address, length })
    }

    fn byte(&self, at: usize) -> *mut u8 {
        assert!(at < self.length);
        // SAFETY: The place is inside the mapping.
        unsafe { self.address.cast::<u8>().add(at) }
    }

    fn read(&self, at: usize) -> u8 {
        // SAFETY: The mapping is there, can be read, and the kernel has a page for it.
        unsafe { self.byte(at).read_volatile() }
    }

    fn write(&self, at: usize, value: u8) {
        // SAFETY: The mapping is there, can be written to, and the kernel has a page for it.
        unsafe { self.byte(at).write_volatile(value) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}

const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// What one mapping writes others see.
fn contents(buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    let all = Map::new(buffer, RW, MapFlags::SHARED, SIZE, 0)?;
    for page in 0..SIZE / PAGE {
        all.write(page * PAGE, page as u8 + 1);
        all.write(page * PAGE + PAGE - 1, page as u8 + 101);
    }
    for page in 0..SIZE / PAGE {
        for (what, flags) in [("shared", MapFlags::SHARED), ("private", MapFlags::PRIVATE)] {
            let Ok(part) = Map::new(buffer, ProtFlags::READ, flags, PAGE, page * PAGE) else {
                notes.note(format!("page {page} alone, {what}"), "refused");
                continue;
            };
            notes.note(
                format!("page {page} alone, {what}: first byte"),
                part.read(0),
            );
            notes.note(
                format!("page {page} alone, {what}: last byte"),
                part.read(PAGE - 1),
            );
        }
    }
    // A private mapping that may be written to, where there can be one, stays apart.
    if let Ok(private) = Map::new(buffer, RW, MapFlags::PRIVATE, SIZE, 0) {
        private.write(0, 77);
        notes.note("written privately: seen privately", private.read(0));
        notes.note("written privately: seen by others", all.read(0));
    }
    Ok(())
}

/// What the kernel can do with a mapping.
fn in_use(buffer: &Buffer, kind: &str, flags: MapFlags, notes: &mut Notes) -> anyhow::Result<()> {
    let map = Map::new(buffer, RW, flags, SIZE, 0)?;
    let start = map.address;
    for key in ["VmFlags", "Rss", "Pss", "Shared_Clean", "Locked"] {
        notes.note(
            format!("{kind}: smaps before the first touch: {key}"),
            smaps(start, key)?,
        );
    }
    map.write(PAGE, 9);
    for key in ["VmFlags", "Rss"] {
        notes.note(format!("{kind}: smaps after it: {key}"), smaps(start, key)?);
    }

    let (reader, writer) = pipe()?;
    map.write(0, 42);
    // SAFETY: The mapping is there, and nobody changes it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts_mut(map.byte(0), 64) };
    notes.call(format!("{kind}: written to a pipe"), write(&writer, bytes));
    bytes[0] = 0;
    notes.call(
        format!("{kind}: read from a pipe"),
        read(&reader, &mut *bytes),
    );
    notes.note(format!("{kind}: what came from the pipe"), bytes[0]);

    // SAFETY: The calls below concern the mapping only, and what they say of its pages. None of
    // them frees what the mapping shows.
    unsafe {
        notes.call(format!("{kind}: mlock"), mlock(start, SIZE));
        notes.call(format!("{kind}: munlock"), munlock(start, SIZE));
        notes.call(
            format!("{kind}: msync"),
            msync(start, SIZE, MsyncFlags::SYNC),
        );
        let invalidate = MsyncFlags::SYNC | MsyncFlags::INVALIDATE;
        notes.call(
            format!("{kind}: msync, invalidate"),
            msync(start, SIZE, invalidate),
        );
        for (what, advice) in [
            ("normal", Advice::Normal),
            ("sequential", Advice::Sequential),
            ("willneed", Advice::WillNeed),
            ("dontfork", Advice::LinuxDontFork),
            ("dofork", Advice::LinuxDoFork),
            ("dontdump", Advice::LinuxDontDump),
            ("dodump", Advice::LinuxDoDump),
            ("hugepage", Advice::LinuxHugepage),
            ("mergeable", Advice::LinuxMergeable),
            ("free", Advice::LinuxFree),
            ("cold", Advice::LinuxCold),
            ("pageout", Advice::LinuxPageOut),
            ("populate for reading", Advice::LinuxPopulateRead),
            ("populate for writing", Advice::LinuxPopulateWrite),
            ("remove", Advice::LinuxRemove),
            ("dontneed", Advice::LinuxDontNeed),
        ] {
            notes.call(
                format!("{kind}: madvise {what}"),
                madvise(start, SIZE, advice),
            );
        }
    }
    Ok(())
}

/// What `/proc/self/smaps` says of the mapping at an address.
fn smaps(address: *mut c_void, key: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let head = format!("{:x}-", address as usize);
    let value = text
        .lines()
        .skip_while(|line| !line.starts_with(&head))
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(value.unwrap_or("nothing").trim().to_owned())
}

/// Changes of a mapping that is there.
fn changes(buffer: &Buffer, notes: &mut Notes) -> anyhow::Result<()> {
    for (what, from, to) in [
        ("to nothing", RW, MprotectFlags::empty()),
        ("to reading", RW, MprotectFlags::READ),
        (
            "to writing",
            ProtFlags::READ,
            MprotectFlags::READ | MprotectFlags::WRITE,
        ),
        (
            "to execution",
            RW,
            MprotectFlags::READ | MprotectFlags::EXEC,
        ),
    ] {
        let map = Map::new(buffer, from, MapFlags::SHARED, SIZE, 0)?;
        map.read(0);
        // SAFETY: Nobody touches the mapping after this.
        let outcome = unsafe { mprotect(map.address, SIZE, to) };
        notes.call(format!("mprotect {what}"), outcome);
    }
    for (what, new, flags) in [
        ("smaller", PAGE, MremapFlags::empty()),
        ("larger", 2 * SIZE, MremapFlags::empty()),
        ("larger, elsewhere", 2 * SIZE, MremapFlags::MAYMOVE),
        ("the same, elsewhere", SIZE, MremapFlags::MAYMOVE),
    ] {
        let mut map = Map::new(buffer, RW, MapFlags::SHARED, SIZE, 0)?;
        map.write(0, 5);
        // SAFETY: The mapping is ours, and is known by its new place after this.
        match unsafe { mremap(map.address, SIZE, new, flags) } {
            Ok(address) => {
                map.address = address;
                map.length = new;
                notes.note(format!("mremap {what}"), "ok");
                notes.note(format!("mremap {what}: content"), map.read(0));
            }
            Err(errno) => notes.note(format!("mremap {what}"), super::name(errno)),
        }
    }
    let map = Map::new(buffer, RW, MapFlags::SHARED, SIZE, 0)?;
    map.write(3 * PAGE, 8);
    // SAFETY: A page in the middle, which nobody uses any more.
    notes.call("munmap of the middle", unsafe {
        munmap(map.byte(PAGE).cast(), PAGE)
    });
    notes.note("after it: what is behind", map.read(3 * PAGE));
    Ok(())
}
