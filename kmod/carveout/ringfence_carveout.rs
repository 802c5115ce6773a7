// SPDX-License-Identifier: GPL-2.0

//! Heaps on carveouts: reserved memory that Linux does not map.
//!
//! A heap hands out contiguous ranges of its region. There are two kinds, by the
//! compatible of the heap's node:
//!
//! - `ringfence,carveout-heap`: a range is zero when it is handed out. What was
//!   given back is zeroed in the background, or when it is needed before that.
//!   The CPU has no access to it all the same, unless the node asks for that.
//! - `ringfence,protected-heap`: a range is fenced off from the whole normal
//!   world by a trusted application before it is handed out, and zeroed there
//!   both when the fence goes up and before it comes down.
//!
//! Who does what:
//!
//! - [`driver`] binds to the heap nodes, [`devicetree`] reads them;
//! - [`carveout`] is a region with its allocator, the backend of a heap; who has
//!   which range of it is in [`ranges`], and [`place`] finds room among them;
//! - [`scrubber`] zeroes what nobody has;
//! - [`open`] makes buffers without protection, [`buffer`] is a protected one;
//! - [`secure_world`] is the way to the trusted application, [`ledger`] keeps the
//!   protected ranges in step with it, [`application`] sends its commands.
//!
//! # Locks
//!
//! In this order: the secure world's link (a mutex, held across its commands),
//! the list of carveouts (a mutex), a carveout's dirty memory (a mutex, held while
//! one window of it is zeroed), its ranges (a spinlock, held for one operation of
//! the allocator; when dirty memory is taken, for one pass over all ranges).

#![deny(unsafe_code)]

use core::ops::Deref;

use kernel::{
    driver::Registration,
    new_mutex,
    platform,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    InPlaceModule,
    ModuleMetadata, //
};
use ringfence_core::{
    slot::{
        Published,
        Slot, //
    },
    tee_bus, //
};

use crate::{
    carveout::Carveout,
    driver::HeapDriver,
    secure_world::SecureWorld, //
};

mod application;
mod buffer;
mod carveout;
#[path = "../../ta/proto/src/command.rs"]
#[expect(
    clippy::wrong_self_convention,
    dead_code,
    unreachable_pub,
    reason = "the file is the whole protocol, of which this module needs a part"
)]
mod command;
mod devicetree;
mod driver;
mod ledger;
mod open;
mod place;
mod ranges;
mod region;
mod reservation;
mod scrubber;
mod secure_world;

/// What the module's drivers share.
#[pin_data]
struct State {
    secure_world: LastUse,
    /// Every carveout that is bound, or was and still has ranges allocated.
    #[pin]
    carveouts: Mutex<KVec<Arc<Carveout>>>,
}

static STATE: Slot<State> = Slot::new();

impl State {
    fn new() -> Result<Arc<Self>> {
        let secure_world = LastUse(SecureWorld::new()?);
        Arc::pin_init(
            try_pin_init!(Self {
                secure_world,
                carveouts <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// The carveout in which a range lies, if it is one of ours.
    fn carveout_of(&self, start: u64, size: u64) -> Option<Arc<Carveout>> {
        self.carveouts
            .lock()
            .iter()
            .find(|carveout| carveout.contains(start, size))
            .cloned()
    }

    /// Lets go of a carveout that did not become a heap, unless it has ranges
    /// that must be kept.
    fn discard(&self, carveout: &Arc<Carveout>) {
        if carveout.is_bound() || !carveout.is_idle() {
            return;
        }
        self.carveouts
            .lock()
            .retain(|other| !Arc::ptr_eq(other, carveout));
    }
}

/// Ends the ledger with the module's state: its entries refer to carveouts, and
/// protected carveouts refer to the secure world.
struct LastUse(Arc<SecureWorld>);

impl Deref for LastUse {
    type Target = Arc<SecureWorld>;

    fn deref(&self) -> &Arc<SecureWorld> {
        &self.0
    }
}

impl Drop for LastUse {
    fn drop(&mut self) {
        self.0.forget();
    }
}

/// The module.
///
/// The order of the fields is that of their drop: first the drivers, then what
/// their callbacks use.
#[pin_data]
struct CarveoutModule {
    #[pin]
    heaps: Registration<platform::Adapter<HeapDriver>>,
    #[pin]
    application: tee_bus::Registration<SecureWorld>,
    state: Published<State>,
}

impl InPlaceModule for CarveoutModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // The order here is that of initialisation: what the callbacks use comes first.
        try_pin_init!(Self {
            state: STATE.publish(State::new()?)?,
            application <- tee_bus::Registration::new(
                <Self as ModuleMetadata>::NAME,
                module,
                command::TA_UUID,
                STATE.get().ok_or(ENODEV)?.secure_world.clone(),
            ),
            heaps <- Registration::new(<Self as ModuleMetadata>::NAME, module),
        })
    }
}

module! {
    type: CarveoutModule,
    name: "ringfence_carveout",
    authors: ["Ringfence"],
    description: "dma-buf heaps on carveouts, optionally protected by OP-TEE",
    license: "GPL",
    params: {
        scrub_rate: u32 {
            default: 1024,
            description: "MiB that are zeroed in the background in a second, at most, for each heap; 0: none, memory is zeroed when it is allocated",
        },
        region_idle: u32 {
            default: 500,
            description: "Milliseconds without a buffer after which a carveout that is fenced as a whole is opened",
        },
        trust_cleared: bool {
            default: false,
            description: "Take unprotected carveouts for zeroed, as the firmware has left them",
        },
    },
}
