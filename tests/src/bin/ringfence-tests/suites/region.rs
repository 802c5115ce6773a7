// SPDX-License-Identifier: MIT OR Apache-2.0

//! The heaps' regions, as the devicetree declares them.

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence_tests::guest::memory::PhysicalRange;
pub use ringfence_tests::guest::reserved_memory::of;
use ringfence_tests::guest::{allocation, debug};

/// A heap that the devicetree of the test machine declares.
pub struct Declared {
    /// Its name.
    pub name: &'static str,
    /// Bytes in its region.
    pub size: u64,
    /// Its use case.
    pub use_case: u32,
    /// Whether the CPU may use it.
    pub cpu_access: bool,
}

/// The heap for decrypted video.
pub const VIDEO: &str = "protected-video";
/// The heap for a trusted user interface.
pub const UI: &str = "protected-ui";
/// The heap that the CPU may use.
pub const CAMERA: &str = "camera";
/// The heap without protection, in which the CPU has no business all the same.
pub const FIRMWARE: &str = "firmware";
/// The heap of scattered chunks, not among the declared ones here: its buffers are
/// none of what these have in common.
pub const SCATTERED: &str = "scattered";

/// The heap whose region is fenced as a whole.
pub const RECORD: &str = "protected-record";

/// What the devicetree says of [`RECORD`]. It is not among [`DECLARED`], as its
/// figures are not back with the last close.
pub const WHOLE: Declared = Declared {
    name: RECORD,
    size: 32 << 20,
    use_case: 3,
    cpu_access: false,
};

/// The others with contiguous buffers; those with a use case are protected.
pub const DECLARED: [Declared; 4] = [
    Declared {
        name: VIDEO,
        size: 64 << 20,
        use_case: 1,
        cpu_access: false,
    },
    Declared {
        name: UI,
        size: 16 << 20,
        use_case: 2,
        cpu_access: false,
    },
    Declared {
        name: CAMERA,
        size: 192 << 20,
        use_case: 0,
        cpu_access: true,
    },
    Declared {
        name: FIRMWARE,
        size: 16 << 20,
        use_case: 0,
        cpu_access: false,
    },
];

/// Whether a heap is one of a region that Linux does not use otherwise.
pub fn is_carveout(heap: &str) -> bool {
    [RECORD, SCATTERED].contains(&heap) || DECLARED.iter().any(|declared| declared.name == heap)
}

/// Allocates from a heap and finds out where.
pub fn allocate(heap: &str, size: u64) -> anyhow::Result<(Buffer, PhysicalRange)> {
    let device = allocation::open(heap)?;
    debug::locate(heap, || {
        allocation::allocate_size(&device, size)
            .map_err(|errno| anyhow::anyhow!("{size} bytes of {heap}: {errno}"))
    })
}

/// Fails unless a range of a heap, whose buffer is closed, waits for whoever has it mapped
/// in the secure world.
pub fn expect_waiting(heap: &str, range: PhysicalRange) -> anyhow::Result<()> {
    let line = debug::ranges(heap)?
        .into_iter()
        .find(|line| line.range == range)
        .context("the range is not in the list any more")?;
    anyhow::ensure!(line.state == "waiting", "{line:?}");
    Ok(())
}

/// A page beside a buffer, inside the heap's region and allocated to nobody.
pub fn free_neighbour(heap: &str, buffer: PhysicalRange) -> anyhow::Result<PhysicalRange> {
    let region = of(heap)?;
    let taken = debug::ranges(heap)?;
    let page = |start| PhysicalRange { start, size: 4096 };
    [buffer.end(), buffer.start.wrapping_sub(4096)]
        .map(page)
        .into_iter()
        .find(|page| {
            page.start >= region.start
                && page.end() <= region.end()
                && !taken
                    .iter()
                    .any(|line| line.range.start < page.end() && page.start < line.range.end())
        })
        .context("the buffer has no free neighbour")
}
