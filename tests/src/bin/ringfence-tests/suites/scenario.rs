// SPDX-License-Identifier: MIT OR Apache-2.0

//! The scenario of `cargo xtask run camera`, in a machine where nothing is loaded yet.

use std::process::Command;

use anyhow::Context;
use libtest_mimic::{Failed, Trial};

/// Pixels of a frame: fewer than in the scenario that people watch.
const FRAME: [&str; 2] = ["1280", "720"];

/// What its report must say, beside that nothing was broken.
const SAID: [&str; 5] = [
    "6 contiguous ones of camera, which has 192.00 MiB; 2 of system",
    "2 buffers fell back, each with its reason",
    "zeros, all 256.00 MiB of them",
    "12 frames of",
    "192.00 MiB of 192.00 MiB free, all of it clean, 0 buffers",
];

/// The one test. What every other test leaves as it was is not there before this one.
pub fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "scenario::a_camera_starts_with_the_machine",
        || camera().map_err(|error| Failed::from(format!("{error:#}"))),
    )]
}

fn camera() -> anyhow::Result<()> {
    let output = Command::new("ringfence-scenario")
        .arg("camera")
        .args(FRAME)
        .output()
        .context("ringfence-scenario")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}\n{said}{error}", output.status);
    for line in SAID {
        anyhow::ensure!(said.contains(line), "no {line:?} in:\n{said}");
    }
    Ok(())
}
