// SPDX-License-Identifier: GPL-2.0

//! The platform driver that binds to the heaps' nodes.
//!
//! Unbinding takes the heap offline; its buffers live on, and so does their
//! carveout, which a later binding of the same region takes over.

use kernel::{
    device::{
        Core,
        Device, //
    },
    of,
    platform,
    prelude::*,
    sync::Arc, //
};
use ringfence_core::{
    registry::{
        Attachment,
        Heap, //
    },
    reserved_mem::Region, //
};

use crate::{
    application::Abilities,
    carveout::{
        Binding,
        Carveout, //
    },
    command::Protection as Unit,
    devicetree::{
        Kind,
        Protection,
        Settings, //
    },
    module_parameters,
    State,
    STATE, //
};

/// A bound heap.
///
/// The order of the fields is that of their drop: first the heap goes offline.
pub(crate) struct HeapDriver {
    _attachment: Attachment,
    _binding: Binding,
}

kernel::of_device_table!(
    OF_TABLE,
    <HeapDriver as platform::Driver>::IdInfo,
    [
        (of::DeviceId::new(c"ringfence,carveout-heap"), Kind::Plain),
        (
            of::DeviceId::new(c"ringfence,protected-heap"),
            Kind::Protected
        ),
    ]
);

impl platform::Driver for HeapDriver {
    type IdInfo = Kind;
    type Data<'bound> = Self;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        device: &'bound platform::Device<Core<'_>>,
        kind: Option<&'bound Kind>,
    ) -> impl PinInit<Self, Error> + 'bound {
        bind(device.as_ref(), kind.copied())
    }
}

fn bind(device: &Device, kind: Option<Kind>) -> Result<HeapDriver> {
    let state = STATE.get().ok_or(ENODEV)?;
    let settings = Settings::read(device, kind.ok_or(ENODEV)?)?;

    // Before anything is claimed: a boot in which OP-TEE comes later goes this way.
    let granule = match &settings.protection {
        Some(protection) => {
            let abilities = state
                .secure_world
                .abilities()
                .map_err(|error| unavailable(device, &state, error))?;
            judge(device, protection, abilities);
            abilities.granule
        }
        None => 0,
    };

    let carveout = take_over(device, &state, &settings)?
        .map_or_else(|| create(device, &state, settings, granule), Ok)?;
    let driver = serve(device, &state, &carveout).inspect_err(|_| state.discard(&carveout))?;
    let range = carveout.range();
    dev_info!(
        device,
        "heap {}: {} MiB at {:#x}\n",
        carveout.heap().name(),
        range.size >> 20,
        range.start
    );
    Ok(driver)
}

/// Says what a heap can't promise under a firewall with few windows.
fn judge(device: &Device, protection: &Protection, abilities: Abilities) {
    let (Unit::Buffer, Some(windows)) = (protection.unit, abilities.windows) else {
        return;
    };
    dev_warn!(
        device,
        "the firewall has {} windows: buffers beyond that get ENOSPC unless they touch others; \
         ringfence,protection = \"region\" takes one for all\n",
        windows
    );
}

/// Says why a protected heap does not come up, and whether it may come up later.
fn unavailable(device: &Device, state: &State, error: Error) -> Error {
    if error == ENODEV {
        state.secure_world.say_deferred(device);
        return EPROBE_DEFER;
    }
    dev_err!(device, "the secure world does not answer: {:?}\n", error);
    error
}

/// Puts a carveout behind its heap.
fn serve(device: &Device, state: &State, carveout: &Arc<Carveout>) -> Result<HeapDriver> {
    let binding = Carveout::bind(carveout).inspect_err(|_| {
        dev_err!(device, "another heap uses the memory-region\n");
    })?;
    if carveout.is_protected() {
        state
            .secure_world
            .adopt(carveout)
            .map_err(|error| unavailable(device, state, error))?;
    }
    let name = carveout.heap().name();
    let attachment = Heap::attach(carveout.heap(), carveout.clone()).inspect_err(|&error| {
        if error == EBUSY {
            dev_err!(device, "another region's heap has the name {}\n", name);
        } else {
            dev_err!(device, "heap {} can't be registered: {:?}\n", name, error);
        }
    })?;
    Ok(HeapDriver {
        _attachment: attachment,
        _binding: binding,
    })
}

/// The carveout of an earlier binding, if it can serve this one.
fn take_over(device: &Device, state: &State, settings: &Settings) -> Result<Option<Arc<Carveout>>> {
    let mut carveouts = state.carveouts.lock();
    let Some(index) = carveouts
        .iter()
        .position(|carveout| carveout.is_region_of(device))
    else {
        return Ok(None);
    };
    let carveout = &carveouts[index];
    if *carveout.settings() == *settings {
        return Ok(Some(carveout.clone()));
    }
    if carveout.is_bound() || !carveout.is_idle() {
        dev_err!(
            device,
            "{} is in use, with other properties\n",
            carveout.heap().name()
        );
        return Err(EBUSY);
    }
    // Its claim of the region ends here.
    drop(carveouts.remove(index));
    Ok(None)
}

fn create(
    device: &Device,
    state: &State,
    settings: Settings,
    granule: u64,
) -> Result<Arc<Carveout>> {
    let region = Region::claim(device).inspect_err(|error| {
        dev_err!(device, "{}\n", error);
    })?;
    let secure_world = settings
        .protection
        .is_some()
        .then(|| state.secure_world.clone());
    let range = region.range();
    if granule > 0 && (range.start | range.size) & (granule - 1) != 0 {
        dev_err!(
            device,
            "{:#x} bytes at {:#x} can't be fenced: the firewall's granule is {:#x}\n",
            range.size,
            range.start,
            granule
        );
        return Err(EINVAL);
    }
    let clean = *module_parameters::trust_cleared.value_ref();
    let carveout = Carveout::new(device, region, settings, granule, secure_world, clean)?;
    state.carveouts.lock().push(carveout.clone(), GFP_KERNEL)?;
    Ok(carveout)
}
