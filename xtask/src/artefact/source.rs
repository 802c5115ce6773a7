// SPDX-License-Identifier: MIT OR Apache-2.0
//! Source trees: fetched from the Debian archive, unpacked once, with this project's patches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::apt::{only_file, Apt, Item};
use crate::engine::{Job, Plan, Step};
use crate::versions::Versions;

/// A source tree.
#[derive(Debug, Clone)]
pub struct Source {
    /// The step that unpacks it.
    pub step: Step,
    /// Its top directory.
    pub tree: PathBuf,
}

/// Declares the kernel's source: Debian's `linux-source-X.Y`, which carries one archive.
pub fn declare_linux(plan: &mut Plan, apt: &Arc<Apt>, versions: &Versions) -> Result<Source> {
    let series = versions.series("linux")?.to_vec();
    let apt = Arc::clone(apt);
    let step = plan
        .step("linux-source")
        .param("series", series.join(" "))
        .runs(move |job| {
            let mut last = None;
            for wanted in &series {
                let name: Vec<&str> = wanted.split('.').take(2).collect();
                let item = Item::Binary(format!("linux-source-{}", name.join(".")));
                match apt.fetch(job, &item, std::slice::from_ref(wanted), job.dir()) {
                    Ok(_) => return unpack_linux(job),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.context("no series of linux is wanted")?)
        })?;
    Ok(Source {
        tree: step.file("linux"),
        step,
    })
}

fn unpack_linux(job: &Job) -> Result<()> {
    let package = only_file(job.dir(), "deb")?;
    let tree = job.file("linux");
    fs::create_dir(&tree)?;
    job.run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(job.file("package")),
    )?;
    let archive = only_file(&job.file("package/usr/src"), "xz")?;
    let mut tar = Command::new("tar");
    job.run(
        tar.args(["--strip-components=1", "-xf"])
            .arg(archive)
            .arg("-C")
            .arg(&tree),
    )?;
    fs::remove_file(package)?;
    fs::remove_dir_all(job.file("package"))?;
    Ok(())
}

/// Declares a source package with Debian's patches, then those of the directory `patches`.
pub fn declare(
    plan: &mut Plan,
    apt: &Arc<Apt>,
    versions: &Versions,
    package: &str,
    patches: &Path,
) -> Result<Source> {
    let series = versions.series(package)?.to_vec();
    let item = Item::Source(package.to_owned());
    let apt = Arc::clone(apt);
    let fetched = plan
        .step(&format!("{package}-upstream"))
        .param("series", series.join(" "))
        .runs(move |job| apt.fetch(job, &item, &series, job.dir()).map(|_| ()))?;
    let pristine = fetched.file("source");
    let directory = patches.to_owned();
    let step = plan
        .step(&format!("{package}-source"))
        .needs(&fetched)
        .input(patches)
        .runs(move |job| {
            let tree = job.file("source");
            super::copy_tree(job, &pristine, &tree)?;
            apply_patches(job, &directory, &tree)
        })?;
    Ok(Source {
        tree: step.file("source"),
        step,
    })
}

/// Applies every `*.patch` of `directory` to `tree`, in name order; one that needs fuzz fails.
fn apply_patches(job: &Job, directory: &Path, tree: &Path) -> Result<()> {
    let entries = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut patches = entries.collect::<std::io::Result<Vec<PathBuf>>>()?;
    patches.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "patch")
    });
    patches.sort();
    for path in patches {
        let mut patch = Command::new("patch");
        patch.args([
            "--strip=1",
            "--fuzz=0",
            "--forward",
            "--batch",
            "--no-backup-if-mismatch",
            "--input",
        ]);
        patch.arg(&path).current_dir(tree);
        job.run(&mut patch).with_context(|| {
            format!(
                "{} does not apply to this version of the source: rebase the patch",
                path.display()
            )
        })?;
    }
    Ok(())
}
