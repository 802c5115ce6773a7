// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::io::Errno;
use rustix::system::{delete_module, finit_module, uname};

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

/// The file of one of this project's modules.
pub fn file(name: &str) -> anyhow::Result<PathBuf> {
    let release = uname().release().to_string_lossy().into_owned();
    let folder = Path::new("/lib/modules").join(release).join("updates");
    let wanted = format!("{name}.ko");
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == wanted.as_str()) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no module {name}")
}

/// Loads a module out of its file, without what it depends on.
pub fn insert(file: &Path, parameters: &CStr) -> anyhow::Result<()> {
    let module = File::open(file).with_context(|| file.display().to_string())?;
    finit_module(&module, parameters, 0).with_context(|| file.display().to_string())
}

/// Unloads a module, without waiting until it is not in use.
pub fn unload(name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    /// `O_NONBLOCK`.
    const NONBLOCK: i32 = 0o4000;
    delete_module(&name, NONBLOCK)
}
