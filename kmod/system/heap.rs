// SPDX-License-Identifier: GPL-2.0

//! The backend of the heap: gathers pages for a buffer.

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc,
    time::Msecs, //
};
use ringfence_core::{
    dma_buf::DmaBuf,
    inject::{
        self,
        Point, //
    },
    page_buffer::{
        self,
        Fill,
        Owner, //
    },
    pages::{
        self,
        Block,
        Blocks,
        Effort, //
    },
    registry::{
        self,
        Backend,
        Heap,
        HeapInfo,
        Request, //
    },
    task, //
};

use crate::pool::{
    Pool,
    Wanted,
    ORDERS, //
};

/// Pages from which on a request is compared with what could be had at all, before
/// anything is reclaimed for it: 16 MiB.
const LARGE: usize = (16 << 20) >> PAGE_SHIFT;

pub(crate) struct SystemHeap {
    heap: Arc<Heap>,
    pool: Arc<Pool>,
}

impl SystemHeap {
    pub(crate) fn new(heap: Arc<Heap>, pool: Arc<Pool>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { heap, pool }, GFP_KERNEL)?)
    }

    /// Zeroed blocks of so many pages together.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINTR` when a fatal signal is pending.
    fn gather(&self, pages: usize) -> Result<Blocks> {
        if pages >= LARGE
            && (pages > pages::total() || pages > pages::obtainable() + self.pool.pages())
        {
            return Err(ENOMEM);
        }
        let mut left = pages;
        let mut class = if pages == 1 { ORDERS.len() - 1 } else { 0 };
        let first = self.block(left, &mut class)?;
        left -= first.pages();
        if left == 0 {
            return Ok(Blocks::One(first));
        }
        let mut blocks = KVVec::with_capacity(fewest(pages), GFP_KERNEL)?;
        blocks.push(first, GFP_KERNEL)?;
        while left > 0 {
            if task::is_killed() {
                return Err(EINTR);
            }
            let block = self.block(left, &mut class)?;
            left -= block.pages();
            blocks.push(block, GFP_KERNEL)?;
        }
        Ok(Blocks::Many(blocks))
    }

    /// The largest block that is to be had and has no more than `left` pages. The
    /// orders that are not are not tried again for the same buffer: `class` is the
    /// first one to try.
    #[inline]
    fn block(&self, left: usize, class: &mut usize) -> Result<Block> {
        inject::check(Point::Pages)?;
        while let Some(&order) = ORDERS.get(*class) {
            if left >> order != 0 {
                if let Some(block) = self.pool.take(*class, &self.heap) {
                    return Ok(block);
                }
                let effort = if order == 0 {
                    Effort::Reclaim
                } else {
                    Effort::Free
                };
                if let Ok(block) = Block::allocate(order, effort) {
                    return Ok(block);
                }
            }
            *class += 1;
        }
        Err(ENOMEM)
    }
}

/// How many blocks so many pages are, if all of them are as large as can be.
fn fewest(pages: usize) -> usize {
    let mut left = pages;
    ORDERS
        .iter()
        .map(|order| {
            let blocks = left >> order;
            left -= blocks << order;
            blocks
        })
        .sum()
}

#[vtable]
impl Backend for SystemHeap {
    fn allocate(this: &Arc<Self>, request: &Request) -> Result<DmaBuf> {
        let blocks = this.gather(request.size >> PAGE_SHIFT)?;
        page_buffer::export(Buffer(this.clone()), blocks, Fill::AtOnce, request.fd_flags)
    }

    fn info(&self) -> HeapInfo {
        let held = self.pool.held();
        let size = bytes(pages::total());
        // What others have of it changes all the time, and /proc/meminfo tells it. As buffers
        // need no run, the longest one that fits is all.
        let free = size.saturating_sub(self.heap.used());
        HeapInfo {
            flags: registry::CPU_ACCESS | registry::ONLINE,
            size,
            free,
            clean: bytes(held.clean),
            dirty: bytes(held.dirty),
            largest_free: free,
            quarantined: 0,
            protected_bytes: 0,
            buffers: self.heap.buffers(),
            use_case: 0,
            // CAST: A page is small.
            alignment: PAGE_SIZE as u32,
        }
    }

    fn background(&self) -> Option<Msecs> {
        self.pool.work()
    }
}

/// Bytes of so many pages.
fn bytes(pages: usize) -> u64 {
    (pages as u64) << PAGE_SHIFT
}

/// The heap's side of a buffer.
struct Buffer(Arc<SystemHeap>);

#[vtable]
impl Owner for Buffer {
    type Memory = Blocks;

    fn heap(&self) -> &Arc<Heap> {
        &self.0.heap
    }

    fn release(self, blocks: Blocks) {
        let Self(system) = self;
        if system.pool.put(blocks) == Wanted::Worker {
            Heap::wake(&system.heap);
        }
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_system_heap)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_blocks_come_first() {
        assert_eq!(fewest(1), 1);
        assert_eq!(fewest(16), 1);
        assert_eq!(fewest(256), 1);
        assert_eq!(fewest(256 + 16 + 1), 3);
        assert_eq!(fewest(256 - 1), 15 + 15);
    }
}
