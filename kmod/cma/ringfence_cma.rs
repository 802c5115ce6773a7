// SPDX-License-Identifier: GPL-2.0

//! Heaps on the areas of the contiguous memory allocator (CMA).
//!
//! There is one for the default area, whichever way it was set up, and one for
//! each reusable region of the devicetree (`shared-dma-pool`), by the full name of
//! its node. Buffers are contiguous, zeroed, and the CPU may use them.
//!
//! [`heap`] is the backend of each of them.

#![deny(unsafe_code)]

use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};
use ringfence_core::{
    cma::Area,
    registry::{
        Attachment,
        Heap, //
    }, //
};

use crate::heap::CmaHeap;

mod heap;

/// The heap on the area of all devices that have none of their own.
const DEFAULT: &CStr = c"default_cma_region";

/// A heap that is to be.
struct Plan {
    name: &'static CStr,
    area: Area,
    /// Without it the module is of no use.
    needed: bool,
}

/// The module, with the heaps that are there as long as it is.
struct CmaModule {
    _heaps: KVec<Attachment>,
}

impl CmaModule {
    fn plans() -> Result<KVec<Plan>> {
        let mut plans = KVec::new();
        let mut add = |name, area, needed| {
            let plan = Plan { name, area, needed };
            plans.push(plan, GFP_KERNEL)
        };
        if let Some(area) = Area::of_any_device() {
            add(DEFAULT, area, true)?;
            for (name, wanted) in [
                (c"linux,cma", *module_parameters::linux_cma.value_ref()),
                (c"reserved", *module_parameters::reserved.value_ref()),
            ] {
                if wanted {
                    add(name, area, true)?;
                }
            }
        }
        for area in Area::of_regions() {
            add(area.name(), area, false)?;
        }
        Ok(plans)
    }
}

impl Plan {
    /// By which name control groups know the memory, whichever heap it is used by.
    fn memory(&self) -> &'static CStr {
        if Some(self.area) == Area::of_any_device() {
            DEFAULT
        } else {
            self.area.name()
        }
    }

    fn carry_out(&self) -> Result<Attachment> {
        let prefix = if *module_parameters::prefix.value_ref() {
            "ringfence-"
        } else {
            ""
        };
        let name = CString::try_from_fmt(fmt!("{}{}", prefix, self.name))?;
        let heap = Heap::named(&name)?;
        let backend = CmaHeap::new(heap.clone(), self.area, self.memory());
        Heap::attach(&heap, Arc::new(backend, GFP_KERNEL)?)
    }
}

impl kernel::Module for CmaModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let plans = Self::plans()?;
        if plans.is_empty() {
            pr_info!("there is no area of contiguous memory\n");
            return Err(ENODEV);
        }
        let mut heaps = KVec::with_capacity(plans.len(), GFP_KERNEL)?;
        for plan in &plans {
            match plan.carry_out() {
                Ok(heap) => heaps.push(heap, GFP_KERNEL)?,
                Err(error) => {
                    pr_warn!("heap {} can't be registered: {:?}\n", plan.name, error);
                    if plan.needed {
                        return Err(error);
                    }
                }
            }
        }
        Ok(Self { _heaps: heaps })
    }
}

module! {
    type: CmaModule,
    name: "ringfence_cma",
    authors: ["Ringfence"],
    description: "dma-buf heaps on areas of the contiguous memory allocator",
    license: "GPL",
    params: {
        prefix: bool {
            default: false,
            description: "Put ringfence- before the heaps' names, to have them beside the kernel's own",
        },
        linux_cma: bool {
            default: false,
            description: "Offer the default area by the name linux,cma as well",
        },
        reserved: bool {
            default: false,
            description: "Offer the default area by the name reserved as well",
        },
    },
}
