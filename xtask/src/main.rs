// SPDX-License-Identifier: MIT OR Apache-2.0
//! Front door of the project: sets up a machine, builds the stack, boots it, tests it.
//!
//! - [`engine`] runs keyed steps; [`cache`] is where their results are.
//! - [`apt`], [`host`] and [`rust`] are what steps are made with: archive, packages, toolchain.
//! - [`artefact`] has one module for each part of the stack, [`stack`] puts them together.
//! - [`vm`] boots the stack.
//! - the other modules are one command each.

mod apt;
mod artefact;
mod cache;
mod carveouts;
mod cli;
mod engine;
mod host;
mod rust;
mod stack;
mod versions;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use artefact::kernel::Flavour;
use cache::Cache;
use cli::{Action, Cli};
use stack::{Build, Stack};
use vm::{Boot, Outcome, Task, Verdict};

/// How long a command in the guest may take when nothing else is said.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

/// Statuses of a boot that did not end with the command's own; `--help` explains them.
mod status {
    pub const NOT_STARTED: u8 = 122;
    pub const REPORTED: u8 = 123;
    pub const TIMED_OUT: u8 = 124;
    pub const CRASHED: u8 = 125;
    pub const INTERRUPTED: u8 = 130;
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let failure = if matches!(cli.command, Action::Vm { .. } | Action::Run { .. }) {
        status::NOT_STARTED
    } else {
        1
    };
    match act(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(failure)
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    let cache = Cache::open()?;
    match action {
        Action::Vm {
            debug,
            icount,
            upstream,
            share,
            timeout,
            command,
        } => {
            let flavour = if debug {
                Flavour::Debug
            } else {
                Flavour::Plain
            };
            let task = if command.is_empty() {
                Task::Shell
            } else {
                Task::Command(command)
            };
            let stack = Stack::declare(&cache, flavour, Build::Test)?;
            stack.build_for_boot()?;
            let mut boot = Boot::of(task);
            boot.icount = icount;
            boot.conditions.upstream = upstream;
            boot.share = share.as_deref();
            boot.timeout = timeout.or(match boot.task {
                Task::Command(_) => Some(COMMAND_TIMEOUT),
                Task::Shell => None,
            });
            Ok(ExitCode::from(conclude(&vm::boot(&cache, &stack, &boot)?)))
        }
        Action::Build { product, parts } => {
            let build = if product { Build::Product } else { Build::Test };
            let stack = Stack::declare(&cache, Flavour::Plain, build)?;
            for (name, directory) in stack.build(&parts)? {
                println!("{name:12} {}", directory.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => todo!(),
    }
}

/// Says how a boot ended, unless it ended well; returns the exit status for it.
fn conclude(outcome: &Outcome) -> u8 {
    let (status, summary) = match &outcome.verdict {
        Verdict::Exit(status) => return *status,
        Verdict::Reported(_, reports) => (
            status::REPORTED,
            format!(
                "the guest's kernel reported faults:\n  {}",
                reports.join("\n  ")
            ),
        ),
        Verdict::Crashed(line) => (status::CRASHED, format!("the guest crashed: {line}")),
        Verdict::TimedOut(limit) => (
            status::TIMED_OUT,
            format!("no end after {} seconds", limit.as_secs()),
        ),
        Verdict::Lost => (status::CRASHED, "the guest is gone".to_owned()),
        Verdict::Interrupted(signal) => {
            return if *signal == 2 {
                status::INTERRUPTED
            } else {
                128 + *signal as u8
            }
        }
    };
    eprintln!("---- last lines of the console");
    for line in &outcome.console_tail {
        eprintln!("{line}");
    }
    eprintln!("---- {summary}\nlogs: {}", outcome.directory.display());
    status
}
