// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot in which all heaps are measured.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use ringfence_tests::bench::Figures;

use crate::artefact::devicetree::Board;
use crate::cache::Cache;
use crate::content;
use crate::ladder::Ladder;
use crate::stack::Stack;
use crate::vm::{self, Boot, Outcome, Sink, Stream, Task, Verdict};

/// How long the boot may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Every heap, as `ringfence-bench` wants them: the protected one up to its size.
pub const ALL: &[&str] = &[
    "pages",
    "floor",
    "bench",
    "default_cma_region",
    "system",
    "protected-record:8388608",
    "protected-video:67108864",
    "protection:protected-video",
    "mixed:floor,bench",
    "content:protected-video",
    "touch:camera,default_cma_region,system",
    STATES,
];

/// What a camera may allocate from, as `ringfence-bench` wants it.
pub const STATES: &str = "states:bench,default_cma_region,system";

/// What has bounds that each run of the tests holds: the upstream heaps up to the size that is
/// compared.
pub const GATED: &[&str] = &[
    "pages",
    "floor",
    "bench",
    "default_cma_region:67108864",
    "system:67108864",
    "protected-record:8388608",
    "protection:protected-video",
    "mixed:bench",
    "content:protected-video",
];

/// Words for the kernel's command line: a CMA region in which the largest size fits, and no
/// instruction that clears memory of any length and yet counts as one.
pub const BOOTARGS: &str = "cma=320M arm64.nomops";

/// Boots and measures `heaps`; how the boot ended when it did not end well.
pub fn measure(cache: &Cache, stack: &Stack, heaps: &[&str]) -> Result<Result<Figures, Outcome>> {
    stack.build_for_content()?;
    let directory = vm::run_directory(cache)?;
    let content = content::prepare(&Ladder::new(cache)?, stack, &directory.join("share"))?;
    let printed = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&printed);
    let sink: Sink = Arc::new(move |stream, bytes: &[u8]| match stream {
        Stream::Output => keep
            .lock()
            .expect("no holder panics")
            .extend_from_slice(bytes),
        Stream::Error => vm::pass_on(stream, bytes),
    });
    let script = format!(
        "modprobe ringfence_floor && ringfence-bench {}",
        heaps.join(" ")
    );
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let mut boot = Boot::of(Task::Command(command), directory);
    boot.share = Some(&content.directory);
    boot.board = Board::Bench;
    boot.bootargs = BOOTARGS;
    boot.icount = true;
    boot.conditions.upstream = true;
    boot.timeout = Some(TIMEOUT);
    boot.sink = sink;
    let outcome = vm::boot(stack, &boot)?;
    if !matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(Err(outcome));
    }
    let printed = printed.lock().expect("its readers have ended");
    serde_json::from_slice(&printed)
        .map(Ok)
        .context("what the guest printed is no document")
}
