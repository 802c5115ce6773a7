// SPDX-License-Identifier: GPL-2.0

//! For measurements only: a heap whose buffers have no memory behind them.
//!
//! Its allocations take the same way as those of every Ringfence heap (the
//! ioctl, the registry, the export as a dma-buf, the file descriptor) with no
//! allocator at the end of it. What they cost is the floor under the cost of any
//! heap's.

#![deny(unsafe_code)]

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    attachment::{
        Direction,
        Mapping, //
    },
    dma_buf::{
        self,
        DmaBuf,
        Exporter,
        Info, //
    },
    registry::{
        self,
        Abilities,
        Attachment,
        Backend,
        Heap,
        HeapInfo,
        Request, //
    }, //
};

/// The backend.
struct Floor {
    heap: Arc<Heap>,
}

#[vtable]
impl Backend for Floor {
    fn allocate(this: &Arc<Self>, request: &Request) -> Result<DmaBuf> {
        let buffer = KBox::new(
            Buffer {
                heap: this.heap.clone(),
            },
            GFP_KERNEL,
        )?;
        dma_buf::export(&this.heap, buffer, request.size, request.fd_flags)
    }

    fn info(&self) -> HeapInfo {
        HeapInfo {
            flags: registry::ONLINE,
            ..HeapInfo::default()
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            // There is nothing to wait for.
            no_wait: true,
            ..Abilities::default()
        }
    }
}

/// A buffer without memory, which no device and no CPU can use.
struct Buffer {
    heap: Arc<Heap>,
}

#[vtable]
impl Exporter for Buffer {
    fn attach(&self, _device: &Device) -> Result {
        Err(EACCES)
    }

    fn map(&self, _device: &Device, _direction: Direction) -> Result<KBox<Mapping>> {
        Err(EACCES)
    }

    fn begin_cpu_access(&self) -> Result {
        Err(EACCES)
    }

    fn info(&self) -> Result<Info> {
        Ok(Info {
            heap: self.heap.clone(),
            flags: 0,
            handle: 0,
            use_case: 0,
        })
    }
}

struct FloorModule {
    _attachment: Attachment,
}

impl kernel::Module for FloorModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let heap = Heap::named(c"floor")?;
        let floor = Arc::new(Floor { heap: heap.clone() }, GFP_KERNEL)?;
        Ok(Self {
            _attachment: Heap::attach(&heap, floor)?,
        })
    }
}

module! {
    type: FloorModule,
    name: "ringfence_floor",
    authors: ["Ringfence"],
    description: "A dma-buf heap without memory, for measurements",
    license: "GPL",
}
