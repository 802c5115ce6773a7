// SPDX-License-Identifier: GPL-2.0

//! Pages that were given back, and wait to be handed out again.
//!
//! The pool has a shelf for each order, with clean blocks, which are zeroed, and
//! dirty ones. The heap's worker zeroes the dirty ones, and allocates zeroed blocks
//! until a shelf is filled as far as it shall be ahead of need. It is woken when
//! there is enough to do to be worth it: when a shelf runs low on clean blocks, or
//! when [`MANY_DIRTY`] pages are dirty. Whoever finds no clean block meanwhile
//! takes a dirty one and zeroes it.
//!
//! What the pool keeps is bounded, and the kernel gets it back when it runs short
//! of memory; for a while the worker does not fill shelves then. There is no pool
//! when buffers are charged to control groups: a page is charged when the page
//! allocator hands it out.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic,
        Msecs, //
    }, //
};
use ringfence_core::{
    pages::{
        self,
        Block,
        Blocks,
        Effort,
        Pile, //
    },
    registry::Heap,
    shrinker::Shrink, //
};

/// Binary logarithms of the pages of a block: the kernel's own heap has the same, as
/// IOMMUs often map 1 MiB, 64 KiB and 4 KiB.
pub(crate) const ORDERS: [u32; 3] = [8, 4, 0];

/// Sixteenths of what is filled ahead of need that are in blocks of each order.
const SHARES: [usize; ORDERS.len()] = [12, 3, 1];

/// Dirty pages that are worth waking the worker: 1 MiB.
const MANY_DIRTY: usize = 256;

/// Pages that the worker zeroes in a spell: 16 MiB.
const SPELL: usize = 4096;

/// Milliseconds between two spells.
const PAUSE: Msecs = 4;

/// For so long no shelf is filled after the kernel ran short of memory.
const RESTRAINT: Delta = Delta::from_secs(10);

/// Blocks that are put away under one hold of the lock.
const AT_ONCE: usize = 32;

/// Blocks of one order.
struct Shelf {
    order: u32,
    clean: Pile,
    dirty: Pile,
    /// Blocks that shall be here ahead of need.
    level: usize,
}

/// What changes.
struct Inside {
    shelves: [Shelf; ORDERS.len()],
    /// Pages on all shelves, and those that the worker has in its hands.
    pages: usize,
    /// Those of them that are dirty.
    dirty: usize,
    /// Whether the worker will come without being called.
    is_called: bool,
    /// When the kernel last ran short of memory.
    shrunk: Option<Instant<Monotonic>>,
}

/// How many pages the pool has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Zeroed.
    pub(crate) clean: usize,
    /// To be zeroed.
    pub(crate) dirty: usize,
}

/// Who is to be called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nobody,
    Worker,
}

/// What the worker does next.
enum Job {
    Zero(Block),
    Fill(u32),
}

/// The pool.
#[pin_data]
pub(crate) struct Pool {
    /// Pages that it keeps at most.
    limit: usize,
    #[pin]
    inside: SpinLock<Inside>,
}

impl Pool {
    /// An empty pool that keeps up to `percent` of the machine's memory, and has
    /// `ahead` percent of that filled ahead of need.
    pub(crate) fn new(percent: u32, ahead: u32) -> Result<Arc<Self>> {
        let limit = if pages::accounting() {
            0
        } else {
            share(pages::total(), percent)
        };
        Self::with_limit(limit, share(limit, ahead))
    }

    /// An empty pool that keeps up to `limit` pages, `ahead` of them ahead of need.
    fn with_limit(limit: usize, ahead: usize) -> Result<Arc<Self>> {
        let shelf = |index: usize| Shelf {
            order: ORDERS[index],
            clean: Pile::new(ORDERS[index]),
            dirty: Pile::new(ORDERS[index]),
            level: (ahead * SHARES[index] / 16) >> ORDERS[index],
        };
        Arc::pin_init(
            pin_init!(Self {
                limit,
                inside <- new_spinlock!(Inside {
                    shelves: core::array::from_fn(shelf),
                    pages: 0,
                    dirty: 0,
                    is_called: false,
                    shrunk: None,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Takes a zeroed block of the order that [`ORDERS`] has at `class`, if there is
    /// a block.
    #[inline]
    pub(crate) fn take(&self, class: usize, heap: &Arc<Heap>) -> Option<Block> {
        if self.limit == 0 {
            return None;
        }
        let (taken, wanted) = {
            let mut inside = self.inside.lock();
            (inside.take(class), inside.after_taking(class))
        };
        if wanted == Wanted::Worker {
            Heap::wake(heap);
        }
        let (mut block, is_clean) = taken?;
        if !is_clean {
            block.zero();
        }
        Some(block)
    }

    /// Puts the blocks of a buffer on their shelves, as far as there is room.
    pub(crate) fn put(&self, blocks: Blocks) -> Wanted {
        if self.limit == 0 {
            return Wanted::Nobody;
        }
        match blocks {
            Blocks::One(block) => self.put_some(&mut core::iter::once(block)),
            Blocks::Many(blocks) => {
                let mut blocks = blocks.into_iter().peekable();
                let mut wanted = Wanted::Nobody;
                while blocks.peek().is_some() {
                    if self.put_some(&mut blocks) == Wanted::Worker {
                        wanted = Wanted::Worker;
                    }
                }
                wanted
            }
        }
    }

    fn put_some(&self, blocks: &mut impl Iterator<Item = Block>) -> Wanted {
        let mut inside = self.inside.lock();
        for block in blocks.take(AT_ONCE) {
            if inside.pages + block.pages() > self.limit || !block.is_reusable() {
                let wanted = inside.after_putting();
                // It is freed outside of the lock.
                drop(inside);
                drop(block);
                return wanted;
            }
            inside.put_dirty(block);
        }
        inside.after_putting()
    }

    /// How many pages are on the shelves.
    pub(crate) fn held(&self) -> Held {
        let inside = self.inside.lock();
        Held {
            clean: inside.pages - inside.dirty,
            dirty: inside.dirty,
        }
    }

    /// How many pages it has.
    pub(crate) fn pages(&self) -> usize {
        self.inside.lock().pages
    }

    /// Does a spell of work, and answers when to go on, if there is more to do.
    pub(crate) fn work(&self) -> Option<Msecs> {
        let mut done = 0;
        while done < SPELL {
            let job = self.inside.lock().next_job(self.limit)?;
            match job {
                Job::Zero(mut block) => {
                    done += block.pages();
                    block.zero();
                    self.inside.lock().put_zeroed(block);
                }
                Job::Fill(order) => {
                    let Ok(block) = Block::allocate(order, Effort::Free) else {
                        self.inside.lock().give_up(order);
                        continue;
                    };
                    done += block.pages();
                    self.inside.lock().put_new(block);
                }
            }
        }
        Some(PAUSE)
    }
}

impl Inside {
    fn shelf(&mut self, order: u32) -> Option<&mut Shelf> {
        self.shelves.iter_mut().find(|shelf| shelf.order == order)
    }

    /// Takes a block, a clean one if there is one, and tells whether it is.
    fn take(&mut self, class: usize) -> Option<(Block, bool)> {
        let shelf = self.shelves.get_mut(class)?;
        if let Some(block) = shelf.clean.pop() {
            self.pages -= block.pages();
            return Some((block, true));
        }
        let block = shelf.dirty.pop()?;
        self.pages -= block.pages();
        self.dirty -= block.pages();
        Some((block, false))
    }

    /// Whether the worker is to be called now that the clean blocks of an order are
    /// fewer, or none.
    fn after_taking(&mut self, class: usize) -> Wanted {
        let Some(shelf) = self.shelves.get(class) else {
            return Wanted::Nobody;
        };
        let is_low = 2 * shelf.clean.len() < shelf.level;
        if is_low && (!shelf.dirty.is_empty() || !self.is_restrained()) {
            self.call()
        } else {
            Wanted::Nobody
        }
    }

    fn put_dirty(&mut self, block: Block) {
        let pages = block.pages();
        if let Some(shelf) = self.shelf(block.order()) {
            shelf.dirty.push(block);
            self.pages += pages;
            self.dirty += pages;
        }
    }

    /// Whether the worker is to be called now that there are more dirty blocks.
    fn after_putting(&mut self) -> Wanted {
        if self.dirty >= MANY_DIRTY {
            self.call()
        } else {
            Wanted::Nobody
        }
    }

    fn call(&mut self) -> Wanted {
        if core::mem::replace(&mut self.is_called, true) {
            Wanted::Nobody
        } else {
            Wanted::Worker
        }
    }

    /// What the worker does next. The pages that it gets or is to bring count as held
    /// meanwhile.
    fn next_job(&mut self, limit: usize) -> Option<Job> {
        for shelf in &mut self.shelves {
            if let Some(block) = shelf.dirty.pop() {
                return Some(Job::Zero(block));
            }
        }
        if !self.is_restrained() {
            for shelf in &self.shelves {
                let pages = 1 << shelf.order;
                if shelf.clean.len() < shelf.level && self.pages + pages <= limit {
                    self.pages += pages;
                    return Some(Job::Fill(shelf.order));
                }
            }
        }
        self.is_called = false;
        None
    }

    /// Ends [`Job::Zero`].
    fn put_zeroed(&mut self, block: Block) {
        self.dirty -= block.pages();
        self.put_new(block);
    }

    /// Ends [`Job::Fill`].
    fn put_new(&mut self, block: Block) {
        if let Some(shelf) = self.shelf(block.order()) {
            shelf.clean.push(block);
        }
    }

    /// Ends [`Job::Fill`] without a block.
    fn give_up(&mut self, order: u32) {
        self.pages -= 1 << order;
        self.restrain();
    }

    fn restrain(&mut self) {
        self.shrunk = Some(Instant::now());
    }

    /// Whether the kernel was short of memory a moment ago.
    fn is_restrained(&self) -> bool {
        self.shrunk
            .is_some_and(|shrunk| shrunk.elapsed() < RESTRAINT)
    }

    /// Takes a block to give it back: one that costs least to have again.
    fn sacrifice(&mut self) -> Option<Block> {
        for shelf in self.shelves.iter_mut().rev() {
            if let Some(block) = shelf.dirty.pop() {
                self.pages -= block.pages();
                self.dirty -= block.pages();
                return Some(block);
            }
        }
        for shelf in self.shelves.iter_mut().rev() {
            if let Some(block) = shelf.clean.pop() {
                self.pages -= block.pages();
                return Some(block);
            }
        }
        None
    }
}

impl Shrink for Pool {
    fn count(&self) -> usize {
        self.pages()
    }

    fn shrink(&self, pages: usize) -> usize {
        self.inside.lock().restrain();
        let mut given = 0;
        while given < pages {
            // It is freed outside of the lock.
            let block = self.inside.lock().sacrifice();
            let Some(block) = block else {
                break;
            };
            given += block.pages();
        }
        given
    }
}

/// So many percent of a number of pages.
fn share(pages: usize, percent: u32) -> usize {
    pages / 100 * percent.min(100) as usize
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_system_pool)]
mod tests {
    use super::*;

    fn pool() -> Result<Arc<Pool>> {
        Pool::with_limit(4096, 400)
    }

    fn put(pool: &Pool, order: u32) -> Result {
        let block = Block::allocate(order, Effort::Free)?;
        pool.put(Blocks::One(block));
        Ok(())
    }

    #[test]
    fn a_share_is_never_more_than_all() {
        assert_eq!(share(1000, 0), 0);
        assert_eq!(share(1000, 5), 50);
        assert_eq!(share(1000, 100), 1000);
        assert_eq!(share(1000, u32::MAX), 1000);
    }

    #[test]
    fn what_is_put_is_dirty_until_the_worker_comes() -> Result {
        let pool = pool()?;
        put(&pool, 0)?;
        put(&pool, 4)?;
        assert_eq!(
            pool.held(),
            Held {
                clean: 0,
                dirty: 17
            }
        );
        while pool.work().is_some() {}
        assert_eq!(pool.held().dirty, 0);
        assert!(pool.held().clean >= 17);
        Ok(())
    }

    #[test]
    fn everything_is_given_back() -> Result {
        let pool = pool()?;
        for order in ORDERS {
            put(&pool, order)?;
        }
        let held = pool.pages();
        assert_eq!(pool.count(), held);
        assert_eq!(pool.shrink(held), held);
        assert_eq!(pool.held(), Held { clean: 0, dirty: 0 });
        assert_eq!(pool.shrink(1), 0);
        Ok(())
    }

    #[test]
    fn nothing_is_filled_after_a_shortage() -> Result {
        let pool = pool()?;
        put(&pool, 0)?;
        pool.shrink(1);
        assert_eq!(pool.work(), None);
        assert_eq!(pool.pages(), 0);
        Ok(())
    }

    #[test]
    fn there_is_room_for_no_more_than_the_limit() -> Result {
        let pool = pool()?;
        while pool.pages() + 256 <= pool.limit {
            put(&pool, 8)?;
        }
        let full = pool.pages();
        put(&pool, 8)?;
        assert_eq!(pool.pages(), full);
        Ok(())
    }

    #[test]
    fn a_full_pool_is_cleared_as_well() -> Result {
        let pool = pool()?;
        while pool.pages() + 256 <= pool.limit {
            put(&pool, 8)?;
        }
        while pool.work().is_some() {}
        assert_eq!(pool.held().dirty, 0);
        let mut blocks = KVVec::new();
        loop {
            // Not under the lock: the vector may have to grow.
            let taken = pool.inside.lock().take(0);
            let Some((block, _)) = taken else {
                break;
            };
            blocks.push(block, GFP_KERNEL)?;
        }
        blocks.push(Block::allocate(8, Effort::Free)?, GFP_KERNEL)?;
        // The last one finds no room, and the worker has all the others to zero.
        assert!(pool.put(Blocks::Many(blocks)) == Wanted::Worker);
        Ok(())
    }

    #[test]
    fn a_pool_of_nothing_keeps_nothing() -> Result {
        let pool = Pool::new(0, 100)?;
        put(&pool, 0)?;
        assert_eq!(pool.pages(), 0);
        assert_eq!(pool.work(), None);
        Ok(())
    }
}
