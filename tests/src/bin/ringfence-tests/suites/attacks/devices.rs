// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks by devices, and by drivers in their name.

use std::os::fd::AsFd;

use ringfence_tests::guest::expect_errno;
use ringfence_tests::guest::hostile::{Hostile, TRUSTED_DISPLAY};
use ringfence_tests::guest::memory::{expect_killed, expect_zero};
use rustix::io::Errno;

use super::prey::attacked;
use crate::suites::region::{self, CAMERA, RECORD, UI};

/// A device that reaches all memory.
const WIDE: &str = "64";

/// A device whose mask just reaches all of the machine's memory.
const MASK_32: &str = "32";

/// Bytes of buffers that hold nothing.
const SIZE: u64 = 3 << 20;

/// A device that the heap's list of consumers does not have.
pub fn unlisted_device() -> anyhow::Result<()> {
    attacked(|_| {
        let hostile = Hostile::load()?;
        let (buffer, range) = region::allocate(UI, SIZE)?;
        for device in [WIDE, MASK_32, "/heap-protected-ui", "/heap-camera"] {
            let what = format!("device {device}");
            expect_errno(hostile.attach(&buffer, device), Errno::ACCESS, &what)?;
            expect_errno(hostile.map(&buffer, device), Errno::ACCESS, &what)?;
        }
        // The one that is listed may.
        hostile.attach(&buffer, TRUSTED_DISPLAY)?;
        expect_killed(range.page(0), "after the devices")?;
        drop(buffer);
        expect_zero(range, "after release")
    })
}

/// A driver wants the buffer in the kernel's address space.
pub fn vmap() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        expect_errno(hostile.vmap(&prey.buffer), Errno::INVAL, "vmap")?;
        expect_errno(hostile.cpu_access(&prey.buffer), Errno::ACCESS, "access")?;
        hostile.map(&prey.buffer, TRUSTED_DISPLAY)?;
        expect_errno(hostile.vmap(&prey.buffer), Errno::INVAL, "vmap, mapped")?;
        Ok(hostile.release()?)
    })
}

/// A driver looks for pages behind the addresses that its device was given.
pub fn pages_of_a_mapping() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        let view = hostile.map(&prey.buffer, TRUSTED_DISPLAY)?;
        anyhow::ensure!(view.address == prey.range.start, "{view:x?}");
        anyhow::ensure!(view.size == prey.range.size, "{view:x?}");
        anyhow::ensure!(view.entries == 1 && view.pages == 0, "{view:x?}");
        Ok(hostile.release()?)
    })
}

/// Devices that reach a part of the memory only: the address they are given is
/// one that they reach, or they are given none.
pub fn narrow_device() -> anyhow::Result<()> {
    attacked(|_| {
        let hostile = Hostile::load()?;
        let (open, open_range) = region::allocate(CAMERA, SIZE)?;
        let (fenced, fenced_range) = region::allocate(RECORD, SIZE)?;
        for (buffer, range) in [(&fenced, fenced_range), (&open, open_range)] {
            let view = hostile.map(buffer, MASK_32)?;
            anyhow::ensure!(view.address == range.start, "{view:x?}");
            anyhow::ensure!(view.size == range.size, "{view:x?}");
            hostile.release()?;
            for bits in ["31", "30", "24", "12", "1"] {
                let what = format!("a device of {bits} bits");
                let outcome = hostile.map(buffer, bits);
                expect_errno(outcome, Errno::IO, &what)?;
            }
        }
        Ok(())
    })
}

/// A device that needs no mapping, because it was told an address. On silicon the
/// system's granule or stream protection would refuse it; QEMU has none for DMA,
/// and this test fails when that has changed.
pub fn device_by_address() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        hostile.order(&format!("dma {:#x}", prey.range.start))?;
        let content = prey.fixture.expect_content(&mut prey.ta, prey.handle);
        anyhow::ensure!(content.is_err(), "the device was refused: say so");
        prey.fixture.decrypt(&mut prey.ta, prey.handle)
    })
}

/// With bounce buffers forced upon every device, contents would go through
/// memory that is open. They do not.
pub fn forced_bounce_buffers() -> anyhow::Result<()> {
    attacked(|prey| {
        let hostile = Hostile::load()?;
        let (open, _) = region::allocate(CAMERA, SIZE)?;
        let all = [TRUSTED_DISPLAY, WIDE, MASK_32, "31"];
        // Nobody else may have a protected buffer.
        for (buffer, devices) in [(prey.buffer.as_fd(), &all[..1]), (open.as_fd(), &all)] {
            for device in devices {
                let what = format!("device {device}");
                expect_errno(hostile.map(buffer, device), Errno::IO, &what)?;
            }
            hostile.attach(buffer, devices[0])?;
        }
        Ok(())
    })
}
