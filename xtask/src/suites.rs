// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite of `cargo xtask test`: where it runs, and under which conditions.
//!
//! What takes longest begins first, so that no processor is idle at the end. The seconds here were
//! seen on a quiet machine, and decide nothing but that order.

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

/// Host suites by name, each with how many seconds it takes.
pub const HOST: [(&str, HostSuite, u32); 8] = [
    ("host", HostSuite::Tests, 60),
    ("lint", HostSuite::Lint, 9),
    ("bindings", HostSuite::Bindings, 8),
    ("modules-lint", HostSuite::ModulesLint, 1),
    ("format", HostSuite::Format, 1),
    ("modules-format", HostSuite::ModulesFormat, 1),
    ("miri", HostSuite::Miri, 1),
    ("kani", HostSuite::Kani, 1),
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
    /// Seconds that it takes, on the plain and on the debug kernel.
    pub seconds: [u32; 2],
}

impl GuestBoot {
    /// A boot with everything loaded, on both kernels.
    const fn of(suites: &'static [&'static str]) -> Self {
        Self {
            suites,
            board: Board::Ordinary,
            conditions: DEFAULT,
            bootargs: NO_KUNIT,
            kernels: Kernels::Both,
            images: false,
            screening: false,
            seconds: [9, 34],
        }
    }

    /// Seconds that it takes on a kernel.
    pub fn takes(&self, flavour: Flavour) -> u32 {
        let [plain, debug] = self.seconds;
        match flavour {
            Flavour::Plain => plain,
            Flavour::Debug => debug,
        }
    }
}

/// The modules' own tests run at each load of a module: one boot has them, and the others do without.
const NO_KUNIT: &str = "kunit.enable=0";

/// Everything is loaded.
const DEFAULT: Conditions = Conditions {
    optee: true,
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

/// The guest's boots. Each costs the debug kernel twenty seconds beside its suites. A suite that
/// unloads modules comes last of its boot.
pub const GUEST: &[GuestBoot] = &[
    GuestBoot {
        board: Board::Translated,
        screening: true,
        seconds: [100, 183],
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
    GuestBoot {
        seconds: [57, 181],
        ..GuestBoot::of(&[
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
            "cycles",
        ])
    },
    // The first suite ends in a new kernel, in which its second half runs, and then the others.
    GuestBoot {
        images: true,
        seconds: [11, 44],
        // The interrupt controller would go on using tables of the old kernel, which the new one may
        // lie upon: without EFI nobody tells it where they are.
        bootargs: "kunit.enable=0 irqchip.gicv3_nolpi=1 swiotlb=force",
        ..GuestBoot::of(&["kexec", "swiotlb"])
    },
    // Before the first suite nothing is loaded, and it loads the heaps; OP-TEE's driver comes with
    // the second one.
    GuestBoot {
        conditions: BARE,
        // With the modules' own tests.
        bootargs: "dma_heap.mem_accounting=1",
        ..GuestBoot::of(&["scenario", "no-tee", "charged"])
    },
    GuestBoot {
        conditions: UPSTREAM,
        ..GuestBoot::of(&["parity"])
    },
];

/// Suites that the debug kernel runs when they are named, and only then: they are about programs and
/// about applications of the secure world. What these have the modules do, other suites have them do
/// as well; `parity` has twice the same done.
pub const NOT_ABOUT_THE_KERNEL: [&str; 3] = ["command", "decoder", "parity"];

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
    /// Seconds that it takes.
    pub seconds: u32,
}

/// Name of the suite that measures: a boot in which time counts instructions.
pub const LATENCY_SUITE: &str = "latency";

/// Seconds that it takes.
pub const LATENCY_SECONDS: u32 = 65;

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
        seconds: 22,
    },
    Proof {
        suite: "reports",
        marks: &[("panic", "Kernel panic - not syncing")],
        kernels: Kernels::Debug,
        conditions: BARE,
        command: "modprobe lkdtm && echo PANIC > /sys/kernel/debug/provoke-crash/DIRECT",
        fatal: true,
        seconds: 12,
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
        seconds: 5,
    }
}
