// SPDX-License-Identifier: GPL-2.0

//! The system heap: buffers of ordinary pages, as large as these come.
//!
//! It behaves as the kernel's own system heap does, and keeps the pages that are
//! given back in a pool, from which they are handed out again without the page
//! allocator's part in it and, if there was time, already zeroed.
//!
//! - [`heap`] gathers the pages of a buffer, the backend of the heap;
//! - [`pool`] keeps pages of each order.
//!
//! # Which pages
//!
//! Blocks of 1 MiB first, then of 64 KiB, then single pages: what is physically
//! contiguous costs an IOMMU less. The large ones are only taken where they are
//! free; for single pages memory is reclaimed, but nobody is killed for them, so
//! that a request too large fails with ENOMEM and leaves everybody else alone.
//!
//! A dma-buf pins its pages from the first moment on: they are in an exporter's
//! hands, and may be mapped for devices that the kernel can't ask to let go. So
//! they are not allocated as movable, which would put them where memory must stay
//! free of such pages (CMA, memory that may be unplugged). What the kernel can
//! move are the pages of others, to make room for large blocks: that is
//! compaction, which the page allocator does in the background.

#![deny(unsafe_code)]

use kernel::prelude::*;
use ringfence_core::{
    registry::{
        Attachment,
        Heap, //
    },
    shrinker::Shrinker, //
};

use crate::{
    heap::SystemHeap,
    pool::Pool, //
};

mod heap;
mod pool;

/// The module.
///
/// The order of the fields is that of their drop: the heap ends first, and then
/// nobody asks for the pool's pages any more.
struct SystemModule {
    _attachment: Attachment,
    _shrinker: Shrinker<Pool>,
}

impl kernel::Module for SystemModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let name = if *module_parameters::prefix.value_ref() {
            c"ringfence-system"
        } else {
            c"system"
        };
        let heap = Heap::named(name)?;
        let pool = Pool::new(
            *module_parameters::pool_percent.value_ref(),
            *module_parameters::refill_percent.value_ref(),
        )?;
        let shrinker = Shrinker::new(c"ringfence_system", pool.clone())?;
        let system = SystemHeap::new(heap.clone(), pool)?;
        Ok(Self {
            _attachment: Heap::attach(&heap, system)?,
            _shrinker: shrinker,
        })
    }
}

module! {
    type: SystemModule,
    name: "ringfence_system",
    authors: ["Ringfence"],
    description: "dma-buf heap of ordinary pages, with a pool of zeroed ones",
    license: "GPL",
    params: {
        prefix: bool {
            default: false,
            description: "Call the heap ringfence-system, to have it beside the kernel's own",
        },
        pool_percent: u32 {
            default: 5,
            description: "Share of the machine's memory that the pool keeps at most; 0: no pool",
        },
        refill_percent: u32 {
            default: 10,
            description: "Share of the pool that is filled ahead of need, in the background",
        },
    },
}
