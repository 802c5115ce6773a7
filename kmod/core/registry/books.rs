// SPDX-License-Identifier: GPL-2.0

//! A heap's books: who has how much of it.
//!
//! Every dma-buf that is exported here has an [`Entry`] in its heap's [`Books`]
//! until it is released, whichever way it was allocated.

use core::{
    cell::Cell,
    ptr::NonNull, //
};

use super::Heap;
use crate::{
    dmem::Charge,
    pages::Run,
    task::Origin, //
};
use kernel::{
    bindings::list_head,
    fmt,
    new_mutex,
    prelude::*,
    sync::{
        Mutex,
        SetOnce, //
    },
    types::Opaque, //
};

/// What the books say of a buffer.
///
/// # Invariants
///
/// - If `entered`, and only then, `links` are in the list of the heap's books, and the
///   entry stays where it is. The links are only accessed with the books locked.
/// - `entered` is only accessed by who has made the entry, and who ends it. `inode`
///   does not change while the entry is in the list.
#[repr(C)]
pub(crate) struct Entry {
    links: Opaque<list_head>,
    heap: &'static Heap,
    /// Bytes.
    size: u64,
    /// Its pages, if they are one run, and that is known.
    run: Option<Run>,
    /// Who allocated it.
    origin: Origin,
    inode: Cell<u64>,
    entered: Cell<bool>,
    /// What its memory is charged to; given back with the entry.
    charge: SetOnce<Charge>,
}

// SAFETY: The links are protected by the books' lock, the cells by the type invariants; the rest may
// be shared and sent.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Entry {
    /// A buffer of the current process, of `size` bytes, and of these pages.
    pub(crate) fn new(heap: &Heap, size: u64, run: Option<Run>) -> Self {
        // INVARIANT: Nothing has entered it; `enter` initialises the links.
        Self {
            links: Opaque::zeroed(),
            heap: heap.for_ever(),
            size,
            run,
            origin: Origin::current(),
            inode: Cell::new(0),
            entered: Cell::new(false),
            charge: SetOnce::new(),
        }
    }

    /// Enters a new buffer, whose inode has this number, into its heap's books.
    ///
    /// # Safety
    ///
    /// Must be called once. The entry must stay where it is until it is
    /// [struck off](Self::strike) or dropped.
    pub(crate) unsafe fn enter(&self, inode: u64) {
        self.inode.set(inode);
        let books = &self.heap.books;
        let mut account = books.account.lock();
        account.add(self.size);
        // SAFETY: The list is locked, and the links are in no list; the rest is the function's
        // contract.
        unsafe { append(self.links.get(), books.live.get()) };
        // INVARIANT: It is in the list now.
        self.entered.set(true);
    }

    /// Strikes a buffer off, if it was entered.
    pub(crate) fn strike(&self) {
        if !self.entered.get() {
            return;
        }
        let mut account = self.heap.books.account.lock();
        account.subtract(self.size);
        // SAFETY: The list is locked, and the links are in it by the type invariants.
        unsafe { remove(self.links.get()) };
        // INVARIANT: It is in no list now.
        self.entered.set(false);
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The heap in whose books it is, or will be.
    pub(crate) fn heap(&self) -> &'static Heap {
        self.heap
    }

    /// Has the entry hold a charge from now on.
    pub(crate) fn hold(&self, charge: Charge) {
        // A buffer is allocated once, so the place is empty.
        let _ = self.charge.populate(charge);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.strike();
    }
}

/// Puts `links` at the end of a list, in a few instructions of every allocation.
///
/// # Safety
///
/// `head` must be that of an initialised list to which the caller has exclusive access; `links`
/// must be in no list.
unsafe fn append(links: *mut list_head, head: *mut list_head) {
    // SAFETY: By the function's contract all of these are valid, and nobody else accesses them.
    unsafe {
        let last = (*head).prev;
        links.write(list_head {
            next: head,
            prev: last,
        });
        (*last).next = links;
        (*head).prev = links;
    }
}

/// Takes `links` out of a list, in a few instructions of every release.
///
/// # Safety
///
/// `links` must be in a list to which the caller has exclusive access.
unsafe fn remove(links: *mut list_head) {
    // SAFETY: By the function's contract its neighbours are valid, and nobody else accesses them.
    unsafe {
        let list_head { next, prev } = links.read();
        (*prev).next = next;
        (*next).prev = prev;
    }
}

/// Sums over all buffers of a heap.
#[derive(Clone, Copy, Default)]
pub(crate) struct Account {
    /// Live buffers.
    pub(crate) buffers: u32,
    /// Bytes of live buffers.
    pub(crate) used: u64,
    /// The most that `used` ever was.
    pub(crate) high_water: u64,
    /// Buffers that were ever made.
    pub(crate) allocations: u64,
    /// Allocations that were refused.
    pub(crate) failures: u64,
}

impl Account {
    fn add(&mut self, size: u64) {
        self.buffers = self.buffers.saturating_add(1);
        self.used = self.used.saturating_add(size);
        self.high_water = self.high_water.max(self.used);
        self.allocations = self.allocations.wrapping_add(1);
    }

    fn subtract(&mut self, size: u64) {
        self.buffers = self.buffers.saturating_sub(1);
        self.used = self.used.saturating_sub(size);
    }

    fn fail(&mut self) {
        self.failures = self.failures.wrapping_add(1);
    }
}

/// The books of one heap.
///
/// # Invariants
///
/// `live` is the head of a list of `links` of [`Entry`], which is protected by the
/// lock of `account`.
#[pin_data]
pub(super) struct Books {
    #[pin]
    account: Mutex<Account>,
    #[pin]
    live: Opaque<list_head>,
}

// SAFETY: The list is protected by the lock; entries may be shared.
unsafe impl Send for Books {}
// SAFETY: As above.
unsafe impl Sync for Books {}

impl Books {
    /// Empty books.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            account <- new_mutex!(Account::default()),
            live <- Opaque::ffi_init(|head: *mut list_head| {
                // SAFETY: There is room for the head of a list, which is initialised where it is.
                unsafe {
                    head.write(list_head {
                        next: head,
                        prev: head,
                    })
                };
            }),
        })
    }

    pub(super) fn account(&self) -> Account {
        *self.account.lock()
    }

    pub(super) fn fail(&self) {
        self.account.lock().fail();
    }

    /// Writes a line for every entry, oldest first.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.live.get();
        let _account = self.account.lock();
        // SAFETY: By the type invariants the head is initialised, and the list is locked.
        let mut next = unsafe { (*head).next };
        while next != head {
            // SAFETY: The list is locked, so that by the type invariants this is the first field of an
            // entry, which can't go away meanwhile.
            let entry = unsafe { NonNull::new_unchecked(next.cast::<Entry>()).as_ref() };
            write!(f, "{} {:#x} ", entry.inode.get(), entry.size)?;
            match entry.run {
                Some(run) => write!(f, "{:#x}", run.start())?,
                None => write!(f, "-")?,
            }
            writeln!(f, " {} {}", entry.origin.pid, entry.origin.comm())?;
            // SAFETY: As above.
            next = unsafe { (*next).next };
        }
        Ok(())
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_books)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_stays() {
        let mut account = Account::default();
        account.add(5);
        account.add(7);
        account.subtract(5);
        account.add(1);
        account.fail();
        assert_eq!(account.buffers, 2);
        assert_eq!((account.used, account.high_water), (8, 12));
        assert_eq!((account.allocations, account.failures), (3, 1));
    }
}
