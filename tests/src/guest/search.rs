// SPDX-License-Identifier: MIT OR Apache-2.0

//! A search of all memory that the normal world has, by somebody who is root in it
//! and knows images of what it looks for, and not the thing itself
//! ([`crate::needles`]).
//!
//! What processes have, what the page cache holds and what the kernel keeps is all
//! in physical memory, so that is where it looks: through /proc/kcore, which has all
//! that is Linux's own, and through /dev/mem, which has the open parts of the
//! carveouts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringfence::control::Control;
use rustix::fs::{MemfdFlags, OFlags};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use rustix::rand::{getrandom, GetRandomFlags};

use super::memory::{PhysicalRange, PAGE};
use super::{allocation, debug, kcore, reserved_memory};
use crate::needles::{is_telling, Matcher, Set, NEEDLE_SIZE};

/// Bytes that are looked at together.
const PIECE: u64 = 4 << 20;

/// A needle that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its number in the set.
    pub needle: usize,
    /// Physical address.
    pub at: u64,
}

/// What a search has brought.
#[derive(Debug)]
pub struct Findings {
    /// Needles, by where they are.
    pub found: Vec<Found>,
    /// Bytes looked at.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Findings {
    /// How many needles of one thing were found.
    pub fn of(&self, set: &Set, thing: usize) -> usize {
        let is_of = |found: &&Found| set.needles[found.needle].of == thing;
        self.found.iter().filter(is_of).count()
    }
}

/// All memory that the normal world can read now, by the kernel's own account and
/// that of the heaps.
struct Ranges {
    linux: Vec<PhysicalRange>,
    carveouts: Vec<PhysicalRange>,
}

impl Ranges {
    fn find() -> anyhow::Result<Self> {
        let mut carveouts = Vec::new();
        for heap in Control::open()?.heaps()? {
            if !reserved_memory::is_unmapped(&heap.name)? {
                continue;
            }
            let region = reserved_memory::of(&heap.name)?;
            // A region that is fenced as a whole has nothing open. Of the other protected ones, what
            // nobody has allocated is.
            if heap.whole_region && heap.protected_bytes != 0 {
                continue;
            }
            let mut taken = Vec::new();
            if heap.protected {
                taken = debug::ranges(&heap.name)?;
                taken.extend(debug::dirty_ranges(&heap.name)?);
            }
            taken.sort_unstable_by_key(|line| line.range.start);
            let mut start = region.start;
            for line in taken {
                push(&mut carveouts, start, line.range.start);
                start = line.range.end();
            }
            push(&mut carveouts, start, region.end());
        }
        let linux = system_memory()?;
        Ok(Self { linux, carveouts })
    }
}

fn push(ranges: &mut Vec<PhysicalRange>, start: u64, end: u64) {
    if start < end {
        let size = end - start;
        ranges.push(PhysicalRange { start, size });
    }
}

/// The kernel's account of its memory.
fn system_memory() -> anyhow::Result<Vec<PhysicalRange>> {
    const PATH: &str = "/proc/iomem";
    let text = fs::read_to_string(PATH).context(PATH)?;
    let mut ranges = Vec::new();
    for line in text.lines().filter(|line| line.ends_with(" : System RAM")) {
        let (bounds, _) = line.split_once(" : ").context("a line without a name")?;
        let (first, last) = bounds.split_once('-').context("a line without bounds")?;
        let first = u64::from_str_radix(first.trim(), 16)?;
        let last = u64::from_str_radix(last.trim(), 16)?;
        // Whole pages.
        push(
            &mut ranges,
            first.next_multiple_of(PAGE),
            (last + 1) & !(PAGE - 1),
        );
    }
    let total: u64 = ranges.iter().map(|range| range.size).sum();
    anyhow::ensure!(total > 512 << 20, "{PATH} shows {total} bytes of memory");
    Ok(ranges)
}

/// Physical memory, mapped to be read.
struct Window {
    words: NonNull<u64>,
    size: usize,
}

impl Window {
    fn map(memory: &File, range: PhysicalRange) -> anyhow::Result<Self> {
        let size = usize::try_from(range.size)?;
        // SAFETY: A new mapping at an address of the kernel's choice; the memory behind it
        // belongs to no Rust object.
        let mapped = unsafe {
            mmap(
                ptr::null_mut(),
                size,
                ProtFlags::READ,
                MapFlags::SHARED,
                memory,
                range.start,
            )
        };
        let mapped = mapped.with_context(|| format!("mmap of {range:x?}"))?;
        let words = NonNull::new(mapped.cast()).context("mmap answers null")?;
        Ok(Self { words, size })
    }

    /// A word of it; others may be writing it.
    #[inline]
    fn read(&self, index: usize) -> u64 {
        debug_assert!(index < self.size / 8);
        // SAFETY: The index is inside the mapping, as the caller has its size, which is
        // readable and aligned to pages.
        unsafe { self.words.add(index).read_volatile() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.size) };
    }
}

/// A way to physical memory.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It is in /proc/kcore, from this offset on.
    Core(u64),
    /// It can be mapped by /dev/mem.
    Map,
}

/// Memory that is looked at together.
#[derive(Debug, Clone, Copy)]
struct Piece {
    range: PhysicalRange,
    way: Way,
}

/// Both files.
struct Memory {
    core: File,
    physical: File,
}

impl Memory {
    fn open() -> anyhow::Result<Self> {
        const CORE: &str = "/proc/kcore";
        const PHYSICAL: &str = "/dev/mem";
        Ok(Self {
            core: File::open(CORE).context(CORE)?,
            physical: File::open(PHYSICAL).context(PHYSICAL)?,
        })
    }

    /// Cuts ranges into pieces, which overlap, so that what crosses a border is found.
    fn pieces(&self, ranges: &Ranges) -> anyhow::Result<Vec<Piece>> {
        let segments = kcore::segments(&self.core)?;
        let mut pieces = Vec::new();
        for range in &ranges.linux {
            let segment = segments
                .iter()
                .find(|segment| segment.holds(range))
                .with_context(|| format!("/proc/kcore does not have {range:x?}"))?;
            let offset = segment.offset + (range.start - segment.physical);
            cut(&mut pieces, *range, |at| Way::Core(offset + at));
        }
        for range in &ranges.carveouts {
            cut(&mut pieces, *range, |_| Way::Map);
        }
        Ok(pieces)
    }

    /// Looks at a piece.
    fn scan(
        &self,
        piece: Piece,
        matcher: &Matcher<'_>,
        room: &mut Vec<u64>,
        found: impl FnMut(usize, usize),
    ) -> anyhow::Result<()> {
        let offset = match piece.way {
            Way::Map => {
                let window = Window::map(&self.physical, piece.range)?;
                matcher.scan(window.size / 8, |index| window.read(index), found);
                return Ok(());
            }
            Way::Core(offset) => offset,
        };
        let size = usize::try_from(piece.range.size)?;
        room.resize(size / 8, 0);
        // SAFETY: These are the bytes of initialised words, and any bytes make words.
        let bytes = unsafe { slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u8>(), size) };
        self.core
            .read_exact_at(bytes, offset)
            .with_context(|| format!("/proc/kcore: {:x?}", piece.range))?;
        matcher.scan(room.len(), |index| room[index], found);
        Ok(())
    }
}

fn cut(pieces: &mut Vec<Piece>, range: PhysicalRange, way: impl Fn(u64) -> Way) {
    for at in (0..range.size).step_by(PIECE as usize) {
        let (start, size) = (range.start + at, (range.size - at).min(PIECE + PAGE));
        let range = PhysicalRange { start, size };
        let way = way(at);
        pieces.push(Piece { range, way });
    }
}

/// Looks for all needles of a set in all memory that the normal world can read, on
/// two processors.
///
/// Whoever allocates a protected buffer meanwhile ends the process that searches.
pub fn search(set: &Set) -> anyhow::Result<Findings> {
    let start = Instant::now();
    let matcher = Matcher::new(set);
    let ranges = Ranges::find()?;
    let pieces = Memory::open()?.pieces(&ranges)?;
    let (queue, found) = (Mutex::new(pieces.into_iter()), Mutex::new(Vec::new()));
    let work = || -> anyhow::Result<()> {
        // Readers of one open /proc/kcore share the page that it copies through, without a lock
        // (fs/proc/kcore.c): each would see some of what the other reads.
        let memory = Memory::open()?;
        let mut room = Vec::new();
        loop {
            let next = queue.lock().map_or(None, |mut queue| queue.next());
            let Some(piece) = next else { return Ok(()) };
            let mut here = Vec::new();
            memory.scan(piece, &matcher, &mut room, |needle, offset| {
                let at = piece.range.start + offset as u64;
                here.push(Found { needle, at });
            })?;
            if let Ok(mut found) = found.lock() {
                found.append(&mut here);
            }
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work()?;
        other
            .join()
            .map_err(|_| anyhow::anyhow!("a searching thread panicked"))?
    })?;
    let mut found = found.into_inner().unwrap_or_default();
    found.sort_unstable();
    found.dedup();
    let all = ranges.linux.iter().chain(&ranges.carveouts);
    Ok(Findings {
        found,
        bytes: all.map(|range| range.size).sum(),
        took: start.elapsed(),
    })
}

/// Random needles in places of their own, each nowhere else: what a search must
/// find.
pub struct Planted {
    places: Vec<Place>,
}

/// A page of memory with a random needle in it.
struct Place {
    name: &'static str,
    page: NonNull<[u8; PAGE as usize]>,
    /// What the page is of.
    _file: Option<Box<dyn std::any::Any>>,
}

impl Place {
    /// Maps a page of a file, or one of this process alone, and plants a needle.
    fn plant<F: std::os::fd::AsFd + 'static>(
        name: &'static str,
        file: Option<F>,
    ) -> anyhow::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: New mappings at addresses of the kernel's choice.
        let mapped = unsafe {
            match &file {
                Some(file) => mmap(
                    ptr::null_mut(),
                    PAGE as usize,
                    protection,
                    MapFlags::SHARED,
                    file,
                    0,
                ),
                None => rustix::mm::mmap_anonymous(
                    ptr::null_mut(),
                    PAGE as usize,
                    protection,
                    MapFlags::PRIVATE,
                ),
            }
        };
        let mapped = mapped.with_context(|| format!("a page of {name}"))?;
        let mut this = Self {
            name,
            page: NonNull::new(mapped.cast()).context("mmap answers null")?,
            _file: file.map(|file| Box::new(file) as Box<dyn std::any::Any>),
        };
        // Straight into the page, so that there is no copy anywhere.
        loop {
            // SAFETY: The page is mapped for this value alone in this process, and nobody
            // else has the file.
            let page = unsafe { this.page.as_mut() };
            let needle = &mut page[OFFSET..OFFSET + NEEDLE_SIZE];
            getrandom(&mut *needle, GetRandomFlags::empty())?;
            if is_telling(needle) {
                return Ok(this);
            }
        }
    }

    fn needle(&self) -> &[u8; NEEDLE_SIZE] {
        // SAFETY: The page is mapped as long as this value lives, and nobody writes it now.
        let page = unsafe { self.page.as_ref() };
        page[OFFSET..].first_chunk().expect("it is inside the page")
    }
}

/// Where in its page a planted needle is: at no multiple of anything.
const OFFSET: usize = 1237;

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), PAGE as usize) };
    }
}

impl Planted {
    /// Plants needles in a process's memory, in the page cache, and in a buffer that
    /// the kernel has allocated for devices.
    pub fn plant() -> anyhow::Result<Self> {
        let file = rustix::fs::memfd_create("planted", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, PAGE)?;
        let on_disk = rustix::fs::open(
            "/tmp/planted",
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )?;
        fs::remove_file("/tmp/planted")?;
        rustix::fs::ftruncate(&on_disk, PAGE)?;
        let buffer = |heap| -> anyhow::Result<_> {
            Ok(allocation::allocate_size(&allocation::open(heap)?, PAGE)?)
        };
        Ok(Self {
            places: vec![
                Place::plant::<std::os::fd::OwnedFd>("this process's memory", None)?,
                Place::plant("shared memory", Some(file))?,
                Place::plant("the page cache of a file", Some(on_disk))?,
                Place::plant("a buffer of the system heap", Some(buffer("system")?))?,
                Place::plant(
                    "a buffer of the CMA heap",
                    Some(buffer("default_cma_region")?),
                )?,
            ],
        })
    }

    /// Adds them to what is looked for; answers the index and name of each.
    pub fn add_to(&self, set: &mut Set) -> Vec<(usize, &'static str)> {
        self.places
            .iter()
            .map(|place| (set.add(place.name, [place.needle()]), place.name))
            .collect()
    }
}
