// SPDX-License-Identifier: GPL-2.0

//! Memory that Linux manages: pages, and who owns them.
//!
//! A [`Block`] is what the page allocator hands out: a power of two of pages. A
//! [`Run`] names consecutive pages without owning them, and [`Memory`] is
//! whatever owns the runs that a buffer consists of. A heap passes these on and
//! never sees an address, so that it needs no unsafe code to handle them.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

use crate::bindings;
use kernel::{
    bindings::page,
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Consecutive pages of somebody's [`Memory`].
///
/// # Invariants
///
/// `page` is the first of `pages` consecutive `struct page`, and `pages` is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Run {
    page: NonNull<page>,
    pages: usize,
}

// SAFETY: A run is a name of pages; what may be done with them is up to `Memory`.
unsafe impl Send for Run {}
// SAFETY: As above.
unsafe impl Sync for Run {}

impl Run {
    /// Names `pages` pages from `page` on.
    ///
    /// # Safety
    ///
    /// `page` must be the first of as many consecutive `struct page`; `pages` must not be 0.
    pub(crate) const unsafe fn new(page: NonNull<page>, pages: usize) -> Self {
        // INVARIANT: As the function's contract says.
        Self { page, pages }
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.pages << PAGE_SHIFT
    }

    /// Physical address of the first byte.
    pub fn start(&self) -> u64 {
        // SAFETY: By the type invariants this is a `struct page`.
        unsafe { bindings::ringfence_page_to_phys(self.first()) }
    }

    /// The first page.
    pub(crate) fn first(&self) -> *mut page {
        self.page.as_ptr()
    }

    /// The page `index` pages further on.
    ///
    /// # Safety
    ///
    /// `index` must be less than [`Self::pages`].
    pub(crate) unsafe fn nth(&self, index: usize) -> *mut page {
        // SAFETY: By the function's contract and the type invariants there is such a page.
        unsafe { self.first().add(index) }
    }

    /// Cuts it into runs of `stride` pages, of which the last may be shorter.
    #[cfg(CONFIG_DMA_CMA)]
    pub(crate) fn parts(&self, stride: usize) -> impl Iterator<Item = Self> + '_ {
        (0..self.pages).step_by(stride).map(move |index| {
            let pages = stride.min(self.pages - index);
            // SAFETY: The index is less than the number of pages, and so are those before the end of
            // the part.
            unsafe { Self::new(NonNull::new_unchecked(self.nth(index)), pages) }
        })
    }

    /// Writes zeros over all of it.
    ///
    /// # Safety
    ///
    /// The pages must belong to the caller, and nobody else may access them meanwhile.
    pub(crate) unsafe fn zero(&self) {
        // SAFETY: By the type invariants these are pages; the rest is the function's contract.
        unsafe { bindings::ringfence_clear_pages(self.first(), self.pages) };
    }
}

/// The pages of a buffer, which are given back when this is dropped.
///
/// # Safety
///
/// As long as the value lives, however it is moved:
///
/// - [`runs`](Self::runs) answers the same runs, and at least one;
/// - their pages belong to the value alone, are counted by reference, and hold
///   bytes that anybody may see who gets the buffer.
pub unsafe trait Memory: Send + Sync + Sized + 'static {
    /// The pages, in the order in which they make up the buffer.
    fn runs(&self) -> &[Run];
}

/// How hard the page allocator tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Takes what is free now, and frees nothing for it.
    Free,
    /// Reclaims memory, and waits for it, as long as that makes progress; kills
    /// nobody.
    Reclaim,
}

/// A power of two of pages, as the page allocator hands them out.
///
/// # Invariants
///
/// The run is a block of the page allocator with 2^order pages, of which this
/// owns the allocator's reference. All its bytes are initialised.
#[derive(Debug)]
#[repr(transparent)]
pub struct Block(Run);

impl Block {
    /// Allocates 2^`order` zeroed pages, charged to the current process's memory
    /// control group if [`accounting`] says so.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn allocate(order: u32, effort: Effort) -> Result<Self> {
        let mut flags = match effort {
            Effort::Free => bindings::RINGFENCE_GFP_FREE,
            Effort::Reclaim => bindings::RINGFENCE_GFP_RECLAIM,
        };
        if accounting() {
            flags |= bindings::RINGFENCE_GFP_ACCOUNT;
        }
        // SAFETY: Callers are in process context and hold no lock that forbids to sleep.
        let page = unsafe { kernel::bindings::alloc_pages(flags, order) };
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The allocator has answered with so many pages.
        let run = unsafe { Run::new(page, 1 << order) };
        // INVARIANT: The block is new, and the flags asked for zeros.
        Ok(Self(run))
    }

    /// Binary logarithm of the number of pages.
    pub fn order(&self) -> u32 {
        self.0.pages.trailing_zeros()
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.0.pages
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Whether the pages can be somebody else's buffer: nobody has a reference to one
    /// of them, so that nobody writes to it later, and none of them is broken.
    pub fn is_reusable(&self) -> bool {
        // SAFETY: By the type invariants this is the first page of a block.
        unsafe { bindings::ringfence_page_is_reusable(self.0.first()) }
    }

    /// Writes zeros over all of it.
    pub fn zero(&mut self) {
        // SAFETY: By the type invariants the pages are ours; that nobody else accesses them is
        // what the exclusive reference says.
        unsafe { self.0.zero() };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours, and the order is the block's.
        unsafe { kernel::bindings::__free_pages(self.0.first(), self.order()) };
    }
}

/// The memory of a buffer that is made of blocks.
pub enum Blocks {
    /// One of them.
    One(Block),
    /// Several, but at least one.
    Many(KVVec<Block>),
}

// SAFETY: The blocks own their pages, nobody changes the list, and a block is not empty.
unsafe impl Memory for Blocks {
    fn runs(&self) -> &[Run] {
        let blocks = match self {
            Self::One(block) => core::slice::from_ref(block),
            Self::Many(blocks) => blocks.as_slice(),
        };
        let runs: *const [Block] = blocks;
        // SAFETY: `Block` is a transparent wrapper of `Run`.
        unsafe { &*(runs as *const [Run]) }
    }
}

/// Blocks in a pile: the last one put there is the first one taken. It needs no
/// memory of its own.
///
/// # Invariants
///
/// `top` begins a chain of blocks of 2^`order` pages each that this owns, linked by
/// a word of their first `struct page` that its owner may use; `len` of them.
pub struct Pile {
    top: Option<NonNull<page>>,
    order: u32,
    len: usize,
}

// SAFETY: A pile owns its blocks, and blocks may be sent.
unsafe impl Send for Pile {}

impl Pile {
    /// No blocks, but a place for those of 2^`order` pages.
    pub const fn new(order: u32) -> Self {
        // INVARIANT: The chain is empty.
        Self {
            top: None,
            order,
            len: 0,
        }
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    /// Puts a block on top; one of another order is given back to the page allocator.
    pub fn push(&mut self, block: Block) {
        if block.order() != self.order {
            return;
        }
        let page = ManuallyDrop::new(block).0.page;
        // SAFETY: The page begins a block that was just given to us, so the word is ours. INVARIANT:
        // It links to the rest of the chain.
        unsafe { *link(page) = self.top };
        self.top = Some(page);
        self.len += 1;
    }

    /// Takes the block from the top.
    pub fn pop(&mut self) -> Option<Block> {
        let page = self.top?;
        // SAFETY: By the type invariants the page begins a block of ours, with a valid link.
        self.top = unsafe { *link(page) };
        self.len -= 1;
        // SAFETY: By the type invariants the block has so many pages.
        let run = unsafe { Run::new(page, 1 << self.order) };
        // INVARIANT: The block was ours, and is in the chain no more.
        Some(Block(run))
    }
}

impl Drop for Pile {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// The word of a `struct page` that links a pile's blocks.
///
/// The owner of a page may use its `lru`. The second word is not one that says
/// whether the page is the tail of another.
///
/// # Safety
///
/// `page` must be the first page of a block that the caller owns.
unsafe fn link(page: NonNull<page>) -> *mut Option<NonNull<page>> {
    let raw = page.as_ptr();
    // SAFETY: By the function's contract there is such a page, and nobody else uses the field.
    // CAST: An optional pointer has the size and layout of a pointer.
    unsafe {
        (&raw mut (*raw)
            .__bindgen_anon_1
            .__bindgen_anon_1
            .__bindgen_anon_1
            .lru
            .prev)
            .cast()
    }
}

/// Whether the memory of heaps is charged to the memory control group of whoever
/// allocates it: the parameter `mem_accounting` of the kernel's own dma-heap code.
// Not inlined: heap modules don't import the variable.
#[inline(never)]
pub fn accounting() -> bool {
    // SAFETY: The kernel sets the parameter when it starts, and never again.
    unsafe { bindings::mem_accounting }
}

/// How many pages the machine has for Linux.
pub fn total() -> usize {
    // SAFETY: Reads a counter.
    unsafe { bindings::ringfence_totalram_pages() }
}

/// About how many pages could be had, were everything else written out that can be:
/// what `/proc/meminfo` calls available, and free swap space.
pub fn obtainable() -> usize {
    // SAFETY: Reads counters.
    unsafe { bindings::ringfence_obtainable_pages() }
}
