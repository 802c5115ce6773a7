// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks by taking the driver away.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use ringfence::control::Control;
use ringfence_tests::guest::expect_errno;
use ringfence_tests::guest::memory::expect_killed;
use ringfence_tests::guest::module::{self, CARVEOUT, CORE};
use rustix::io::Errno;

use super::prey::attacked;
use crate::suites::modules::all_online;
use crate::suites::region;

/// Every module that has a part in it is asked to go.
pub fn module_unload() -> anyhow::Result<()> {
    attacked(|prey| {
        for module in [CARVEOUT, CORE, "optee"] {
            let outcome = module::unload(module);
            expect_errno(outcome, Errno::AGAIN, &format!("rmmod {module}"))?;
            expect_killed(prey.range.page(0), "after the refusal")?;
        }
        Ok(())
    })
}

/// Takes a device from its driver, and gives it back.
fn without_driver(
    device: &str,
    meanwhile: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = device.rsplit('/').next().context("no name")?.to_owned();
    let driver = fs::canonicalize(format!("{device}/driver"))
        .with_context(|| format!("{device} has no driver"))?;
    let tell = |file: &str| {
        let path: PathBuf = driver.join(file);
        fs::write(&path, &name).with_context(|| path.display().to_string())
    };
    tell("unbind")?;
    let outcome = meanwhile();
    tell("bind")?;
    outcome
}

/// The heap's device loses its driver, and the region's other devices as well.
pub fn unbound_heap() -> anyhow::Result<()> {
    attacked(|prey| {
        without_driver("/sys/bus/platform/devices/heap-protected-video", || {
            expect_killed(prey.range.page(0), "without the heap's driver")?;
            prey.unharmed()
        })?;
        all_online()
    })
}

/// The trusted application's device on the TEE bus loses its driver.
pub fn unbound_application() -> anyhow::Result<()> {
    const BUS: &str = "/sys/bus/tee/devices";
    attacked(|prey| {
        let uuid = ringfence::proto::command::TA_UUID_TEXT;
        let name = fs::read_dir(BUS)
            .context(BUS)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.contains(uuid))
            .context("the application is not on the bus")?;
        without_driver(&format!("{BUS}/{name}"), || {
            expect_killed(prey.range.page(0), "without the application's driver")?;
            let outcome = region::allocate(region::VIDEO, 4096);
            anyhow::ensure!(outcome.is_err(), "a heap without its firewall allocates");
            // The content is there all the same, for those who may have it.
            prey.fixture.expect_content(&mut prey.ta, prey.handle)
        })?;
        all_online()?;
        anyhow::ensure!(Control::open()?.buffer(&prey.buffer)?.protected);
        Ok(())
    })
}
