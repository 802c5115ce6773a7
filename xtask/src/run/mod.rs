// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: the main jobs.

mod camera;
mod chart;
mod page;
mod video;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::cli::Scenario;
use crate::content;
use crate::ladder::Ladder;
use crate::stack::{Build, Stack};
use crate::vm::{self, Boot, Outcome, Task, Verdict};

/// How long a scenario may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Plays a scenario, or all of them until one fails; says how the last boot ended.
///
/// Pictures go to `output`, or to the directory of the boot that they are of.
pub fn run(cache: &Cache, scenario: Scenario, output: Option<&Path>) -> Result<Outcome> {
    let stack = Stack::declare(cache, Flavour::Plain, Build::Test)?;
    match scenario {
        Scenario::Main => main(cache, &stack),
        Scenario::Camera => camera::run(cache, &stack, output),
        Scenario::Video => video::run(cache, &stack, output),
        Scenario::All => {
            let outcome = main(cache, &stack)?;
            if !matches!(outcome.verdict, Verdict::Exit(0)) {
                return Ok(outcome);
            }
            println!();
            let outcome = video::run(cache, &stack, output)?;
            if !matches!(outcome.verdict, Verdict::Exit(0)) {
                return Ok(outcome);
            }
            println!();
            camera::run(cache, &stack, output)
        }
    }
}

/// Builds what is missing, prepares the content, boots, and decrypts it.
fn main(cache: &Cache, stack: &Stack) -> Result<Outcome> {
    stack.build_for_content()?;
    let directory = vm::run_directory(cache)?;
    let content = content::prepare(&Ladder::new(cache)?, stack, &directory.join("share"))?;
    let command = ["ringfence-scenario", "main", "/mnt/share/job.json"];
    let mut boot = Boot::of(
        Task::Command(command.map(str::to_owned).to_vec()),
        directory,
    );
    boot.share = Some(&content.directory);
    boot.needles = vec![content.needles.clone()];
    boot.timeout = Some(TIMEOUT);
    vm::boot(stack, &boot)
}
