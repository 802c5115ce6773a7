// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks on live protected buffers: who wants in, and what refuses.
//!
//! Their names, and what refuses each, are [`ringfence_tests::attacks`], from
//! which the README's table is checked.

mod descriptor;
mod devices;
mod doomed;
mod lifetime;
mod memory;
mod prey;
mod process;
mod secure;

use super::Test;
pub use prey::Prey;

pub const TESTS: &[Test] = &[
    ("mmap", descriptor::mmap),
    ("mmap_over_memory", descriptor::mmap_over_memory),
    ("read_and_write", descriptor::read_and_write),
    ("splice_and_copy", descriptor::splice_and_copy),
    ("io_uring", descriptor::io_uring),
    ("cpu_access", descriptor::cpu_access),
    ("dev_mem_mapping", memory::dev_mem_mapping),
    ("dev_mem_calls", memory::dev_mem_calls),
    ("borrowed_pages", memory::borrowed_pages),
    ("proc_kcore", memory::proc_kcore),
    ("reader_beside_protect", memory::reader_beside_protect),
    ("reader_beside_release", memory::reader_beside_release),
    ("reader_beside_allocation", memory::ranges_beside_allocation),
    ("release_and_allocate", memory::release_and_allocate),
    ("stolen_descriptor", process::stolen_descriptor),
    ("holders_memory", process::holders_memory),
    ("debugged_holder", process::debugged_holder),
    ("killed_holders", process::killed_holders),
    ("firmware_calls", secure::firmware_calls),
    ("forged_login", secure::forged_login),
    ("firewall_from_outside", secure::firewall_from_outside),
    ("foreign_application", secure::foreign_application),
    ("replayed_handles", secure::replayed_handles),
    ("kernel_fences_anything", secure::kernel_fences_anything),
    ("kernel_opens_the_fence", secure::kernel_opens_the_fence),
    ("unlisted_device", devices::unlisted_device),
    ("vmap", devices::vmap),
    ("pages_of_a_mapping", devices::pages_of_a_mapping),
    ("narrow_device", devices::narrow_device),
    ("device_by_address", devices::device_by_address),
    ("module_unload", lifetime::module_unload),
    ("unbound_heap", lifetime::unbound_heap),
    ("unbound_application", lifetime::unbound_application),
];

/// For a machine that is booted with `swiotlb=force`.
pub const BOUNCED: &[Test] = &[("forced_bounce_buffers", devices::forced_bounce_buffers)];

/// Each ends the kernel, so each has a boot of its own; a test that returns has
/// failed.
pub const DOOMED: &[Test] = &[
    ("kernel_reads", doomed::kernel_reads),
    ("kernel_writes", doomed::kernel_writes),
    ("kernel_reads_for_root", doomed::kernel_reads_for_root),
];
