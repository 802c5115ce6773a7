// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot in which all heaps are measured.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use ringfence_tests::bench::Figures;

use super::report::{Conditions, Report};
use crate::artefact::devicetree::Board;
use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::host;
use crate::stack::{Build, Stack};
use crate::vm::{self, machine, Boot, Outcome, Sink, Stream, Task, Verdict};

/// How long the boot may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Heaps as `ringfence-bench` wants them: the floor first, and the protected one up to its size.
const HEAPS: [&str; 5] = [
    "floor",
    "bench",
    "default_cma_region",
    "system",
    "protected-video:67108864",
];

/// Words for the kernel's command line: a CMA region in which the largest size fits.
const BOOTARGS: &str = "cma=320M arm64.nomops";

/// Boots and measures; how the boot ended when it did not end well.
pub fn measure(cache: &Cache) -> Result<Result<Report, Outcome>> {
    let stack = Stack::declare(cache, Flavour::Plain, Build::Test)?;
    stack.build_for_boot()?;
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
        HEAPS.join(" ")
    );
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let mut boot = Boot::of(Task::Command(command), vm::run_directory(cache)?);
    boot.board = Board::Bench;
    boot.bootargs = BOOTARGS;
    boot.icount = true;
    boot.conditions.upstream = true;
    boot.timeout = Some(TIMEOUT);
    boot.sink = sink;
    let outcome = vm::boot(&stack, &boot)?;
    if !matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(Err(outcome));
    }
    let printed = printed.lock().expect("its readers have ended");
    let heaps: Figures =
        serde_json::from_slice(&printed).context("what the guest printed is no document")?;
    let conditions = Conditions {
        qemu: host::qemu_version().context("QEMU tells no version")?,
        board: machine::board().join(" "),
        icount: vm::ICOUNT.to_owned(),
        bootargs: BOOTARGS.to_owned(),
    };
    Ok(Ok(Report { conditions, heaps }))
}
