// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers in the hands of devices, and as any dma-buf user sees them.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use ringfence_tests::guest::hostile::{Hostile, TRUSTED_DISPLAY};
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use ringfence_tests::guest::video::Capture;
use ringfence_tests::guest::{dma_buf, expect_errno, heap_info, module};
use rustix::io::Errno;

use super::region::{self, CAMERA, DECLARED, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("a_device_keeps_an_open_buffer", a_device_keeps_a_buffer),
    (
        "a_device_may_have_a_protected_buffer_if_it_is_listed",
        listed_devices,
    ),
    ("a_buffer_can_be_imported_many_times", many_imports),
    ("a_device_maps_buffers_for_its_dma", mapped_buffers),
    ("fdinfo_names_heap_and_size", fdinfo_names_the_heap),
    ("an_open_buffer_takes_syncs", open_buffers_sync),
    ("unknown_dma_buf_ioctls_are_refused", unknown_ioctls),
];

const PAGE: u64 = 4096;

fn importer() -> anyhow::Result<dma_buf::Importer> {
    module::load("vgem")?;
    dma_buf::Importer::open()
}

fn a_device_keeps_a_buffer() -> anyhow::Result<()> {
    let importer = importer()?;
    let before = heap_info(CAMERA)?;
    for size in [PAGE, 1 << 20, before.size] {
        let (buffer, range) = region::allocate(CAMERA, size)?;
        let imported = importer.import(&buffer)?;
        drop(buffer);
        let during = heap_info(CAMERA)?;
        anyhow::ensure!(
            during.buffers == 1,
            "the device's buffer is gone: {during:?}"
        );
        importer.close(imported)?;
        let after = heap_info(CAMERA)?;
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
        drop(region::allocate(CAMERA, range.size)?);
    }
    Ok(())
}

/// Whether the devicetree limits who may attach to the heap's buffers.
fn has_consumers(heap: &str) -> bool {
    Path::new(&format!(
        "/proc/device-tree/heap-{heap}/ringfence,consumers"
    ))
    .exists()
}

fn listed_devices() -> anyhow::Result<()> {
    let importer = importer()?;
    for heap in DECLARED.iter().filter(|heap| heap.use_case != 0) {
        let (buffer, range) = region::allocate(heap.name, 3 * PAGE)?;
        if has_consumers(heap.name) {
            // vgem is in no devicetree, so in no list either.
            expect_errno(importer.import(&buffer), Errno::ACCESS, heap.name)?;
        } else {
            let imported = importer.import(&buffer)?;
            expect_killed(range.page(0), "while a device has it")?;
            drop(buffer);
            expect_killed(range.page(0), "while only a device has it")?;
            importer.close(imported)?;
        }
    }
    Ok(())
}

fn many_imports() -> anyhow::Result<()> {
    let (one, other) = (importer()?, importer()?);
    let (buffer, range) = region::allocate(VIDEO, PAGE)?;
    if has_consumers(VIDEO) {
        return expect_errno(one.import(&buffer), Errno::ACCESS, "an unlisted device");
    }
    for _ in 0..50 {
        let first = one.import(&buffer)?;
        let second = other.import(&buffer)?;
        one.close(first)?;
        other.close(second)?;
    }
    let last = one.import(&buffer)?;
    drop(buffer);
    expect_killed(range, "while a device has it")?;
    // A process that ends takes its imports with it: closing the device does too.
    drop(one);
    let _ = last;
    expect_zero(range, "after the device was closed")
}

/// A listed device that has a buffer mapped.
struct Mapped(Hostile);

impl Drop for Mapped {
    fn drop(&mut self) {
        // The figures of the heap show it if this fails.
        let _ = self.0.release();
    }
}

fn mapped_buffers() -> anyhow::Result<()> {
    const SIZE: u64 = 8 << 20;
    for heap in [CAMERA, VIDEO] {
        let before = heap_info(heap)?;
        let (buffer, range) = region::allocate(heap, SIZE)?;
        // A driver that is refused: videobuf2 keeps its reference to the buffer then, for
        // ever (`__prepare_dmabuf`), so that it is not asked for those of a heap with a list.
        let device: Box<dyn std::any::Any> = match has_consumers(heap) {
            true => {
                let device = Hostile::load()?;
                device.map(&buffer, TRUSTED_DISPLAY)?;
                Box::new(Mapped(device))
            }
            false => {
                let device = Capture::open()?;
                device.queue(&buffer)?;
                Box::new(device)
            }
        };
        drop(buffer);
        let during = heap_info(heap)?;
        anyhow::ensure!(
            during.buffers == 1,
            "the device's buffer is gone: {during:?}"
        );
        if heap == VIDEO {
            expect_killed(range.last_page(), "while a device has it mapped")?;
        }
        drop(device);
        let after = heap_info(heap)?;
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    }
    Ok(())
}

fn fdinfo_names_the_heap() -> anyhow::Result<()> {
    for heap in &DECLARED {
        let (buffer, _) = region::allocate(heap.name, 5 * PAGE)?;
        let fd = buffer.as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
        };
        anyhow::ensure!(value("exp_name") == Some(heap.name), "{text}");
        anyhow::ensure!(value("size") == Some("20480"), "{text}");
        anyhow::ensure!(value("count") == Some("1"), "{text}");
    }
    Ok(())
}

fn open_buffers_sync() -> anyhow::Result<()> {
    use dma_buf::{sync, SYNC_END, SYNC_READ, SYNC_WRITE};
    let (buffer, _) = region::allocate(CAMERA, PAGE)?;
    for access in [SYNC_READ, SYNC_WRITE, SYNC_READ | SYNC_WRITE] {
        sync(&buffer, access)?;
        sync(&buffer, access | SYNC_END)?;
    }
    for nonsense in [0, SYNC_END, 8, 1 << 63] {
        expect_errno(sync(&buffer, nonsense), Errno::INVAL, "a sync of nothing")?;
    }
    Ok(())
}

fn unknown_ioctls() -> anyhow::Result<()> {
    for heap in &DECLARED {
        let (buffer, _) = region::allocate(heap.name, PAGE)?;
        let file = fs::File::from(buffer.as_fd().try_clone_to_owned()?);
        for (magic, number) in [(b'b', 200), (b'H', 0), (ringfence::uapi::MAGIC, 0)] {
            let mut bytes = [0; 96];
            let outcome =
                ringfence_tests::guest::allocation::ioctl_sized(&file, magic, number, &mut bytes);
            expect_errno(outcome, Errno::NOTTY, heap.name)?;
        }
    }
    Ok(())
}
