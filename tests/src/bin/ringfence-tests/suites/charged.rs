// SPDX-License-Identifier: MIT OR Apache-2.0

//! Buffers of the system heap that are charged to whoever allocates them: a boot
//! with `dma_heap.mem_accounting=1`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ringfence_tests::guest::mapping::Mapping;
use ringfence_tests::guest::{allocation, deadline, debug, expect_errno};
use rustix::io::Errno;

use super::Test;

pub const TESTS: &[Test] = &[
    ("buffers_are_charged_to_their_process", charged),
    ("a_limit_refuses_and_kills_nobody", limited),
    ("there_is_no_pool", no_pool),
];

const HEAP: &str = "system";
const MIB: u64 = 1 << 20;

/// What the controller charges ahead for each CPU.
const SLACK: u64 = MIB;

const ROOT: &str = "/sys/fs/cgroup";

/// A control group with this process in it, removed when this is dropped.
struct Group(PathBuf);

impl Group {
    fn enter(name: &str) -> anyhow::Result<Self> {
        write(&Path::new(ROOT).join("cgroup.subtree_control"), "+memory")?;
        let folder = Path::new(ROOT).join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let group = Self(folder);
        write(&group.0.join("cgroup.procs"), "0")?;
        Ok(group)
    }

    fn current(&self) -> anyhow::Result<u64> {
        let path = self.0.join("memory.current");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    fn limit(&self, limit: &str) -> anyhow::Result<()> {
        write(&self.0.join("memory.max"), limit)
    }

    /// Processes that were killed for the group's limit.
    fn killed(&self) -> anyhow::Result<u64> {
        let path = self.0.join("memory.events");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
            .with_context(|| format!("{}: {text}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = write(&Path::new(ROOT).join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("{}: {text}", path.display()))
}

fn charged() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    let group = Group::enter("charged")?;
    for size in [2 * MIB, 16 * MIB + 4096] {
        let before = group.current()?;
        let buffer = allocation::allocate_size(&device, size)?;
        let during = group.current()?;
        anyhow::ensure!(
            during + SLACK >= before + size && during <= before + size + SLACK,
            "{during} bytes charged, and {before} before {size} were allocated"
        );
        drop(buffer);
        deadline::until(Duration::from_secs(10), "the charge is given back", || {
            Ok((group.current()? <= before + SLACK).then_some(()))
        })?;
    }
    Ok(())
}

fn limited() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    let group = Group::enter("limited")?;
    group.limit("24M")?;
    for _ in 0..3 {
        let outcome = allocation::allocate_size(&device, 64 * MIB);
        expect_errno(outcome, Errno::NOMEM, "more than the limit")?;
    }
    let buffer = allocation::allocate_size(&device, 8 * MIB)?;
    let mapping = Mapping::new(&buffer, 8 * MIB as usize)?;
    anyhow::ensure!(mapping.others_than(0) == 0, "not zeroed");
    drop(mapping);
    anyhow::ensure!(group.killed()? == 0, "somebody was killed for the limit");
    group.limit("max")?;
    drop(allocation::allocate_size(&device, 64 * MIB)?);
    Ok(())
}

fn no_pool() -> anyhow::Result<()> {
    let device = allocation::open(HEAP)?;
    drop(allocation::allocate_size(&device, 8 * MIB)?);
    for figure in ["clean", "dirty"] {
        let bytes = debug::figure(HEAP, figure)?;
        anyhow::ensure!(bytes == 0, "{bytes} bytes are {figure}");
    }
    Ok(())
}
