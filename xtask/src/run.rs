// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: the main job.

use std::time::Duration;

use anyhow::Result;

use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::content;
use crate::stack::{Build, Stack};
use crate::vm::{self, Boot, Outcome, Task};

/// How long the scenario may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Builds what is missing, prepares the content, boots, and plays the scenario.
pub fn run(cache: &Cache) -> Result<Outcome> {
    let stack = Stack::declare(cache, Flavour::Plain, Build::Test)?;
    stack.build_for_content()?;
    let directory = vm::run_directory(cache)?;
    let content = content::prepare(cache, &stack, &directory.join("share"))?;
    let command = ["ringfence-scenario", "main", "/mnt/share/job.json"];
    let mut boot = Boot::of(
        Task::Command(command.map(str::to_owned).to_vec()),
        directory,
    );
    boot.share = Some(&content.directory);
    boot.needles = vec![content.needles.clone()];
    boot.timeout = Some(TIMEOUT);
    vm::boot(&stack, &boot)
}
