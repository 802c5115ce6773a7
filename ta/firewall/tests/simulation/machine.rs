// SPDX-License-Identifier: MIT OR Apache-2.0

//! Hardware and OP-TEE, as far as the ledger can tell.
//!
//! The machine panics when it is asked for something that the ledger must
//! never do: opening a page that holds data or is mapped, or moving a page
//! that is not where it is thought to be.

use super::hardware::Hardware;
use ringfence_firewall::extent::{Extent, BLOCK, GRANULE};
use ringfence_firewall::{Abilities, Platform, Refused};
use std::ops::Range;
use std::rc::Rc;

/// Applications with an address space each: the Ringfence TA, and two instances of
/// the decoder.
pub const APPLICATIONS: usize = 3;

/// One granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub fenced: bool,
    /// Stands for the bytes: zero only if all of them are.
    pub content: u8,
}

/// Which platform calls fail, counted from when this is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Faults {
    None,
    /// One call, the first is 0.
    Nth(u64),
    /// A call and, later, another.
    Two(u64, u64),
    /// All calls from one on.
    From(u64),
    /// Calls by the bits of a word, over and over.
    Pattern(u32),
}

struct Window {
    /// Whose address space it is in.
    owner: usize,
    /// The session that asked for it.
    session: u64,
    va: u64,
    size: u64,
    offset: u64,
    object: Rc<Extent>,
}

/// The simulated machine.
pub struct Machine {
    base: u64,
    hardware: Box<dyn Hardware>,
    /// Of each page, what it holds.
    content: Vec<u8>,
    windows: Vec<Window>,
    /// Whose address space is the current one.
    current: usize,
    session: u64,
    next_va: [u64; APPLICATIONS],
    faults: Faults,
    counted: u64,
    calls: u64,
    faulted: bool,
}

impl Machine {
    pub fn new(base: u64, pages: u64, hardware: Box<dyn Hardware>) -> Self {
        Self {
            base,
            hardware,
            content: vec![0xaa; pages as usize],
            windows: Vec::new(),
            current: 0,
            session: 0,
            // Address spaces are alike.
            next_va: [0x4000_0000; APPLICATIONS],
            faults: Faults::None,
            counted: 0,
            calls: 0,
            faulted: false,
        }
    }

    pub fn pages(&self) -> Vec<Page> {
        let fenced = self.hardware.fenced(self.base, self.content.len() as u64);
        fenced
            .into_iter()
            .zip(&self.content)
            .map(|(fenced, &content)| Page { fenced, content })
            .collect()
    }

    pub fn calls(&self) -> u64 {
        self.calls
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.counted = 0;
    }

    pub fn take_faulted(&mut self) -> bool {
        std::mem::take(&mut self.faulted)
    }

    /// Whether a page of these, by absolute number, is mapped.
    pub fn any_mapped(&self, pages: &Range<u64>) -> bool {
        self.overlapping(pages).next().is_some()
    }

    /// Whether another session than the current one has a page of these mapped.
    pub fn mapped_by_another(&self, pages: &Range<u64>) -> bool {
        self.overlapping(pages)
            .any(|window| window.session != self.session)
    }

    fn overlapping<'a>(&'a self, pages: &'a Range<u64>) -> impl Iterator<Item = &'a Window> {
        self.windows.iter().filter(|window| {
            let first = (window.object.start() + window.offset) / GRANULE;
            first < pages.end && pages.start < first + window.size / GRANULE
        })
    }

    /// An application's session, and its address space, become the current ones.
    pub fn switch(&mut self, application: usize, session: u64) {
        self.current = application;
        self.session = session;
    }

    /// Address and size of one of the windows, whosever it is.
    pub fn window(&self, index: usize) -> Option<(u64, u64)> {
        let window = self.windows.get(index % self.windows.len().max(1))?;
        Some((window.va, window.size))
    }

    /// Whether one window of the current session covers all of it.
    pub fn is_window(&self, va: u64, size: u64) -> bool {
        self.find(va, size)
            .is_some_and(|index| self.windows[index].session == self.session)
    }

    pub fn normal_world_writes(&mut self, page: u64) {
        if !self.hardware.any_fenced(self.base / GRANULE + page, 1) {
            self.content[page as usize] = 0xaa;
        }
    }

    pub fn ta_writes(&mut self) {
        for window in &self.windows {
            let start = window.object.start() + window.offset;
            let pages = window.size / GRANULE;
            let fenced = self.hardware.fenced(start, pages);
            assert!(
                fenced.iter().all(|fenced| *fenced),
                "a TA has an open page mapped"
            );
            let first = (start - self.base) / GRANULE;
            self.content[first as usize..][..pages as usize].fill(0x55);
        }
    }

    /// A device in the secure world writes to fenced pages.
    pub fn device_writes(&mut self, page: u64) {
        if self.hardware.any_fenced(self.base / GRANULE + page, 1) {
            self.content[page as usize] = 0x77;
        }
    }

    /// The current address space goes.
    pub fn ta_dies(&mut self) {
        self.windows.retain(|window| window.owner != self.current);
    }

    /// Counts a call, and says whether it may do its work.
    fn enter(&mut self) -> Result<(), Refused> {
        let n = self.counted;
        self.counted += 1;
        self.calls += 1;
        let fails = match self.faults {
            Faults::None => false,
            Faults::Nth(nth) => n == nth,
            Faults::Two(one, other) => n == one || n == other,
            Faults::From(first) => n >= first,
            Faults::Pattern(bits) => bits.rotate_right((n % 32) as u32) & 1 != 0,
        };
        self.faulted |= fails;
        if fails {
            Err(Refused)
        } else {
            Ok(())
        }
    }

    fn range(&self, extent: Extent) -> Range<usize> {
        let first = (extent.start() - self.base) / GRANULE;
        let last = (extent.end() - self.base) / GRANULE;
        first as usize..last as usize
    }

    fn content(&mut self, extent: Extent) -> &mut [u8] {
        let range = self.range(extent);
        &mut self.content[range]
    }

    /// Whether all of an extent is fenced, or none of it, as is expected.
    fn expect(&self, extent: Extent, fenced: bool, what: &str) {
        let pages = extent.size() / GRANULE;
        let seen = self.hardware.fenced(extent.start(), pages);
        assert!(seen.iter().all(|page| *page == fenced), "{what}");
    }

    fn find(&self, va: u64, size: u64) -> Option<usize> {
        let end = va.checked_add(size)?;
        self.windows.iter().position(|window| {
            window.owner == self.current && window.va <= va && end <= window.va + window.size
        })
    }
}

impl Platform for Machine {
    type Object = Rc<Extent>;

    fn abilities(&self) -> Abilities {
        self.hardware.abilities()
    }

    fn fence(&mut self, piece: Extent) -> Result<(), Refused> {
        self.enter()?;
        self.expect(piece, false, "fenced twice");
        self.hardware.fence(piece).expect("there is a window");
        self.expect(piece, true, "not fenced");
        Ok(())
    }

    fn open(&mut self, piece: Extent) -> Result<(), Refused> {
        self.enter()?;
        let pages = piece.start() / GRANULE..piece.end() / GRANULE;
        assert!(!self.any_mapped(&pages), "opened while mapped");
        self.expect(piece, true, "opened twice");
        assert!(
            self.content(piece).iter().all(|content| *content == 0),
            "opened unscrubbed"
        );
        self.hardware.open(piece).expect("there is a window");
        self.expect(piece, false, "not opened");
        Ok(())
    }

    fn scrub(&mut self, block: Extent) -> Result<(), Refused> {
        let result = self.enter();
        assert_eq!(
            block.start() / BLOCK,
            (block.end() - 1) / BLOCK,
            "one step, one block"
        );
        self.expect(block, true, "scrubbed what is not ours");
        let pages = self.content(block);
        // A scrub that fails may have come half the way.
        let done = match result {
            Ok(()) => pages.len(),
            Err(Refused) => pages.len() / 2,
        };
        pages[..done].fill(0);
        result
    }

    fn object(&mut self, range: Extent) -> Result<Rc<Extent>, Refused> {
        self.enter()?;
        self.expect(range, true, "an object of open memory");
        Ok(Rc::new(range))
    }

    fn is_mapped(&self, object: &Rc<Extent>) -> bool {
        Rc::strong_count(object) > 1
    }

    fn map(&mut self, object: &Rc<Extent>, offset: u64, size: u64) -> Result<u64, Refused> {
        self.enter()?;
        assert!(offset + size <= object.size(), "window outside its object");
        let pages = object.start() / GRANULE..object.end() / GRANULE;
        assert!(
            self.overlapping(&pages)
                .all(|window| window.owner == self.current),
            "mapped into two address spaces"
        );
        let va = self.next_va[self.current];
        // A gap: no two windows are adjacent.
        self.next_va[self.current] += size + GRANULE;
        self.windows.push(Window {
            owner: self.current,
            session: self.session,
            va,
            size,
            offset,
            object: Rc::clone(object),
        });
        Ok(va)
    }

    fn physical(&mut self, va: u64, size: u64) -> Option<u64> {
        let window = &self.windows[self.find(va, size)?];
        Some(window.object.start() + window.offset + (va - window.va))
    }

    fn unmap(&mut self, object: &Rc<Extent>, va: u64, size: u64) -> Result<(), Refused> {
        self.enter()?;
        let index = self.find(va, size).expect("a window was seen there");
        let window = self.windows.swap_remove(index);
        assert!(Rc::ptr_eq(object, &window.object), "another range's window");
        let end = window.va + window.size;
        for (part, part_end) in [(window.va, va), (va + size, end)] {
            if part < part_end {
                self.windows.push(Window {
                    owner: window.owner,
                    session: window.session,
                    va: part,
                    size: part_end - part,
                    offset: window.offset + (part - window.va),
                    object: Rc::clone(&window.object),
                });
            }
        }
        Ok(())
    }
}
