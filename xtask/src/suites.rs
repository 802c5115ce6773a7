// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every suite of `cargo xtask test`: where it runs, and under which conditions.

use crate::vm::Conditions;

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

/// The guest's boots. A suite that unloads modules comes last of its boot.
pub const GUEST: [GuestBoot; 2] = [
    GuestBoot {
        suites: &[
            "heaps", "protect", "tee", "dmabuf", "command", "recovery", "inject", "stale",
            "modules",
        ],
        conditions: DEFAULT,
    },
    GuestBoot {
        suites: &["no-tee"],
        conditions: NO_TEE,
    },
];

/// A fault made on purpose on the debug kernel: the run must end as a failure because of it.
#[derive(Debug, Clone, Copy)]
pub struct Proof {
    /// Name of the test.
    pub name: &'static str,
    /// What the guest does.
    pub command: &'static str,
    /// What the kernel must say about it.
    pub mark: &'static str,
    /// Whether the guest is lost with it; otherwise it goes on, and the run fails at its end.
    pub fatal: bool,
}

/// Name of the suite that measures: a boot in which time counts instructions.
pub const LATENCY_SUITE: &str = "latency";

/// Name of the suite of [`PROOFS`].
pub const PROOFS_SUITE: &str = "reports";

/// Proofs that a report of the debug kernel fails a run that otherwise succeeds, and that a crash ends
/// one that otherwise would not end.
pub const PROOFS: [Proof; 4] = [
    Proof {
        name: "kasan",
        command:
            "modprobe lkdtm && echo SLAB_LINEAR_OVERFLOW > /sys/kernel/debug/provoke-crash/DIRECT",
        mark: "BUG: KASAN: slab-out-of-bounds",
        fatal: false,
    },
    Proof {
        name: "warning",
        command: "modprobe lkdtm && echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT",
        mark: "WARNING: ",
        fatal: false,
    },
    Proof {
        name: "kmemleak",
        command: "modprobe kmemleak-test && rmmod kmemleak-test",
        mark: "new suspected memory leaks",
        fatal: false,
    },
    Proof {
        name: "panic",
        command: "modprobe lkdtm && echo PANIC > /sys/kernel/debug/provoke-crash/DIRECT",
        mark: "Kernel panic - not syncing",
        fatal: true,
    },
];
