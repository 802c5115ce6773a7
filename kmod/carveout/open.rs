// SPDX-License-Identifier: GPL-2.0

//! Buffers of heaps that are not protected.
//!
//! A buffer is one range, or in a heap with a chunk size as many chunks as it needs,
//! each of them wherever there is one. It takes all of them or none. Devices see it
//! either way; the CPU if the heap's node has `ringfence,cpu-access`.

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    attachment::{
        self,
        CpuView,
        Direction,
        Mapping,
        PhysRange, //
    },
    dma_buf::{
        self,
        DmaBuf,
        Exporter,
        Info, //
    },
    region_buffer,
    registry::{
        self,
        Heap,
        Request, //
    }, //
};

use crate::{
    carveout::Carveout,
    ranges::{
        RangeState,
        Wish, //
    },
    reservation::Reservation,
    scrubber, //
};

/// The memory of a buffer, which is free again when this is dropped.
struct Parts {
    first: Reservation,
    /// More chunks, if there are several.
    others: KVVec<Reservation>,
}

impl Parts {
    fn carveout(&self) -> &Arc<Carveout> {
        self.first.carveout()
    }

    fn is_contiguous(&self) -> bool {
        self.others.is_empty()
    }

    fn ranges(&self) -> Result<KVVec<PhysRange>> {
        let mut ranges = KVVec::with_capacity(1 + self.others.len(), GFP_KERNEL)?;
        ranges.push(self.first.range(), GFP_KERNEL)?;
        for reservation in &self.others {
            ranges.push(reservation.range(), GFP_KERNEL)?;
        }
        Ok(ranges)
    }

    /// Takes note that others may write to it from now on.
    fn give_out(&mut self) {
        self.first.give_out();
        self.others.iter_mut().for_each(Reservation::give_out);
    }
}

/// A buffer that the CPU does not see.
struct ForDevices {
    parts: Parts,
    /// Bytes that were asked for; the parts may have more.
    size: u64,
}

#[vtable]
impl Exporter for ForDevices {
    fn attach(&self, device: &Device) -> Result {
        if self.parts.is_contiguous() {
            return Ok(());
        }
        attachment::admit_scattered(device, self.parts.carveout().heap())
    }

    fn map(&self, device: &Device, direction: Direction) -> Result<KBox<Mapping>> {
        if self.parts.is_contiguous() {
            let range = PhysRange {
                start: self.parts.first.range().start,
                size: self.size,
            };
            return Mapping::new(device, range, direction);
        }
        let ranges = self.parts.ranges()?;
        Mapping::of_parts(device, &ranges, self.size, CpuView::Nothing, direction)
    }

    fn begin_cpu_access(&self) -> Result {
        Ok(())
    }

    fn info(&self) -> Result<Info> {
        Ok(Info {
            heap: self.parts.carveout().heap().clone(),
            flags: if self.parts.is_contiguous() {
                registry::CONTIGUOUS
            } else {
                0
            },
            handle: 0,
            use_case: 0,
        })
    }
}

/// What keeps the memory of a buffer that the CPU sees.
struct ForAll(Parts);

#[vtable]
impl region_buffer::Owner for ForAll {
    fn heap(&self) -> &Arc<Heap> {
        self.0.carveout().heap()
    }
}

/// Makes a buffer.
///
/// # Errors
///
/// `ENOMEM` when nothing fits; `EAGAIN` when something may after a wait that the
/// caller does not want; `EINTR`.
pub(crate) fn allocate(carveout: &Arc<Carveout>, request: &Request, wish: Wish) -> Result<DmaBuf> {
    let settings = carveout.settings();
    let mut parts = match settings.chunk {
        None => Parts {
            first: reserve(carveout, wish, RangeState::Open, request.no_wait)?,
            others: KVVec::new(),
        },
        Some(chunk) => gather(carveout, wish, chunk, request.no_wait)?,
    };
    parts.give_out();
    if settings.cpu_access {
        let ranges = parts.ranges()?;
        let owner = KBox::new(ForAll(parts), GFP_KERNEL)?;
        let region = carveout.region().clone();
        return region_buffer::export(owner, region, ranges, request.size, request.fd_flags);
    }
    let buffer = ForDevices {
        parts,
        size: wish.size,
    };
    let buffer = KBox::new(buffer, GFP_KERNEL)?;
    dma_buf::export(carveout.heap(), buffer, request.size, request.fd_flags)
}

/// Takes one range, which is to be shown and counted as `state`.
fn reserve(
    carveout: &Arc<Carveout>,
    wish: Wish,
    state: RangeState,
    no_wait: bool,
) -> Result<Reservation> {
    match Reservation::clean_as(carveout, wish, state)? {
        Some(reservation) => Ok(reservation),
        // Whether it fits after a wait would take a look at every range, with the lock held for which
        // others may wait.
        None if no_wait => Err(match carveout.ranges().lock().has_dirty(wish.size) {
            true => EAGAIN,
            false => ENOMEM,
        }),
        None => {
            let reservation = scrubber::clean_now(carveout, wish)?;
            reservation.set_state(state);
            Ok(reservation)
        }
    }
}

/// Takes chunks for the whole wish.
fn gather(carveout: &Arc<Carveout>, wish: Wish, chunk: u64, no_wait: bool) -> Result<Parts> {
    // Without trying: taking all of a region chunk by chunk is work for nothing then.
    let count = wish.size.div_ceil(chunk);
    if count > carveout.range().size / chunk {
        return Err(ENOMEM);
    }
    let each = Wish {
        size: chunk,
        ..wish
    };
    // CAST: A region's chunks have records in memory.
    let mut others = KVVec::with_capacity(count.saturating_sub(1) as usize, GFP_KERNEL)?;
    let first = reserve(carveout, each, RangeState::Open, no_wait)?;
    for _ in 1..count {
        let reservation = reserve(carveout, each, RangeState::Further, no_wait)?;
        others
            .push_within_capacity(reservation)
            .map_err(|_| ENOMEM)?;
    }
    Ok(Parts { first, others })
}
