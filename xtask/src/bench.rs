// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: the allocator's instructions per call, then figures of one boot in which the
//! guest's time counts instructions. Neither depends on how busy this machine is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use serde::Serialize;

use crate::artefact::kernel::Flavour;
use crate::cache::Cache;
use crate::rust::Toolchain;
use crate::stack::{workspace, Build, Stack};
use crate::vm::{self, Boot, Outcome, Sink, Stream, Task, Verdict};

/// How long the boot may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// How often each command is repeated: the guest's clock has steps of 10 ms.
const REPETITIONS: u32 = 20;

/// Heap and size of each allocation that is measured.
const ALLOCATIONS: [(&str, &str); 4] = [
    ("camera", "4K"),
    ("camera", "64M"),
    ("protected-video", "64K"),
    ("protected-video", "16M"),
];

/// All figures, as they are written.
#[derive(Debug, Serialize)]
struct Report {
    /// Instructions per call of the range allocator and its peers.
    allocator: serde_json::Value,
    /// Guest time by name.
    guest: BTreeMap<String, Figure>,
}

/// What a figure means.
#[derive(Debug, Serialize)]
struct Figure {
    /// Milliseconds of guest time.
    milliseconds: f64,
}

/// Measures, prints, and writes the figures to `json`; returns how the boot ended.
pub fn run(cache: &Cache, json: Option<&Path>) -> Result<Outcome> {
    let stack = Stack::declare(cache, Flavour::Plain, Build::Test)?;
    stack.build_for_boot()?;
    let directory = vm::run_directory(cache)?;
    let allocator = count_instructions(&directory.join("allocator.json"))?;
    let printed = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&printed);
    let sink: Sink = Arc::new(move |stream, bytes: &[u8]| match stream {
        Stream::Output => keep
            .lock()
            .expect("no holder panics")
            .extend_from_slice(bytes),
        Stream::Error => vm::pass_on(stream, bytes),
    });
    let command = ["sh".to_owned(), "-c".to_owned(), script()];
    let mut boot = Boot::of(Task::Command(command.to_vec()), directory);
    boot.icount = true;
    boot.timeout = Some(TIMEOUT);
    boot.sink = sink;
    let outcome = vm::boot(&stack, &boot)?;
    if !matches!(outcome.verdict, Verdict::Exit(0)) {
        return Ok(outcome);
    }
    let text = String::from_utf8(printed.lock().expect("its readers have ended").clone())?;
    let figures = figures(&text)?;
    for (name, figure) in &figures {
        println!("{name:48} {:9.2} ms", figure.milliseconds);
    }
    let report = Report {
        allocator,
        guest: figures,
    };
    if let Some(path) = json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(outcome)
}

/// Runs the allocator's own bench, which prints its table, and reads the figures that it writes.
fn count_instructions(figures: &Path) -> Result<serde_json::Value> {
    let mut cargo = Toolchain::detect()?.cargo();
    cargo
        .current_dir(workspace())
        .args(["bench", "--quiet", "--locked"]);
    cargo
        .args([
            "--package",
            "ringfence-range-alloc",
            "--bench",
            "counts",
            "--",
            "--json",
        ])
        .arg(figures);
    let status = cargo.status().context("start the allocator's bench")?;
    ensure!(status.success(), "the allocator's bench failed ({status})");
    Ok(serde_json::from_slice(&fs::read(figures)?)?)
}

/// What the guest does: prints `name<TAB>repetitions<TAB>seconds before<TAB>seconds after`.
fn script() -> String {
    let mut script = String::from(
        "up() { read -r up rest < /proc/uptime; echo \"$up\"; }\n\
         printf 'start of the kernel to the first command\\t1\\t0\\t%s\\n' \"$(up)\"\n\
         repeat() {\n  name=$1; shift; before=$(up); n=0\n\
         \x20 while [ $n -lt $REPETITIONS ]; do \"$@\" > /dev/null || exit 1; n=$((n + 1)); done\n\
         \x20 printf '%s\\t%s\\t%s\\t%s\\n' \"$name\" $REPETITIONS \"$before\" \"$(up)\"\n}\n",
    );
    script.insert_str(0, &format!("REPETITIONS={REPETITIONS}\n"));
    script.push_str("repeat 'ringfence heaps, whole process' ringfence heaps\n");
    for (heap, size) in ALLOCATIONS {
        script.push_str(&format!(
            "repeat 'ringfence alloc {heap} {size}, whole process' ringfence alloc --heap {heap} --size {size}\n"
        ));
    }
    script
}

fn figures(text: &str) -> Result<BTreeMap<String, Figure>> {
    let mut figures = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, repetitions, before, after] = fields[..] else {
            anyhow::bail!("the guest printed no figure: {line}");
        };
        let seconds = after.parse::<f64>()? - before.parse::<f64>()?;
        let milliseconds = seconds * 1000.0 / repetitions.parse::<f64>()?;
        figures.insert(name.to_owned(), Figure { milliseconds });
    }
    ensure!(!figures.is_empty(), "the guest printed no figures");
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn a_figure_is_time_by_repetition() {
        let figures = figures("a\t20\t1.50\t2.50\n").expect("one figure");
        assert!((figures["a"].milliseconds - 50.0).abs() < 1e-9);
    }

    #[test]
    fn noise_is_no_figure() {
        assert!(figures("").is_err());
        assert!(figures("sh: ringfence: not found\n").is_err());
    }
}
