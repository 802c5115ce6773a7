// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run video`: an encrypted film is played, and looked at from all sides.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ringfence_tests::screening::{self, Seen, SCREENING, SEEN};

use super::{page, TIMEOUT};
use crate::cache::Cache;
use crate::ladder::Ladder;
use crate::screening::Screening;
use crate::stack::Stack;
use crate::vm::{self, Boot, Outcome, Task, Verdict};

/// Pictures at which the film is stopped.
const PAUSES: [u32; 4] = [10, 24, 40, 56];

/// Builds what is missing, makes the film, boots, plays it, and puts the pictures together on a page.
pub fn run(cache: &Cache, stack: &Stack, output: Option<&Path>) -> Result<Outcome> {
    stack.build_for_feature()?;
    let directory = vm::run_directory(cache)?;
    let ladder = Ladder::new(cache)?;
    let title = &stack.clip.title;
    let prepared = Screening::prepare(&ladder, title, &stack.feature, &directory, &PAUSES)?;
    let job = format!("/mnt/share/{SCREENING}");
    let command = ["ringfence-scenario", "video", &job];
    let boot = Boot {
        share: Some(&prepared.share),
        needles: vec![prepared.needles.clone()],
        originals: Some(prepared.originals.clone()),
        timeout: Some(TIMEOUT),
        ..Boot::of(
            Task::Command(command.map(str::to_owned).to_vec()),
            directory,
        )
    };
    let outcome = vm::boot(stack, &boot)?;
    if !matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(outcome);
    }
    let seen: Seen = screening::read(&prepared.share.join(SEEN)).context(SEEN)?;
    let folder = output.map_or_else(|| boot.directory.join("page"), Path::to_owned);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let written = page::write(&folder, &boot.pictures(), &prepared, &seen)?;
    println!("\npictures: {}", written.display());
    Ok(outcome)
}
