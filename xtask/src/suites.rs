// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite of `cargo xtask test`: where it runs, and under which conditions.

use crate::artefact::devicetree::Board;
use crate::artefact::kernel::Flavour;
use crate::vm::Conditions;

/// On which kernels something runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// On each.
    Both,
    /// On the plain kernel.
    Plain,
    /// On the debug kernel.
    Debug,
}

impl Kernels {
    /// Whether a kernel is one of these.
    pub fn include(self, flavour: Flavour) -> bool {
        match self {
            Self::Both => true,
            Self::Plain => flavour == Flavour::Plain,
            Self::Debug => flavour == Flavour::Debug,
        }
    }
}

/// A suite that runs on the building machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSuite {
    /// `cargo test` of the whole workspace.
    Tests,
    /// `cargo fmt --check`.
    Format,
    /// `cargo clippy`, warnings denied.
    Lint,
    /// rustfmt of the kernel modules.
    ModulesFormat,
    /// The kernel modules built by Clippy.
    ModulesLint,
    /// The allocator's tests under Miri, where a nightly toolchain has it.
    Miri,
    /// The allocator's harnesses under Kani, where it is installed.
    Kani,
    /// dt-schema over the bindings and the guest's devicetree.
    Bindings,
}

/// Host suites by name, in the order in which they run.
pub const HOST: [(&str, HostSuite); 8] = [
    ("format", HostSuite::Format),
    ("lint", HostSuite::Lint),
    ("host", HostSuite::Tests),
    ("modules-format", HostSuite::ModulesFormat),
    ("modules-lint", HostSuite::ModulesLint),
    ("bindings", HostSuite::Bindings),
    ("miri", HostSuite::Miri),
    ("kani", HostSuite::Kani),
];

/// Suites of the guest that share one boot.
#[derive(Debug, Clone, Copy)]
pub struct GuestBoot {
    /// Suites of `ringfence-tests`, in the order in which they run.
    pub suites: &'static [&'static str],
    /// The machine.
    pub board: Board,
    /// What is loaded before they run.
    pub conditions: Conditions,
    /// More words for the kernel's command line.
    pub bootargs: &'static str,
    /// On which kernels.
    pub kernels: Kernels,
    /// Whether the guest finds in its share what it was booted from: `Image` and `initramfs`.
    pub images: bool,
    /// Whether it finds there a film that is played before witnesses.
    pub screening: bool,
}

impl GuestBoot {
    /// A boot with everything loaded, on both kernels.
    const fn of(suites: &'static [&'static str]) -> Self {
        Self {
            suites,
            board: Board::Ordinary,
            conditions: DEFAULT,
            bootargs: "",
            kernels: Kernels::Both,
            images: false,
            screening: false,
        }
    }
}

/// The modules' own tests run at each load of a module. Suites that load them again and again do without:
/// the tests run in the other boots.
const NO_KUNIT: &str = "kunit.enable=0";

/// Everything is loaded.
const DEFAULT: Conditions = Conditions {
    optee: true,
    heaps: true,
    upstream: false,
};

/// OP-TEE's driver comes later than the heaps; the suite loads it.
const NO_TEE: Conditions = Conditions {
    optee: false,
    heaps: true,
    upstream: false,
};

/// The kernel's own heaps beside ours, which have other names then.
const UPSTREAM: Conditions = Conditions {
    optee: false,
    heaps: true,
    upstream: true,
};

/// Neither.
const BARE: Conditions = Conditions {
    optee: false,
    heaps: false,
    upstream: false,
};

/// The guest's boots, those that take longest first: several run side by side, but each of them costs
/// the debug kernel twenty seconds beside its suites. A suite that unloads modules comes last of its
/// boot.
pub const GUEST: &[GuestBoot] = &[
    GuestBoot {
        board: Board::Translated,
        bootargs: NO_KUNIT,
        screening: true,
        ..GuestBoot::of(&[
            "video",
            "dmabuf",
            "command",
            "recovery",
            "content",
            "decoder",
            "region-mode",
            "inject",
            "system",
            "camera",
            "fallback",
            "iommu",
            "stale",
        ])
    },
    GuestBoot::of(&[
        "attacks",
        "lifecycle",
        "heaps",
        "protect",
        "tee",
        "access",
        "allocate",
        "accounting",
        "cma",
        "clients",
        "kselftest",
        "soak",
        "fuzz",
        "faults",
        "modules",
    ]),
    GuestBoot {
        bootargs: NO_KUNIT,
        ..GuestBoot::of(&["cycles"])
    },
    GuestBoot {
        conditions: UPSTREAM,
        ..GuestBoot::of(&["parity"])
    },
    GuestBoot {
        bootargs: "dma_heap.mem_accounting=1",
        ..GuestBoot::of(&["charged"])
    },
    GuestBoot {
        images: true,
        // The interrupt controller would go on using tables of the old kernel, which the new one may
        // lie upon: without EFI nobody tells it where they are.
        bootargs: "irqchip.gicv3_nolpi=1",
        ..GuestBoot::of(&["kexec"])
    },
    GuestBoot {
        conditions: BARE,
        bootargs: NO_KUNIT,
        ..GuestBoot::of(&["scenario"])
    },
    GuestBoot {
        bootargs: "swiotlb=force",
        ..GuestBoot::of(&["swiotlb"])
    },
    GuestBoot {
        conditions: NO_TEE,
        ..GuestBoot::of(&["no-tee"])
    },
];

/// Faults made on purpose, in a boot of their own: the run must end as a failure because of them.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// The suite that it belongs to.
    pub suite: &'static str,
    /// Names of the tests, each with what the kernel must say.
    pub marks: &'static [(&'static str, &'static str)],
    /// On which kernels.
    pub kernels: Kernels,
    /// What is loaded before it.
    pub conditions: Conditions,
    /// What the guest does.
    pub command: &'static str,
    /// Whether the guest is lost with it; otherwise it goes on, and the run fails at its end.
    pub fatal: bool,
}

/// Name of the suite that measures: a boot in which time counts instructions.
pub const LATENCY_SUITE: &str = "latency";

/// Proofs that a report of the debug kernel fails a run that otherwise succeeds, that a crash ends one
/// that otherwise would not end, and that some attacks can end in nothing else.
pub const PROOFS: &[Proof] = &[
    Proof {
        suite: "reports",
        marks: &[
            ("kasan", "BUG: KASAN: slab-out-of-bounds"),
            ("warning", "WARNING: "),
            // An object of the slab allocator: it is found only while no cache keeps stale pointers to
            // it. What is per CPU is found always.
            ("kmemleak", "unreferenced object 0x"),
        ],
        kernels: Kernels::Debug,
        conditions: BARE,
        command: "modprobe lkdtm && modprobe kmemleak-test && rmmod kmemleak-test && \
            cd /sys/kernel/debug/provoke-crash && \
            echo SLAB_LINEAR_OVERFLOW > DIRECT && echo WARNING > DIRECT",
        fatal: false,
    },
    Proof {
        suite: "reports",
        marks: &[("panic", "Kernel panic - not syncing")],
        kernels: Kernels::Debug,
        conditions: BARE,
        command: "modprobe lkdtm && echo PANIC > /sys/kernel/debug/provoke-crash/DIRECT",
        fatal: true,
    },
    doom(
        &[("kernel_reads", GRANULE_FAULT)],
        "ringfence-tests doomed --exact doomed::kernel_reads",
    ),
    doom(
        &[("kernel_writes", GRANULE_FAULT)],
        "ringfence-tests doomed --exact doomed::kernel_writes",
    ),
    doom(
        &[("kernel_reads_for_root", GRANULE_FAULT)],
        "ringfence-tests doomed --exact doomed::kernel_reads_for_root",
    ),
];

/// Linux has no name for a granule protection fault.
const GRANULE_FAULT: &str = "Unable to handle kernel unknown 40";

/// An attack from inside the kernel, which the CPU ends together with the kernel.
const fn doom(marks: &'static [(&'static str, &'static str)], command: &'static str) -> Proof {
    Proof {
        suite: "doomed",
        marks,
        kernels: Kernels::Plain,
        conditions: DEFAULT,
        command,
        fatal: true,
    }
}
