// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: host tests and guest suites, counted together.

use std::fmt;
use std::io::Write;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::artefact::kernel::Flavour;
use crate::bench;
use crate::bindings;
use crate::cache::Cache;
use crate::content;
use crate::rust::Toolchain;
use crate::stack::{workspace, Build, Stack};
use crate::suites::{
    GuestBoot, HostSuite, Proof, GUEST, HOST, LATENCY_SUITE, PROOFS, PROOFS_SUITE,
};
use crate::vm::{self, Boot, Conditions, Sink, Stream, Task, Verdict};

/// Outcomes of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };

    const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Whether something ran and nothing failed.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// Counts of a summary of libtest or libtest-mimic, if `line` is one.
    fn of_summary(line: &str) -> Option<Self> {
        let (_, counts) = line
            .trim()
            .strip_prefix("test result: ")?
            .split_once(". ")?;
        let count = |word: &str| {
            let field = counts
                .split(';')
                .map(str::trim)
                .find(|field| field.ends_with(word))?;
            field.split(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            skipped: count(" ignored")?,
        })
    }

    /// Sum of all summaries in `output`.
    fn of_output(output: &str) -> Self {
        let mut sum = Self::default();
        for counts in output.lines().filter_map(Self::of_summary) {
            sum += counts;
        }
        sum
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Runs the suites named, or all; with the debug kernel only those of the guest.
pub fn run(cache: &Cache, flavour: Flavour, names: &[String]) -> Result<Counts> {
    check_names(names)?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|other| other == name);
    let stack = Stack::declare(cache, flavour, Build::Test)?;
    let mut counts = Counts::default();
    if flavour == Flavour::Plain {
        for (name, suite) in HOST.into_iter().filter(|(name, _)| wanted(name)) {
            heading(name);
            counts += run_on_host(&stack, suite)?;
        }
    }
    let boots: Vec<(&GuestBoot, Vec<&str>)> = GUEST
        .iter()
        .map(|boot| {
            (
                boot,
                boot.suites
                    .iter()
                    .copied()
                    .filter(|name| wanted(name))
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|(_, suites)| !suites.is_empty())
        .collect();
    let latency = flavour == Flavour::Plain && wanted(LATENCY_SUITE);
    let proofs = flavour == Flavour::Debug && wanted(PROOFS_SUITE);
    if !boots.is_empty() || proofs {
        stack.build_for_content()?;
    }
    for (boot, suites) in boots {
        heading(&format!("guest: {}", suites.join(" ")));
        counts += run_in_guest(cache, &stack, boot.conditions, &suites)?;
    }
    if latency {
        heading("guest: latency, in instructions");
        counts += run_latency(cache, &stack)?;
    }
    if proofs {
        heading("guest: a report of the debug kernel fails the run");
        for proof in &PROOFS {
            counts += prove(cache, &stack, proof)?;
        }
    }
    Ok(counts)
}

fn check_names(names: &[String]) -> Result<()> {
    let host = HOST.iter().map(|(name, _)| *name);
    let guest = GUEST.iter().flat_map(|boot| boot.suites.iter().copied());
    let known: Vec<&str> = host
        .chain(guest)
        .chain([LATENCY_SUITE, PROOFS_SUITE])
        .collect();
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => bail!("no suite {unknown}; there are: {}", known.join(" ")),
        None => Ok(()),
    }
}

fn heading(text: &str) {
    println!("==== {text}");
}

fn run_on_host(stack: &Stack, suite: HostSuite) -> Result<Counts> {
    let mut cargo = Toolchain::detect()?.cargo();
    cargo.current_dir(workspace());
    // These are builds for this machine, which go where the caller wants such.
    if let Some(directory) = std::env::var_os("CARGO_TARGET_DIR") {
        cargo.env("CARGO_TARGET_DIR", directory);
    }
    match suite {
        HostSuite::Tests => {
            return run_cargo_tests(cargo.args(["test", "--workspace", "--locked"]))
        }
        HostSuite::Format => cargo.args(["fmt", "--all", "--check"]),
        HostSuite::Lint => cargo.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
        HostSuite::ModulesFormat => {
            stack.plan.execute(&[&stack.linux.step])?;
            cargo = Command::new("rustfmt");
            cargo.args(["--check", "--edition", "2021", "--config-path"]);
            cargo
                .arg(stack.linux.tree.join(".rustfmt.toml"))
                .args(module_sources()?)
        }
        HostSuite::Bindings => return check_bindings(stack),
        HostSuite::Miri => return run_under_miri(),
        HostSuite::Kani => return run_under_kani(),
        HostSuite::ModulesLint => {
            return Ok(match stack.plan.execute(&[&stack.modules_clippy]) {
                Ok(()) => Counts::PASSED,
                Err(error) => {
                    println!("{error:#}");
                    Counts::FAILED
                }
            })
        }
    };
    let status = cargo.status().context("start a host suite")?;
    Ok(if status.success() {
        Counts::PASSED
    } else {
        Counts::FAILED
    })
}

/// Package of the allocator.
const ALLOCATOR: [&str; 2] = ["--package", "ringfence-range-alloc"];

/// The allocator's tests under Miri: a nightly toolchain must have it, and the library's source.
fn run_under_miri() -> Result<Counts> {
    let nightly = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        // It must not fetch what is missing.
        command.env("RUSTUP_AUTO_INSTALL", "0");
        command.args(["run", "nightly"]).args(arguments);
        command
    };
    let has_miri = succeeds(&mut nightly(&["cargo", "miri", "--version"]));
    let sysroot = nightly(&["rustc", "--print", "sysroot"]).output();
    let has_source = sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core")
            .exists()
    });
    if !has_miri || !has_source {
        println!(
            "test miri ... SKIPPED: no nightly toolchain with the components miri and rust-src"
        );
        return Ok(Counts::SKIPPED);
    }
    run_cargo_tests(
        nightly(&["cargo", "miri", "test", "--locked"])
            .args(ALLOCATOR)
            .current_dir(workspace()),
    )
}

/// The allocator's harnesses under Kani.
fn run_under_kani() -> Result<Counts> {
    if !succeeds(Command::new("cargo").args(["kani", "--version"])) {
        println!("test kani ... SKIPPED: cargo-kani is not installed");
        return Ok(Counts::SKIPPED);
    }
    let status = Command::new("cargo")
        .arg("kani")
        .args(ALLOCATOR)
        .current_dir(workspace())
        .status()?;
    Ok(if status.success() {
        Counts::PASSED
    } else {
        Counts::FAILED
    })
}

/// Whether a command is there and ends well; what it prints is of no interest.
fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn check_bindings(stack: &Stack) -> Result<Counts> {
    stack
        .plan
        .execute(&[&stack.dtschema.step, &stack.devicetree.step])?;
    let dts = workspace().join("dts");
    let mut counts = Counts::default();
    for (name, outcome) in bindings::run(&stack.dtschema, &dts, &stack.devicetree)? {
        match outcome {
            Ok(()) => {
                println!("test bindings::{name} ... ok");
                counts += Counts::PASSED;
            }
            Err(error) => {
                println!("test bindings::{name} ... FAILED: {error:#}");
                counts += Counts::FAILED;
            }
        }
    }
    Ok(counts)
}

/// The kernel modules' sources, without the crate that Cargo formats.
fn module_sources() -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    let is_module = |entry: &walkdir::DirEntry| entry.file_name() != "range_alloc";
    for folder in ["kmod", "tests/kmod"] {
        for entry in walkdir::WalkDir::new(workspace().join(folder))
            .into_iter()
            .filter_entry(is_module)
        {
            let path = entry?.into_path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    Ok(sources)
}

/// Runs `cargo test`, shows what it prints, and counts.
fn run_cargo_tests(cargo: &mut Command) -> Result<Counts> {
    let output = cargo
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?
        .wait_with_output()?;
    std::io::stdout().write_all(&output.stdout)?;
    let mut counts = Counts::of_output(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() && counts.failed == 0 {
        // It did not even compile, or a test program died.
        counts += Counts::FAILED;
    }
    Ok(counts)
}

fn run_in_guest(
    cache: &Cache,
    stack: &Stack,
    conditions: Conditions,
    suites: &[&str],
) -> Result<Counts> {
    let directory = vm::run_directory(cache)?;
    let content = content::prepare(cache, &stack.clip, &directory.join("share"))?;
    let script = format!(
        "failed=0; for suite in {}; do ringfence-tests $suite || failed=1; done; exit $failed",
        suites.join(" ")
    );
    let (sink, output) = recorder();
    let mut boot = Boot::of(
        Task::Command(["sh", "-c", &script].map(str::to_owned).to_vec()),
        directory,
    );
    boot.conditions = conditions;
    boot.share = Some(&content.directory);
    boot.needles = vec![content.needles.clone()];
    boot.timeout = Some(time_limit(stack.kernel.flavour));
    boot.sink = sink;
    let outcome = vm::boot(stack, &boot)?;
    let printed = output.lock().expect("no holder panics").clone();
    let mut counts = Counts::of_output(&String::from_utf8_lossy(&printed));
    // A suite that failed to start has no summary, and a crash is nobody's summary.
    let ended_well = matches!(outcome.verdict, Verdict::Exit(0));
    if !ended_well {
        crate::conclude(&outcome);
        if counts.failed == 0 {
            counts += Counts::FAILED;
        }
    }
    Ok(counts)
}

/// Measures, and judges the figures that have a bound.
fn run_latency(cache: &Cache, stack: &Stack) -> Result<Counts> {
    let judgements = match bench::gate(cache, stack)? {
        Ok(judgements) => judgements,
        Err(outcome) => {
            crate::conclude(&outcome);
            return Ok(Counts::FAILED);
        }
    };
    let mut counts = Counts::default();
    for (name, judged) in judgements {
        match judged {
            Ok(said) => {
                println!("test {LATENCY_SUITE}::{name} ... ok: {said}");
                counts += Counts::PASSED;
            }
            Err(error) => {
                println!("test {LATENCY_SUITE}::{name} ... FAILED: {error:#}");
                counts += Counts::FAILED;
            }
        }
    }
    Ok(counts)
}

/// Makes one fault on purpose; passes when the run ends as a failure because of it.
fn prove(cache: &Cache, stack: &Stack, proof: &Proof) -> Result<Counts> {
    let command = ["sh", "-c", proof.command].map(str::to_owned).to_vec();
    let mut boot = Boot::of(Task::Command(command), vm::run_directory(cache)?);
    boot.conditions = Conditions {
        optee: false,
        heaps: false,
        upstream: false,
    };
    boot.timeout = Some(time_limit(stack.kernel.flavour));
    let outcome = vm::boot(stack, &boot)?;
    let proven = match &outcome.verdict {
        Verdict::Reported(0, reports) if !proof.fatal => {
            reports.iter().any(|report| report.contains(proof.mark))
        }
        Verdict::Crashed(line) if proof.fatal => line.contains(proof.mark),
        _ => false,
    };
    if proven {
        println!("test {PROOFS_SUITE}::{} ... ok", proof.name);
        return Ok(Counts::PASSED);
    }
    println!(
        "test {PROOFS_SUITE}::{} ... FAILED: no run that failed for {:?}",
        proof.name, proof.mark
    );
    crate::conclude(&outcome);
    Ok(Counts::FAILED)
}

fn time_limit(flavour: Flavour) -> Duration {
    match flavour {
        Flavour::Plain => Duration::from_secs(600),
        Flavour::Debug => Duration::from_secs(1800),
    }
}

/// A sink that passes output on and keeps what came on standard output.
fn recorder() -> (Sink, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let sink: Sink = Arc::new(move |stream, bytes: &[u8]| {
        if stream == Stream::Output {
            keep.lock()
                .expect("no holder panics")
                .extend_from_slice(bytes);
        }
        vm::pass_on(stream, bytes);
    });
    (sink, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_test_harnesses_are_counted() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            noise: 9 passed; 9 failed\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 4.10s\n";
        let sum = Counts::of_output(output);
        assert_eq!(
            sum,
            Counts {
                passed: 5,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Counts::default().is_success());
        assert!(!Counts {
            passed: 5,
            failed: 1,
            skipped: 0
        }
        .is_success());
        assert!(Counts {
            passed: 5,
            failed: 0,
            skipped: 2
        }
        .is_success());
    }

    #[test]
    fn an_unknown_suite_is_refused_with_the_known_ones() {
        let error = check_names(&["nonsense".to_owned()]).expect_err("there is none");
        assert!(error.to_string().contains("protect"));
        assert!(check_names(&["heaps".to_owned(), "host".to_owned()]).is_ok());
    }
}
