// SPDX-License-Identifier: GPL-2.0

//! The core of the Ringfence heaps.
//!
//! Three jobs live here, so that the heap modules need no unsafe code:
//!
//! - **Safe abstractions** of what the kernel crate lacks: dma-bufs for devices
//!   only ([`dma_buf`], [`attachment`]) and for the CPU as well, made of pages
//!   ([`page_buffer`], [`scatter_list`]) or of reserved memory ([`region_buffer`];
//!   `cpu_buffer` has what these two share),
//!   pages ([`pages`], [`shrinker`]), reserved memory ([`reserved_mem`],
//!   [`firmware_node`]) and the TEE ([`tee`], [`tee_bus`]).
//! - **The registry** ([`registry`]). The kernel has no way to take a dma-buf
//!   heap back, so this module registers heaps once and never unloads, while
//!   the modules that serve them come and go behind it.
//! - **`/dev/ringfence`** (`chardev`), which tells what a buffer is and which
//!   heaps there are.

use kernel::{
    miscdevice::MiscDeviceRegistration,
    prelude::*,
    InPlaceModule, //
};

pub mod attachment;
mod bindings;
mod chardev;
#[cfg(CONFIG_DMA_CMA)]
pub mod cma;
mod cpu_buffer;
pub mod dma_buf;
mod dma_heap;
mod dmem;
pub mod firmware_node;
pub mod inject;
mod kernel_mapping;
pub mod page_buffer;
pub mod pages;
mod region_area;
pub mod region_buffer;
mod region_mapping;
pub mod registry;
pub mod reserved_mem;
pub mod scatter_list;
pub mod shrinker;
pub mod slot;
pub mod task;
pub mod tee;
pub mod tee_bus;

#[pin_data]
struct Core {
    #[pin]
    chardev: MiscDeviceRegistration<chardev::RingfenceDevice>,
}

impl InPlaceModule for Core {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: This is the module's initialisation, which runs once and before anybody else can
        // call into this module.
        unsafe { slot::init() };
        // SAFETY: As above.
        unsafe { registry::init() };
        // SAFETY: As above.
        unsafe { dmem::init() };

        try_pin_init!(Self {
            chardev <- MiscDeviceRegistration::register(chardev::OPTIONS),
            _: {
                registry::start()?;
                inject::init();
                // SAFETY: This module is being initialised, so it is alive.
                unsafe { bindings::ringfence_module_get(module.as_ptr()) };
            },
        })
    }
}

module! {
    type: Core,
    name: "ringfence_core",
    authors: ["Ringfence"],
    description: "Registry and abstractions of the Ringfence dma-buf heaps",
    license: "GPL",
    imports_ns: ["DMA_BUF", "DMA_BUF_HEAP"],
}
