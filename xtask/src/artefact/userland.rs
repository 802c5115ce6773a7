// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's user space: arm64 packages of one Debian suite, unpacked.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use crate::apt::Apt;
use crate::engine::{Job, Plan, Step};
use crate::versions::Versions;

/// Where Debian keeps arm64 libraries.
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";

/// The unpacked packages.
#[derive(Debug, Clone)]
pub struct Userland {
    /// The step that fetches them.
    pub step: Step,
}

impl Userland {
    /// The directory that has them as the guest sees them.
    pub fn root(&self) -> PathBuf {
        self.step.file("root")
    }

    /// What `OPTEE_CLIENT_EXPORT` names: has `usr/lib/libteec.so`.
    pub fn client_export(&self) -> PathBuf {
        self.step.file("export")
    }
}

/// Declares the user space.
pub fn declare(plan: &mut Plan, apt: &Arc<Apt>, versions: &Versions) -> Result<Userland> {
    let guest = versions.guest.clone();
    let apt = Arc::clone(apt);
    let step = plan
        .step("userland")
        .param("suites", guest.suites.join(" "))
        .param("packages", guest.packages.join(" "))
        .param("development", guest.development.join(" "))
        .runs(move |job| {
            let fetched = job.file("packages");
            fs::create_dir(&fetched)?;
            let all: Vec<String> = guest
                .packages
                .iter()
                .chain(&guest.development)
                .cloned()
                .collect();
            let suite = apt.fetch_set(job, &all, &guest.suites, &fetched)?;
            job.note(&format!("the guest's packages come from {suite}"))?;
            for entry in fs::read_dir(&fetched)? {
                let package = entry?.path();
                let name = package
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let is_development = guest
                    .development
                    .iter()
                    .any(|other| name.starts_with(&format!("{other}_")));
                let root = job.file(if is_development {
                    "development"
                } else {
                    "root"
                });
                job.run(
                    Command::new("dpkg-deb")
                        .arg("--extract")
                        .arg(&package)
                        .arg(root),
                )?;
            }
            fs::remove_dir_all(&fetched)?;
            export(job)
        })?;
    Ok(Userland { step })
}

/// Lays out the libteec that guest programs are linked with, as `optee-teec-sys` looks for it.
fn export(job: &Job) -> Result<()> {
    let libraries = job.file("export/usr/lib");
    fs::create_dir_all(&libraries)?;
    let shared = Path::new("../../../root")
        .join(LIBRARIES)
        .join("libteec.so.2");
    symlink(shared, libraries.join("libteec.so"))?;
    symlink(
        "../../../development/usr/include",
        job.file("export/usr/include"),
    )?;
    Ok(())
}
