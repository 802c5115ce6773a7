// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Builds Ringfence's whole stack and runs it on an emulated machine.
///
/// Everything that is missing is set up first: Debian packages, sources, firmware, kernel. Results
/// are kept in $RINGFENCE_CACHE (by default ~/.cache/ringfence) and made again only when their inputs
/// changed.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = STATUSES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// Exit statuses, for `--help`.
const STATUSES: &str = "\
Exit status:
  of `vm` and `run`: that of the command in the guest, or
    122  the stack could not be built or started
    123  the command ended, but the kernel reported a fault (KASAN, lockdep, kmemleak, DMA, UBSAN)
    124  it took longer than the time-out
    125  the guest crashed (kernel panic or oops, firmware panic)
    130  interrupted
  of `test`: 0 when something ran and nothing failed, else 1
  of the others: 0, or 1 on an error; 2 for a wrong command line";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Runs the main jobs: encrypted content, decrypted and shown where Linux can't read, and a camera
    /// that can't wait
    Run {
        /// What to play
        #[arg(value_enum, default_value_t = Scenario::All)]
        scenario: Scenario,
        /// Where pictures go; the directory of the run's logs when absent
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Runs the host tests and every guest suite
    Test {
        /// Runs the guest suites on the debug kernel, and no host tests
        #[arg(long)]
        debug: bool,
        /// Runs what the repository's checks run: everything, then the guest suites on the debug kernel
        #[arg(long, conflicts_with_all = ["debug", "suites"])]
        everything: bool,
        /// Runs only these suites
        #[arg(value_name = "SUITE")]
        suites: Vec<String>,
    },
    /// Boots the stack, for a shell or a command
    Vm {
        /// Takes the kernel with KASAN, lockdep, kmemleak and DMA debugging
        #[arg(long)]
        debug: bool,
        /// Lets the guest's time count instructions
        #[arg(long)]
        icount: bool,
        /// Loads the upstream heaps, too
        #[arg(long)]
        upstream: bool,
        /// Shows a directory of the host to the guest as /mnt/share, read and write
        #[arg(long, value_name = "DIR")]
        share: Option<PathBuf>,
        /// Gives up after this many seconds; a command has 600 by default, a shell has no limit
        #[arg(long, value_name = "S", value_parser = seconds)]
        timeout: Option<Duration>,
        /// What to run; a shell when absent
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Measures every figure of the README, in instructions, side by side with the upstream heaps
    Bench {
        /// Takes the figures of a file instead of measuring
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Writes the figures to a file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Makes these the checkout's figures: xtask/bench.json, and the tables of README.md
        #[arg(long)]
        readme: bool,
    },
    /// Builds parts of the stack and says where they are
    Build {
        /// Leaves out the digest command and fault injection, as in a shipped product
        #[arg(long)]
        product: bool,
        /// Which parts; all when absent
        #[arg(value_name = "PART")]
        parts: Vec<String>,
    },
    /// Says what this machine lacks, and the command that brings it
    Doctor,
    /// Removes what was built
    Clean {
        /// Removes sources, tools and keys as well: the whole cache
        #[arg(long)]
        all: bool,
    },
}

/// Scenarios of `run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A clip is decrypted into protected buffers
    Main,
    /// A camera allocates as the machine starts, falls back, and films
    Camera,
    /// An encrypted film is played, and looked at from all sides
    Video,
    /// Every scenario
    All,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) => Err("a time-out of no time at all".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
