// SPDX-License-Identifier: MIT OR Apache-2.0

//! The normal world is restarted by kexec, and the secure world is not.
//!
//! The one test has two lives. In the first it fills buffers and starts a new
//! kernel, whose first process runs the suite again: the kernel's command line
//! says which life it is, and where the buffers were.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use ringfence::proto::firewall::fail_point;
use ringfence::secure::SecureSession;
use ringfence_tests::guest::memory::{expect_killed, expect_zero, PhysicalRange};
use ringfence_tests::guest::ta::{self, Ta};
use ringfence_tests::guest::{deadline, heap_info};
use rustix::system::{reboot, RebootCommand};

use super::attacks::Prey;
use super::modules::all_online;
use super::region::{self, RECORD, UI, VIDEO};
use super::soak::nothing_is_left;
use super::Test;

pub const TESTS: &[Test] = &[("a_new_kernel_finds_nothing_of_the_old_ones", kexec)];

/// What it was booted from.
const SHARE: &str = "/mnt/share";

/// The word on the command line of the second life: ranges, as `START+BYTES`.
const LIFE: &str = "ringfence.before=";

fn kexec() -> anyhow::Result<()> {
    let line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    match line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(LIFE))
    {
        Some(ranges) => after(ranges),
        None => before(line.trim()),
    }
}

/// The first life, which ends in the new kernel.
fn before(line: &str) -> anyhow::Result<()> {
    let mut prey = Prey::new()?;
    let (_large, large) = region::allocate(VIDEO, 5 << 20)?;
    let (_surface, surface) = region::allocate(UI, 1 << 20)?;
    let (_picture, picture) = region::allocate(RECORD, 1 << 20)?;
    // One that could not be opened.
    let (buffer, quarantined) = region::allocate(VIDEO, 3 << 20)?;
    let armed = ta::arm(fail_point::OPEN, 1)?;
    drop(buffer);
    drop(armed);
    let info = heap_info(VIDEO)?;
    anyhow::ensure!(info.quarantined == quarantined.size, "{info:?}");
    prey.unharmed()?;

    let ranges = [prey.range, large, surface, picture, quarantined]
        .map(|range| format!("{:#x}+{:#x}", range.start, range.size))
        .join(",");
    // What ends the new kernel early would not be seen otherwise.
    load(&format!("{line} earlycon {LIFE}{ranges}"))?;
    reboot(RebootCommand::Kexec)?;
    anyhow::bail!("the old kernel lives")
}

/// `KEXEC_FILE_NO_CMA`: in the contiguous memory, which lies at the end of RAM, the
/// kernel would leave no room behind it for the initramfs.
const NO_CMA: libc::c_ulong = 0x10;

/// Loads the kernel that this machine was booted from.
fn load(line: &str) -> anyhow::Result<()> {
    let open = |name: &str| {
        let path = Path::new(SHARE).join(name);
        File::open(&path).with_context(|| path.display().to_string())
    };
    let (image, initramfs) = (open("Image")?, open("initramfs")?);
    let line = CString::new(line)?;
    // SAFETY: The call reads two open files, and the line with the length that is
    // said, its end included.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            image.as_raw_fd(),
            initramfs.as_raw_fd(),
            line.as_bytes_with_nul().len(),
            line.as_ptr(),
            NO_CMA,
        )
    };
    if loaded != 0 {
        return Err(io::Error::last_os_error()).context("kexec_file_load");
    }
    Ok(())
}

/// The second life: the driver has found the ranges in the secure world's list.
fn after(ranges: &str) -> anyhow::Result<()> {
    all_online()?;
    deadline::until(Duration::from_secs(60), "the old ranges are opened", || {
        let info = SecureSession::open()?.info()?;
        Ok((info.ranges == 0).then_some(()))
    })?;
    let mut count = 0;
    for range in ranges.split(',') {
        let (start, size) = range.split_once('+').context("no range")?;
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        let range = PhysicalRange {
            start: number(start)?,
            size: number(size)?,
        };
        expect_zero(range, "of the old kernel")?;
        count += 1;
    }
    anyhow::ensure!(count == 5, "{count} ranges");
    nothing_is_left()?;
    // And the new kernel has all that it needs.
    let mut prey = Prey::new()?;
    prey.unharmed()?;
    prey.release()?;
    let (buffer, whole) = region::allocate(VIDEO, region::of(VIDEO)?.size)?;
    expect_killed(whole.page(0), "all of the region")?;
    drop(buffer);
    drop(Ta::open()?);
    Ok(())
}
