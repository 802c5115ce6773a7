// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite of `cargo xtask test`: where it runs, and under which conditions.

use crate::artefact::kernel::Flavour;
use crate::vm::Conditions;

/// On which kernels something runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// On each.
    Both,
    /// On the debug kernel.
    Debug,
}

impl Kernels {
    /// Whether a kernel is one of these.
    pub fn include(self, flavour: Flavour) -> bool {
        match self {
            Self::Both => true,
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
    /// What is loaded before they run.
    pub conditions: Conditions,
    /// More words for the kernel's command line.
    pub bootargs: &'static str,
    /// On which kernels.
    pub kernels: Kernels,
    /// Whether the guest finds in its share what it was booted from: `Image` and `initramfs`.
    pub images: bool,
}

impl GuestBoot {
    /// A boot with everything loaded, on both kernels.
    const fn of(suites: &'static [&'static str]) -> Self {
        Self {
            suites,
            conditions: DEFAULT,
            bootargs: "",
            kernels: Kernels::Both,
            images: false,
        }
    }
}

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

/// The guest's boots, those that take longest first: several run side by side. A suite that unloads
/// modules comes last of its boot.
pub const GUEST: &[GuestBoot] = &[
    GuestBoot::of(&["stale"]),
    GuestBoot::of(&["faults"]),
    GuestBoot::of(&["attacks", "lifecycle"]),
    GuestBoot::of(&["soak", "fuzz"]),
    GuestBoot::of(&["heaps", "protect", "tee", "access", "content", "modules"]),
    GuestBoot::of(&[
        "dmabuf",
        "command",
        "recovery",
        "region-mode",
        "inject",
        "system",
    ]),
    GuestBoot::of(&["allocate", "accounting", "cma", "clients", "kselftest"]),
    // The modules' own tests run at each load of a module, and do so in every other boot.
    GuestBoot {
        bootargs: "kunit.enable=0",
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
        bootargs: "swiotlb=force",
        ..GuestBoot::of(&["swiotlb"])
    },
    GuestBoot {
        conditions: NO_TEE,
        ..GuestBoot::of(&["no-tee"])
    },
];

/// A fault made on purpose, in a boot of its own: the run must end as a failure because of it.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// The suite that it belongs to.
    pub suite: &'static str,
    /// Name of the test.
    pub name: &'static str,
    /// On which kernels.
    pub kernels: Kernels,
    /// What is loaded before it.
    pub conditions: Conditions,
    /// What the guest does.
    pub command: &'static str,
    /// What the kernel must say about it.
    pub mark: &'static str,
    /// Whether the guest is lost with it; otherwise it goes on, and the run fails at its end.
    pub fatal: bool,
}

/// Name of the suite that measures: a boot in which time counts instructions.
pub const LATENCY_SUITE: &str = "latency";

/// Proofs that a report of the debug kernel fails a run that otherwise succeeds, that a crash ends one
/// that otherwise would not end, and that some attacks can end in nothing else.
pub const PROOFS: &[Proof] = &[
    report(
        "kasan",
        "modprobe lkdtm && echo SLAB_LINEAR_OVERFLOW > /sys/kernel/debug/provoke-crash/DIRECT",
        "BUG: KASAN: slab-out-of-bounds",
    ),
    report(
        "warning",
        "modprobe lkdtm && echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT",
        "WARNING: ",
    ),
    report(
        "kmemleak",
        "modprobe kmemleak-test && rmmod kmemleak-test",
        "new suspected memory leaks",
    ),
    Proof {
        fatal: true,
        ..report(
            "panic",
            "modprobe lkdtm && echo PANIC > /sys/kernel/debug/provoke-crash/DIRECT",
            "Kernel panic - not syncing",
        )
    },
    doom(
        "kernel_reads",
        "ringfence-tests doomed --exact doomed::kernel_reads",
    ),
    doom(
        "kernel_writes",
        "ringfence-tests doomed --exact doomed::kernel_writes",
    ),
    doom(
        "kernel_reads_for_root",
        "ringfence-tests doomed --exact doomed::kernel_reads_for_root",
    ),
];

/// An attack from inside the kernel, which the CPU ends together with the kernel.
const fn doom(name: &'static str, command: &'static str) -> Proof {
    Proof {
        suite: "doomed",
        name,
        kernels: Kernels::Both,
        conditions: DEFAULT,
        command,
        // Linux has no name for a granule protection fault.
        mark: "Unable to handle kernel unknown 40",
        fatal: true,
    }
}

/// A fault that the debug kernel reports.
const fn report(name: &'static str, command: &'static str, mark: &'static str) -> Proof {
    Proof {
        suite: "reports",
        name,
        kernels: Kernels::Debug,
        conditions: BARE,
        command,
        mark,
        fatal: false,
    }
}
