// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `ringfence` command.

mod args;
mod exit;
mod play;
mod run;
mod show;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match run::run(&args::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfence: {error}");
            exit::code(&error)
        }
    }
}
