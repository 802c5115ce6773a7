// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules.

use std::ffi::CString;
use std::fs;
use std::process::Command;

use anyhow::Context;
use rustix::io::Errno;
use rustix::system::delete_module;

/// The heap module.
pub const CARVEOUT: &str = "ringfence_carveout";
/// The module of the CMA heaps.
pub const CMA: &str = "ringfence_cma";
/// The module of the system heap.
pub const SYSTEM: &str = "ringfence_system";
/// The module that keeps the registrations.
pub const CORE: &str = "ringfence_core";

/// Whether a module is loaded.
pub fn is_loaded(name: &str) -> anyhow::Result<bool> {
    let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    Ok(modules
        .lines()
        .any(|line| line.split(' ').next() == Some(name)))
}

/// Loads a module and what it depends on.
pub fn load(name: &str) -> anyhow::Result<()> {
    load_with(name, &[])
}

/// Loads a module with parameters; a loaded one keeps those that it has.
pub fn load_with(name: &str, parameters: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("modprobe")
        .arg(name)
        .args(parameters)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "modprobe {name}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Unloads a module, without waiting until it is not in use.
pub fn unload(name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    /// `O_NONBLOCK`.
    const NONBLOCK: i32 = 0o4000;
    delete_module(&name, NONBLOCK)
}
