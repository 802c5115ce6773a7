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
mod bench;
mod bindings;
mod cache;
mod carveouts;
mod cli;
mod content;
mod doctor;
mod engine;
mod film;
mod host;
mod ladder;
mod run;
mod rust;
mod screening;
mod stack;
mod suites;
mod test;
mod versions;
mod vm;

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
        Action::Run { scenario, output } => {
            Ok(conclude(&run::run(&cache, scenario, output.as_deref())?).into())
        }
        Action::Test {
            debug,
            everything,
            suites,
        } => {
            let flavours: &[Flavour] = match (everything, debug) {
                (true, _) => &[Flavour::Plain, Flavour::Debug],
                (false, true) => &[Flavour::Debug],
                (false, false) => &[Flavour::Plain],
            };
            let counts = test::run(&cache, flavours, &suites)?;
            println!("{counts}");
            Ok(if counts.is_success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
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
            let stack = Stack::declare(&cache, flavour, Build::Test)?;
            stack.build_for_boot()?;
            let (task, limit) = match command {
                words if words.is_empty() => (Task::Shell, None),
                words => (Task::Command(words), Some(COMMAND_TIMEOUT)),
            };
            let mut boot = Boot::of(task, vm::run_directory(&cache)?);
            boot.icount = icount;
            boot.conditions.upstream = upstream;
            boot.share = share.as_deref();
            boot.timeout = timeout.or(limit);
            Ok(conclude(&vm::boot(&stack, &boot)?).into())
        }
        Action::Bench { from, json, readme } => {
            let options = bench::Options {
                from: from.as_deref(),
                json: json.as_deref(),
                readme,
            };
            Ok(match bench::run(&cache, options)? {
                bench::End::Figures {
                    within_bounds: true,
                } => ExitCode::SUCCESS,
                bench::End::Figures {
                    within_bounds: false,
                } => ExitCode::FAILURE,
                bench::End::Boot(outcome) => conclude(&outcome).into(),
            })
        }
        Action::Build { product, parts } => {
            let build = if product { Build::Product } else { Build::Test };
            let stack = Stack::declare(&cache, Flavour::Plain, build)?;
            for (name, directory) in stack.build(&parts)? {
                println!("{name:12} {}", directory.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Doctor => Ok(if doctor::examine(&cache)? {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        Action::Clean { all } => {
            cache.clean(all)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Says how a boot ended, unless the command ended it; returns the exit status for it.
fn conclude(outcome: &Outcome) -> u8 {
    let status = match &outcome.verdict {
        Verdict::Exit(status) => return *status,
        Verdict::Reported(..) => status::REPORTED,
        Verdict::Crashed(_) | Verdict::Lost => status::CRASHED,
        Verdict::TimedOut(_) => status::TIMED_OUT,
        Verdict::Interrupted(2) => return status::INTERRUPTED,
        Verdict::Interrupted(signal) => return 128 + *signal as u8,
    };
    eprintln!("{}", outcome.explain());
    status
}
