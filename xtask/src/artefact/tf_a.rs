// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trusted Firmware-A: EL3 with the granule protection tables, and the flash image that QEMU boots.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::Result;

use super::devicetree::Devicetree;
use super::optee::Optee;
use super::source::Source;
use super::{copy_tree, make, CROSS_COMPILE};
use crate::engine::{Plan, Step};
use crate::stack::Build;
use crate::vm::machine::KERNEL_ADDRESS;

/// Offset of the firmware image package in the flash, in bytes.
const FIP_OFFSET: u64 = 256 * 1024;

/// Size of the machine's first flash, in bytes; the file is sparse.
const FLASH_SIZE: u64 = 64 << 20;

/// Larger contiguous blocks of the protection tables than 2 MiB would be taken apart and fused again
/// around every buffer, at one more invalidation each.
const SETTINGS: [&str; 9] = [
    "PLAT=qemu",
    "QEMU_USE_GIC_DRIVER=QEMU_GICV3",
    "ENABLE_RME=1",
    "RME_GPT_MAX_BLOCK=2",
    "SPD=opteed",
    "BL32_RAM_LOCATION=tdram",
    "ARM_LINUX_KERNEL_AS_BL33=1",
    "DEBUG=0",
    "LOG_LEVEL=20",
];

/// The built firmware.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// The step that builds it.
    pub step: Step,
}

impl Firmware {
    /// The flash image.
    pub fn flash(&self) -> PathBuf {
        self.step.file("flash.bin")
    }
}

/// Declares the firmware.
pub fn declare(
    plan: &mut Plan,
    source: &Source,
    devicetree: &Devicetree,
    optee: &Optee,
    build: Build,
) -> Result<Firmware> {
    let tree = source.tree.clone();
    let settings = [
        format!("PRELOADED_BL33_BASE={KERNEL_ADDRESS:#x}"),
        format!("BL32={}", optee.image("tee-header_v2.bin").display()),
        format!("BL32_EXTRA1={}", optee.image("tee-pager_v2.bin").display()),
        format!(
            "BL32_EXTRA2={}",
            optee.image("tee-pageable_v2.bin").display()
        ),
        format!("RINGFENCE_CARVEOUTS_DIR={}", devicetree.include().display()),
    ];
    let step = plan
        .step(&build.name("tf-a"))
        .needs(&source.step)
        .needs(&devicetree.step)
        .needs(&optee.step)
        .param("settings", SETTINGS.join(" "))
        .param("own settings", settings.join(" "))
        .runs(move |job| {
            // TF-A generates files in its own tree.
            let own = job.file("source");
            copy_tree(job, &tree, &own)?;
            let mut command = make();
            command
                .arg("-C")
                .arg(&own)
                .arg(format!("BUILD_BASE={}", job.file("build").display()));
            command
                .arg(format!("CROSS_COMPILE={CROSS_COMPILE}"))
                .args(SETTINGS)
                .args(&settings);
            job.run(command.args(["bl1", "fip"]))?;
            let built = job.file("build/qemu/release");
            let mut flash = File::create(job.file("flash.bin"))?;
            flash.write_all(&fs::read(built.join("bl1.bin"))?)?;
            flash.seek(SeekFrom::Start(FIP_OFFSET))?;
            flash.write_all(&fs::read(built.join("fip.bin"))?)?;
            flash.set_len(FLASH_SIZE)?;
            Ok(())
        })?;
    Ok(Firmware { step })
}
