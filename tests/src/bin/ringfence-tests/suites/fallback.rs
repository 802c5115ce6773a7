// SPDX-License-Identifier: MIT OR Apache-2.0

//! When the wanted heap is full another one serves, and that is told; what is wrong
//! with a request is told as well, and leaves nothing allocated.

use std::fs;
use std::process::{Command, Output};

use anyhow::Context;
use ringfence::error::Error;
use ringfence::fallback::{Allocator, Policy, Property};
use ringfence_tests::guest::heap_info;
use serde_json::Value;

use super::region::{CAMERA, FIRMWARE, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    ("the_next_heap_serves_and_says_why", next_heap_serves),
    ("the_command_shows_each_buffer", command_shows_each),
    ("a_profile_is_a_policy", profile_is_policy),
    ("a_profile_with_an_error_says_where", profile_errors),
    ("what_is_required_is_not_traded", nothing_is_traded),
    ("all_buffers_or_none", all_or_none),
    ("malformed_requests_allocate_nothing", malformed),
];

const MIB: u64 = 1 << 20;
/// The heap of ordinary pages.
const SYSTEM: &str = "system";

fn ringfence(arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new("ringfence")
        .args(arguments)
        .output()
        .context("ringfence")
}

/// Fails unless the command refuses with this code, and names each of these.
fn refused(arguments: &[&str], code: i32, says: &[&str]) -> anyhow::Result<()> {
    let before = heap_info(CAMERA)?;
    let output = ringfence(arguments)?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.code() == Some(code),
        "{arguments:?}: {} instead of {code}: {error}",
        output.status
    );
    for what in says {
        anyhow::ensure!(
            error.contains(what),
            "{arguments:?}: no {what:?} in {error}"
        );
    }
    anyhow::ensure!(output.stdout.is_empty(), "{arguments:?} shows a buffer");
    anyhow::ensure!(
        heap_info(CAMERA)? == before,
        "{arguments:?} leaves something"
    );
    Ok(())
}

fn next_heap_serves() -> anyhow::Result<()> {
    let policy = Policy::new([CAMERA, SYSTEM], [Property::CpuAccess])?;
    let allocator = Allocator::new(&policy)?;
    let before = heap_info(CAMERA)?;
    let fit = before.free / (64 * MIB);
    let mut kept = Vec::new();
    for number in 0..fit + 1 {
        let allocation = allocator.allocate(64 * MIB)?;
        let expected = if number < fit { CAMERA } else { SYSTEM };
        anyhow::ensure!(allocation.heap == expected, "{}", allocation.heap);
        anyhow::ensure!(
            allocation.is_fallback() == (number == fit),
            "{:?}",
            allocation.refused
        );
        kept.push(allocation);
    }
    let metrics = allocator.metrics();
    anyhow::ensure!(
        metrics.fallbacks == 1 && metrics.failures == 0,
        "{metrics:?}"
    );
    drop(kept);
    anyhow::ensure!(heap_info(CAMERA)? == before);
    Ok(())
}

/// Runs the command with `--json`.
fn asked(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let output = Command::new("ringfence")
        .arg("--json")
        .args(arguments)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    let list = said.as_array().or_else(|| said["buffers"].as_array());
    Ok(list.with_context(|| said.to_string())?.clone())
}

fn heap_of(buffer: &Value) -> &str {
    [&buffer["heap"], &buffer["buffer"]["heap"]]
        .into_iter()
        .find_map(Value::as_str)
        .unwrap_or_default()
}

fn command_shows_each() -> anyhow::Result<()> {
    let arguments = [
        "alloc",
        "--from",
        CAMERA,
        "--fallback",
        SYSTEM,
        "--size",
        "64M",
        "--count",
        "4",
        "--timings",
    ];
    let buffers = asked(&arguments)?;
    let heaps: Vec<_> = buffers.iter().map(heap_of).collect();
    anyhow::ensure!(
        heaps == [CAMERA, CAMERA, CAMERA, SYSTEM],
        "{heaps:?} of {buffers:?}"
    );
    for (number, buffer) in buffers.iter().enumerate() {
        anyhow::ensure!(buffer["nanoseconds"].is_number(), "{buffer}");
        let refused = buffer["refused"].as_array().context("no refusals")?;
        anyhow::ensure!(refused.len() == usize::from(number == 3), "{buffer}");
    }
    // And for people.
    let output = ringfence(&arguments)?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success() && text.contains("free run"),
        "{text}"
    );
    Ok(())
}

/// Writes a profile, and answers its path.
fn profile(text: &str) -> anyhow::Result<&'static str> {
    const PATH: &str = "/tmp/profile.toml";
    fs::write(PATH, text)?;
    Ok(PATH)
}

fn profile_is_policy() -> anyhow::Result<()> {
    fs::create_dir_all(ringfence::profile::FOLDER)?;
    let path = format!("{}/camera.toml", ringfence::profile::FOLDER);
    fs::write(
        &path,
        "# As the board wants it.\nheaps = [\"camera\", \"system\"]\nrequire = [\"cpu-access\"]\n",
    )?;
    let output = asked(&[
        "alloc",
        "--profile",
        "camera",
        "--size",
        "128M",
        "--count",
        "2",
    ]);
    fs::remove_file(&path)?;
    let buffers = output?;
    let heaps: Vec<_> = buffers.iter().map(heap_of).collect();
    anyhow::ensure!(heaps == [CAMERA, SYSTEM], "{heaps:?}");
    Ok(())
}

fn profile_errors() -> anyhow::Result<()> {
    for (text, says) in [
        ("\nheaps = []\n", &["line 2", "no heap"][..]),
        (
            "heaps = [\n\"camera\",\n\"camera\",\n]\n",
            &["line 3", "twice"],
        ),
        (
            "heaps = [\"camera\"]\nrequire = [\"fast\"]\n",
            &["line 2", "fast"],
        ),
        (
            "heaps = [\"camera\"]\n\nrequire = [\"protected\", \"cpu-access\"]\n",
            &["line 3", "protected"],
        ),
        ("heaps = [\"camera\"\n", &["line "]),
        ("heap = \"camera\"\n", &["line 1", "heap"]),
    ] {
        let path = profile(text)?;
        let arguments = ["alloc", "--profile", path, "--size", "4K"];
        refused(&arguments, 2, &[&[path][..], says].concat())?;
    }
    fs::remove_file(profile("")?)?;
    refused(
        &["alloc", "--profile", "no-such", "--size", "4K"],
        3,
        &["no-such.toml"],
    )
}

fn nothing_is_traded() -> anyhow::Result<()> {
    // No heap promises it: neither is asked.
    refused(
        &[
            "alloc",
            "--from",
            CAMERA,
            "--fallback",
            SYSTEM,
            "--require",
            "protected",
            "--size",
            "4K",
        ],
        5,
        &[CAMERA, SYSTEM, "protected"],
    )?;
    refused(
        &[
            "alloc",
            "--from",
            VIDEO,
            "--fallback",
            FIRMWARE,
            "--require",
            "cpu-access",
            "--size",
            "4K",
        ],
        5,
        &[VIDEO, FIRMWARE, "cpu-access"],
    )?;
    refused(
        &[
            "alloc",
            "--from",
            CAMERA,
            "--require",
            "protected",
            "--require",
            "cpu-access",
            "--size",
            "4K",
        ],
        2,
        &["both protected and open to the CPU"],
    )?;
    // What is contiguous is not replaced by what is not, even when it is full.
    let contiguous = [
        "alloc",
        "--from",
        CAMERA,
        "--fallback",
        SYSTEM,
        "--require",
        "contiguous",
        "--size",
        "1G",
    ];
    refused(&contiguous, 4, &[CAMERA, SYSTEM, "contiguous"])
}

fn all_or_none() -> anyhow::Result<()> {
    // Three fit, the fourth does not.
    refused(
        &["alloc", "--from", CAMERA, "--size", "64M", "--count", "4"],
        4,
        &[CAMERA, "free run"],
    )?;
    let before = heap_info(CAMERA)?;
    let allocator = Allocator::new(&Policy::new([CAMERA], [])?)?;
    match allocator.allocate(before.size + 1) {
        Err(Error::NoneServed { refused, .. }) => anyhow::ensure!(refused.len() == 1),
        other => anyhow::bail!("{other:?}"),
    }
    anyhow::ensure!(heap_info(CAMERA)? == before);
    Ok(())
}

fn malformed() -> anyhow::Result<()> {
    refused(
        &["alloc", "--from", "no-such", "--size", "4K"],
        3,
        &["no-such", CAMERA],
    )?;
    // A heap that is not there is a mistake, and no reason to go on with the next one.
    refused(
        &[
            "alloc",
            "--from",
            "no-such",
            "--fallback",
            SYSTEM,
            "--size",
            "4K",
        ],
        3,
        &["no-such"],
    )?;
    refused(
        &[
            "alloc",
            "--from",
            CAMERA,
            "--fallback",
            CAMERA,
            "--size",
            "4K",
        ],
        2,
        &["twice"],
    )?;
    refused(&["alloc", "--size", "4K"], 2, &["--from"])?;
    refused(
        &["alloc", "--from", CAMERA, "--size", "1G"],
        4,
        &["free run"],
    )
}
