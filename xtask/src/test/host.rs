// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suites that run on the building machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::counts::Counts;
use super::transcript::Page;
use crate::bindings;
use crate::rust::Toolchain;
use crate::stack::{workspace, Stack};
use crate::suites::HostSuite;

/// Runs one suite.
pub fn run(stack: &Stack, suite: HostSuite, page: &Page) -> Result<Counts> {
    match suite {
        HostSuite::Tests => {
            run_cargo_tests(cargo()?.args(["test", "--workspace", "--locked"]), page)
        }
        HostSuite::Format => succeeds_on(page, cargo()?.args(["fmt", "--all", "--check"])),
        HostSuite::Lint => succeeds_on(
            page,
            cargo()?.args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]),
        ),
        HostSuite::ModulesFormat => {
            stack.plan.execute(&[&stack.linux.step])?;
            succeeds_on(
                page,
                Command::new("rustfmt")
                    .args(["--check", "--edition", "2021", "--config-path"])
                    .arg(stack.linux.tree.join(".rustfmt.toml"))
                    .args(module_sources()?),
            )
        }
        HostSuite::ModulesLint => {
            let outcome = stack.plan.execute(&[&stack.modules_clippy]);
            if let Err(error) = &outcome {
                page.line(format!("{error:#}"));
            }
            Ok(outcome.is_ok().into())
        }
        HostSuite::Bindings => check_bindings(stack, page),
        HostSuite::Miri => run_under_miri(page),
        HostSuite::Kani => run_under_kani(page),
    }
}

/// Cargo for this workspace, on this machine's own target.
fn cargo() -> Result<Command> {
    let mut cargo = Toolchain::detect()?.cargo();
    cargo.current_dir(workspace());
    // These are builds for this machine, which go where the caller wants such.
    if let Some(directory) = std::env::var_os("CARGO_TARGET_DIR") {
        cargo.env("CARGO_TARGET_DIR", directory);
    }
    Ok(cargo)
}

fn succeeds_on(page: &Page, command: &mut Command) -> Result<Counts> {
    Ok(page.run(command)?.0.success().into())
}

/// Runs `cargo test` and counts.
fn run_cargo_tests(cargo: &mut Command, page: &Page) -> Result<Counts> {
    let (status, output) = page.run(cargo)?;
    let counts = Counts::of_output(&output);
    // When nothing failed, it did not even compile, or a test program died.
    Ok(if status.success() {
        counts
    } else {
        counts.and_failed()
    })
}

/// Package of the allocator.
const ALLOCATOR: [&str; 2] = ["--package", "ringfence-range-alloc"];

/// The allocator's tests under Miri: a nightly toolchain must have it, and the library's source.
fn run_under_miri(page: &Page) -> Result<Counts> {
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
        page.line(
            "test miri ... SKIPPED: no nightly toolchain with the components miri and rust-src",
        );
        return Ok(Counts::SKIPPED);
    }
    run_cargo_tests(
        nightly(&["cargo", "miri", "test", "--locked"])
            .args(ALLOCATOR)
            .current_dir(workspace()),
        page,
    )
}

/// The allocator's harnesses under Kani.
fn run_under_kani(page: &Page) -> Result<Counts> {
    if !succeeds(Command::new("cargo").args(["kani", "--version"])) {
        page.line("test kani ... SKIPPED: cargo-kani is not installed");
        return Ok(Counts::SKIPPED);
    }
    succeeds_on(
        page,
        Command::new("cargo")
            .arg("kani")
            .args(ALLOCATOR)
            .current_dir(workspace()),
    )
}

/// Whether a command is there and ends well; what it prints is of no interest.
fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn check_bindings(stack: &Stack, page: &Page) -> Result<Counts> {
    stack
        .plan
        .execute(&[&stack.dtschema.step, &stack.devicetree.step])?;
    let dts = workspace().join("dts");
    let mut counts = Counts::default();
    for (name, outcome) in bindings::run(&stack.dtschema, &dts, &stack.devicetree)? {
        page.line(match &outcome {
            Ok(()) => format!("test bindings::{name} ... ok"),
            Err(error) => format!("test bindings::{name} ... FAILED: {error:#}"),
        });
        counts += outcome.is_ok().into();
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
