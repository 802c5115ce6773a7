// SPDX-License-Identifier: MIT OR Apache-2.0

//! A control group that limits device memory.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

const ROOT: &str = "/sys/fs/cgroup";

/// A group below the root with the `dmem` controller, and this process in it;
/// removed when this is dropped.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes it, and moves this process there.
    pub fn enter(name: &str) -> anyhow::Result<Self> {
        let root = PathBuf::from(ROOT);
        write(&root.join("cgroup.subtree_control"), "+dmem")?;
        let folder = root.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let group = Self(folder);
        write(&group.0.join("cgroup.procs"), "0")?;
        Ok(group)
    }

    /// Moves this process back to the root.
    pub fn leave(&self) -> anyhow::Result<()> {
        write(&PathBuf::from(ROOT).join("cgroup.procs"), "0")
    }

    /// Limits what the group may have of a heap's memory, in bytes; `None` for no
    /// limit.
    pub fn limit(&self, memory: &str, bytes: Option<u64>) -> anyhow::Result<()> {
        let limit = bytes.map_or("max".to_owned(), |bytes| bytes.to_string());
        write(
            &self.0.join("dmem.max"),
            &format!("ringfence/{memory} {limit}"),
        )
    }

    /// Bytes that the group has of it.
    pub fn current(&self, memory: &str) -> anyhow::Result<u64> {
        let path = self.0.join("dmem.current");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.lines()
            .find_map(|line| {
                let (name, bytes) = line.split_once(' ')?;
                (name == format!("ringfence/{memory}")).then(|| bytes.parse().ok())?
            })
            .with_context(|| format!("{}: no {memory} in {text:?}", path.display()))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Buffers that are still charged keep the group alive, but not its folder.
        let _ = self.leave();
        let _ = fs::remove_dir(&self.0);
    }
}

fn write(path: &PathBuf, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{}: {text}", path.display()))
}

/// The memory that can be limited, with its capacity in bytes.
pub fn capacities() -> anyhow::Result<Vec<(String, u64)>> {
    let path = PathBuf::from(ROOT).join("dmem.capacity");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            Some((
                name.strip_prefix("ringfence/")?.to_owned(),
                bytes.parse().ok()?,
            ))
        })
        .collect())
}
