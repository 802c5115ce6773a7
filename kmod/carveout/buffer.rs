// SPDX-License-Identifier: GPL-2.0

//! What a dma-buf of a protected carveout exports.

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    attachment::{
        Direction,
        Mapping,
        PhysRange, //
    },
    dma_buf::{
        Exporter,
        Info, //
    },
    registry, //
};

use crate::{
    carveout::Carveout,
    region::Enclosed,
    secure_world::Fence, //
};

enum Backing {
    Fenced(Fence),
    Enclosed(Enclosed),
}

/// A range of a carveout that the normal world can't touch. Dropping it gives the
/// range back.
pub(crate) struct Buffer {
    carveout: Arc<Carveout>,
    backing: Backing,
    /// Bytes that were asked for; the range may be longer.
    size: u64,
}

impl Buffer {
    /// A buffer with a fence of its own.
    pub(crate) fn fenced(carveout: Arc<Carveout>, fence: Fence, size: u64) -> Self {
        Self {
            carveout,
            backing: Backing::Fenced(fence),
            size,
        }
    }

    /// A buffer in a region that is fenced as a whole.
    pub(crate) fn enclosed(carveout: Arc<Carveout>, enclosed: Enclosed, size: u64) -> Self {
        Self {
            carveout,
            backing: Backing::Enclosed(enclosed),
            size,
        }
    }

    /// Where it is.
    ///
    /// # Errors
    ///
    /// `EIO` when the secure world has lost the buffer.
    fn start(&self) -> Result<u64> {
        Ok(match &self.backing {
            Backing::Fenced(fence) => {
                fence.handle()?;
                fence.range().start
            }
            Backing::Enclosed(enclosed) => enclosed.range()?.start,
        })
    }
}

#[vtable]
impl Exporter for Buffer {
    fn attach(&self, device: &Device) -> Result {
        self.start()?;
        match self.carveout.protection() {
            Some(protection) if !protection.admits(device) => Err(EACCES),
            _ => Ok(()),
        }
    }

    fn map(&self, device: &Device, direction: Direction) -> Result<KBox<Mapping>> {
        let range = PhysRange {
            start: self.start()?,
            size: self.size,
        };
        Mapping::new(device, range, direction)
    }

    fn begin_cpu_access(&self) -> Result {
        Err(EACCES)
    }

    fn info(&self) -> Result<Info> {
        Ok(Info {
            heap: self.carveout.heap().clone(),
            flags: registry::CONTIGUOUS | registry::PROTECTED,
            handle: match &self.backing {
                Backing::Fenced(fence) => fence.confirmed_handle()?,
                Backing::Enclosed(enclosed) => enclosed.confirmed_handle()?,
            },
            use_case: self
                .carveout
                .protection()
                .map_or(0, |protection| protection.use_case.raw()),
        })
    }
}
