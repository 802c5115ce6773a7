// SPDX-License-Identifier: MIT OR Apache-2.0

//! Clients that know nothing of Ringfence: crates from the registry, and drivers.

use std::path::PathBuf;

use dma_buf::DmaBuf;
use dma_heap::{Heap, HeapKind};
use ringfence::control::Control;
use ringfence::heap::HEAPS_PATH;
use ringfence_tests::guest::dma_buf::Importer;
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::video::Stream;
use ringfence_tests::guest::{allocation, heap_info, module};

use super::cma::{DEFAULT, REGION};
use super::region::SCATTERED;
use super::Test;

pub const TESTS: &[Test] = &[
    ("the_crates_dma_heap_and_dma_buf_work", crates),
    (
        "the_crate_finds_the_system_heap_by_itself",
        crate_finds_system,
    ),
    ("vgem_imports_buffers_of_every_heap", vgem_imports),
    ("vivid_films_into_buffers", vivid_films),
];

/// The heaps whose buffers the CPU can use.
fn cpu_heaps() -> anyhow::Result<Vec<String>> {
    let heaps = Control::open()?.heaps()?;
    let names: Vec<String> = heaps
        .into_iter()
        .filter(|heap| heap.online && heap.cpu_access)
        .map(|heap| heap.name)
        .collect();
    anyhow::ensure!(names.len() == 6, "{names:?}");
    Ok(names)
}

fn use_as_a_client(heap: &Heap, length: usize) -> anyhow::Result<()> {
    let failed = |error| anyhow::anyhow!("{error}");
    let buffer = DmaBuf::from(heap.allocate(length)?);
    let mut mapped = buffer.memory_map()?;
    let zeros = mapped
        .read(
            |bytes, _: Option<()>| Ok(bytes.iter().filter(|&&byte| byte == 0).count()),
            None,
        )
        .map_err(failed)?;
    anyhow::ensure!(zeros == length, "{zeros} zeros in {length} bytes");
    mapped
        .write(
            |bytes, _: Option<()>| {
                bytes
                    .iter_mut()
                    .zip((0..251).cycle())
                    .for_each(|(byte, value)| *byte = value);
                Ok(())
            },
            None,
        )
        .map_err(failed)?;
    let sum = mapped
        .readwrite(
            |bytes, _: Option<()>| {
                bytes[0] = 0xff;
                Ok(bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>())
            },
            None,
        )
        .map_err(failed)?;
    let expected: u64 = (0..251).cycle().take(length).sum::<u64>() + 0xff;
    anyhow::ensure!(sum == expected, "{sum}, not {expected}");
    Ok(())
}

fn crates() -> anyhow::Result<()> {
    for name in cpu_heaps()? {
        let heap = Heap::new(HeapKind::Custom(PathBuf::from(HEAPS_PATH).join(&name)))?;
        for length in [4096, 12288, 1 << 20, (4 << 20) + 4096] {
            use_as_a_client(&heap, length).map_err(|error| error.context(name.clone()))?;
        }
        anyhow::ensure!(heap_info(&name)?.used == 0);
    }
    Ok(())
}

fn crate_finds_system() -> anyhow::Result<()> {
    use_as_a_client(&Heap::new(HeapKind::System)?, 1 << 20)
}

fn vgem_imports() -> anyhow::Result<()> {
    module::load("vgem")?;
    let importer = Importer::open()?;
    for name in cpu_heaps()? {
        // vgem has no IOMMU, which several chunks of a carveout need.
        if name == SCATTERED {
            continue;
        }
        let device = allocation::open(&name)?;
        for size in [4096, 1 << 20, 8 << 20] {
            let buffer = allocation::allocate_size(&device, size)?;
            let imported = importer.import(&buffer)?;
            drop(buffer);
            anyhow::ensure!(
                heap_info(&name)?.used == size,
                "{name}: the device's is gone"
            );
            importer.close(imported)?;
            anyhow::ensure!(heap_info(&name)?.used == 0, "{name}: something is left");
        }
    }
    Ok(())
}

fn vivid_films() -> anyhow::Result<()> {
    for name in [DEFAULT, REGION] {
        let device = allocation::open(name)?;
        let stream = Stream::start(|size| allocation::allocate_size(&device, size))?;
        for frame in 0..6 {
            stream.frame(|buffer, length| {
                let mapping = Mapping::new(buffer, length)?;
                let filmed = mapping.others_than(0);
                anyhow::ensure!(
                    length > 0 && filmed > length / 2,
                    "{name}: frame {frame} has {filmed} of {length} bytes"
                );
                Ok(())
            })?;
        }
        drop(stream);
        anyhow::ensure!(heap_info(name)?.used == 0, "{name}: something is left");
    }
    Ok(())
}
