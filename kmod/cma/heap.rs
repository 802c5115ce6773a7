// SPDX-License-Identifier: GPL-2.0

//! An area as the backend of a heap.

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    cma::{
        self,
        Area,
        Contiguous, //
    },
    dma_buf::DmaBuf,
    page_buffer::{
        self,
        Fill,
        Owner, //
    },
    registry::{
        self,
        Abilities,
        Backend,
        Heap,
        HeapInfo,
        Request, //
    }, //
};

/// The largest alignment that can be asked for, in bytes.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// A heap on an area.
pub(crate) struct CmaHeap {
    heap: Arc<Heap>,
    area: Area,
    memory: &'static CStr,
}

impl CmaHeap {
    /// `memory` is the name of the area for control groups.
    pub(crate) fn new(heap: Arc<Heap>, area: Area, memory: &'static CStr) -> Self {
        Self { heap, area, memory }
    }
}

/// To which power of two of pages the start of a buffer is aligned, as the kernel's
/// own CMA heap does it: by its size, up to what the kernel is configured for; and
/// beyond that if it was asked for.
fn order(pages: usize, alignment: u64) -> u32 {
    let by_size = pages.next_power_of_two().trailing_zeros();
    let asked = (alignment >> PAGE_SHIFT).max(1).trailing_zeros();
    by_size.min(cma::MAX_ORDER).max(asked)
}

/// The heap's side of a buffer.
struct Buffer(Arc<CmaHeap>);

#[vtable]
impl Owner for Buffer {
    type Memory = Contiguous;

    fn heap(&self) -> &Arc<Heap> {
        &self.0.heap
    }

    fn release(self, memory: Contiguous) {
        drop(memory);
    }
}

#[vtable]
impl Backend for CmaHeap {
    fn allocate(this: &Arc<Self>, request: &Request) -> Result<DmaBuf> {
        let pages = request.size >> PAGE_SHIFT;
        let memory = this.area.allocate(pages, order(pages, request.alignment))?;
        page_buffer::export(
            Buffer(this.clone()),
            memory,
            Fill::OnFault,
            request.fd_flags,
        )
    }

    fn info(&self) -> HeapInfo {
        let figures = self.area.figures();
        HeapInfo {
            flags: registry::CONTIGUOUS | registry::CPU_ACCESS | registry::ONLINE,
            size: figures.size,
            free: figures.free,
            largest_free: figures.largest_free,
            buffers: self.heap.buffers(),
            // CAST: A page is small.
            alignment: PAGE_SIZE as u32,
            ..HeapInfo::default()
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            properties: registry::CONTIGUOUS | registry::CPU_ACCESS,
            max_alignment: MAX_ALIGNMENT,
            ..Abilities::default()
        }
    }

    fn memory(&self) -> Option<&CStr> {
        Some(self.memory)
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_cma)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_by_their_size() {
        assert_eq!(order(1, 0), 0);
        assert_eq!(order(2, 0), 1);
        assert_eq!(order(3, 0), 2);
        assert_eq!(order(1 << cma::MAX_ORDER, 0), cma::MAX_ORDER);
        assert_eq!(order(1 << 20, 0), cma::MAX_ORDER);
    }

    #[test]
    fn what_is_asked_for_is_not_cut() {
        assert_eq!(order(1, 1), 0);
        assert_eq!(order(1, 1 << PAGE_SHIFT), 0);
        assert_eq!(order(1, MAX_ALIGNMENT), MAX_ALIGNMENT.trailing_zeros() - 12);
        assert_eq!(order(16, 2 << PAGE_SHIFT), 4);
    }
}
