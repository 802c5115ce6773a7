// SPDX-License-Identifier: MIT OR Apache-2.0

//! The `ringfence` command, as people and scripts use it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence_tests::guest::ta::Ta;
use serde_json::Value;

use super::fixture::{self, Fixture};
use super::protect::handle;
use super::region::{self, CAMERA, DECLARED, VIDEO};
use super::Test;

pub const TESTS: &[Test] = &[
    (
        "heaps_and_status_say_what_the_driver_says",
        heaps_and_status,
    ),
    (
        "info_describes_a_buffer_of_another_process",
        info_of_another_process,
    ),
    (
        "a_handle_is_shown_when_asked_for_only",
        handle_when_asked_for,
    ),
    (
        "decrypt_puts_a_file_into_a_protected_buffer",
        decrypt_a_file,
    ),
    ("exit_codes_tell_failures_apart", exit_codes),
];

/// Runs the command with `--json` and reads what it says.
fn ask(arguments: &[&str]) -> anyhow::Result<Value> {
    let output = Command::new("ringfence")
        .arg("--json")
        .args(arguments)
        .output()
        .context("ringfence")?;
    anyhow::ensure!(
        output.status.success(),
        "ringfence {arguments:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("no JSON")
}

/// A `ringfence` that keeps its buffer until its standard input ends.
pub struct Holder {
    child: Child,
    /// Its process.
    pub pid: u32,
    /// The buffer's path under /proc.
    pub path: String,
    fd: i32,
    /// What it said.
    pub said: Value,
}

impl Holder {
    /// `ringfence alloc`.
    pub fn allocate(heap: &str, size: u64) -> anyhow::Result<Self> {
        Self::start(&["alloc", "--heap", heap, "--size", &size.to_string()])
    }

    fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new("ringfence")
            .args(arguments)
            .args(["--hold-until-stdin", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("ringfence")?;
        let mut line = String::new();
        let output = child.stdout.as_mut().context("no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        let said: Value = serde_json::from_str(&line).context("no JSON")?;
        let pid = child.id();
        let path = [&said["path"], &said["buffer"]["path"]]
            .into_iter()
            .find_map(Value::as_str)
            .context("no path")?
            .to_owned();
        let fd = path
            .strip_prefix(&format!("/proc/{pid}/fd/"))
            .with_context(|| path.clone())?
            .parse()?;
        Ok(Self {
            child,
            pid,
            path,
            fd,
            said,
        })
    }

    /// The buffer, also for this process.
    pub fn buffer(&self) -> anyhow::Result<Buffer> {
        Ok(Buffer::of_process(self.pid, self.fd)?)
    }

    /// Lets it end by itself.
    pub fn end(mut self) -> anyhow::Result<()> {
        // Its standard input ends with this, as that of a command in a pipe.
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "ringfence: {status}");
        Ok(())
    }

    /// Ends it without a chance to clean up.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn heaps_and_status() -> anyhow::Result<()> {
    let (_buffer, _) = region::allocate(VIDEO, 1 << 20)?;
    let driver = serde_json::to_value(Control::open()?.heaps()?)?;
    let status = ask(&["status"])?;
    anyhow::ensure!(status["heaps"] == driver, "{status}");
    let secure = &status["secure_world"];
    anyhow::ensure!(secure["state"] == "present", "{secure}");
    anyhow::ensure!(secure["ranges"] == 1, "{secure}");

    let heaps = ask(&["heaps"])?;
    let heaps = heaps.as_array().context("no list")?;
    for declared in &DECLARED {
        let heap = heaps
            .iter()
            .find(|heap| heap["name"] == declared.name)
            .context(declared.name)?;
        let info = &heap["ringfence"];
        anyhow::ensure!(info["size"] == declared.size, "{info}");
        anyhow::ensure!(info["protected"] == (declared.use_case != 0), "{info}");
    }
    Ok(())
}

fn info_of_another_process() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let holder = Holder::allocate(declared.name, (1 << 20) + 1)?;
        let info = ask(&["info", &holder.path])?;
        let expected = [
            ("heap", Value::from(declared.name)),
            ("size", Value::from((1 << 20) + 4096)),
            ("protected", Value::from(declared.use_case != 0)),
            ("cpu_access", Value::from(declared.cpu_access)),
        ];
        for (key, value) in &expected {
            anyhow::ensure!(info[key] == *value, "info says {info}");
            anyhow::ensure!(holder.said[key] == *value, "alloc says {}", holder.said);
        }
        let driver = Control::open()?.buffer(holder.buffer()?)?;
        anyhow::ensure!(info == serde_json::to_value(driver)?, "{info}");
        holder.end()?;
    }
    Ok(())
}

fn handle_when_asked_for() -> anyhow::Result<()> {
    let holder = Holder::allocate(VIDEO, 4096)?;
    let raw = handle(&holder.buffer()?)?;
    let number = format!("{raw:#018x}");
    for arguments in [&["info", &holder.path][..], &["status"], &["heaps"]] {
        let said = ask(arguments)?.to_string();
        let shown = said.contains(&number) || said.contains(&raw.to_string());
        anyhow::ensure!(!shown, "{arguments:?} shows the handle");
    }
    anyhow::ensure!(!holder.said.to_string().contains(&number), "alloc shows it");
    let asked = ask(&["info", &holder.path, "--show-handle"])?;
    anyhow::ensure!(asked["handle"] == number.as_str(), "{asked}");
    holder.end()
}

fn decrypt_a_file() -> anyhow::Result<()> {
    let fixture = Fixture::read()?;
    let clip = fixture::path(&fixture.job.ciphertext)?;
    let licence = fixture::path(&fixture.job.licence)?;
    let counter = hex::encode(fixture.job.counter);
    let arguments = [
        "decrypt",
        &clip,
        "--licence",
        &licence,
        "--heap",
        VIDEO,
        "--counter",
        &counter,
    ];
    let holder = Holder::start(&arguments)?;
    let said = &holder.said;
    anyhow::ensure!(said["bytes"] == fixture.job.size, "{said}");
    anyhow::ensure!(said["buffer"]["heap"] == VIDEO, "{said}");
    anyhow::ensure!(said["buffer"].get("handle").is_none(), "{said}");
    fixture.expect_content(&mut Ta::open()?, handle(&holder.buffer()?)?)?;
    holder.end()
}

fn exit_codes() -> anyhow::Result<()> {
    const GARBAGE: &str = "/tmp/garbage.licence";
    const FORGED: &str = "/tmp/forged.licence";
    let fixture = Fixture::read()?;
    let clip = fixture::path(&fixture.job.ciphertext)?;
    let licence = fixture::path(&fixture.job.licence)?;
    let mut forged = fs::read(&licence)?;
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    fs::write(FORGED, forged)?;
    fs::write(GARBAGE, "no licence")?;
    let other_key = "ee".repeat(16);
    let cases: [(i32, &str, &[&str]); 15] = [
        (0, "", &["status"]),
        (0, "", &["alloc", "--heap", CAMERA, "--size", "4K"]),
        (2, "Usage", &["allocate"]),
        (2, "--size", &["alloc", "--heap", CAMERA, "--size", "much"]),
        (2, "fd", &["info", "x"]),
        (
            3,
            "protected-video",
            &["alloc", "--heap", "nope", "--size", "1M"],
        ),
        (
            3,
            "no heap",
            &["alloc", "--heap", "../null", "--size", "1M"],
        ),
        (3, "no fd 999", &["info", "999"]),
        (3, "/none", &["decrypt", "/none", "--licence", &licence]),
        (
            3,
            "unknown handle or key",
            &[
                "decrypt",
                &clip,
                "--licence",
                &licence,
                "--key-id",
                &other_key,
            ],
        ),
        (4, "free run", &["alloc", "--heap", CAMERA, "--size", "1G"]),
        (5, "no size", &["alloc", "--heap", VIDEO, "--size", "0"]),
        (5, "no licence", &["decrypt", &clip, "--licence", GARBAGE]),
        (
            5,
            "another device",
            &["decrypt", &clip, "--licence", FORGED],
        ),
        (
            5,
            "not protected",
            &["decrypt", &clip, "--licence", &licence, "--heap", CAMERA],
        ),
    ];
    for (code, says, arguments) in cases {
        let output = Command::new("ringfence").args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {} instead of {code}: {error}",
            output.status
        );
        anyhow::ensure!(error.contains(says), "{arguments:?}: {error}");
        anyhow::ensure!(
            code == 0 || output.stdout.is_empty(),
            "{arguments:?} prints"
        );
    }
    // What is no buffer of ours: this process's standard input.
    let info = Command::new("ringfence").args(["info", "0"]).output()?;
    anyhow::ensure!(info.status.code() == Some(5), "info 0: {}", info.status);
    fs::remove_file(FORGED)?;
    fs::remove_file(GARBAGE)?;
    Ok(())
}
