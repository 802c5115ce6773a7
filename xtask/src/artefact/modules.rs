// SPDX-License-Identifier: MIT OR Apache-2.0
//! This project's kernel modules, built out of tree for one kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::copy_tree;
use super::kernel::Kernel;
use crate::engine::{Job, Plan, Step};
use crate::stack::Build;

/// The built modules.
#[derive(Debug, Clone)]
pub struct Modules {
    /// The step that builds them.
    pub step: Step,
}

impl Modules {
    /// Installed modules: has `lib/modules`.
    pub fn root(&self) -> PathBuf {
        self.step.file("modules")
    }
}

/// Declares the modules for `kernel`.
pub fn declare(
    plan: &mut Plan,
    workspace: &Path,
    kernel: &Kernel,
    build: Build,
) -> Result<Modules> {
    let workspace = workspace.to_owned();
    let (kbuild, objects) = (kernel.kbuild.clone(), kernel.objects());
    let step = plan
        .step(&kernel.flavour.name(&build.name("modules")))
        .needs(&kernel.step)
        .input(&workspace.join("kmod"))
        .input(&workspace.join("ta/proto/src"))
        .param("build", build.name("build"))
        .runs(move |job| {
            let stage = stage(job, &workspace)?;
            let root = job.file("modules");
            for goal in [&["modules"][..], &["modules_install", "DEPMOD=true"]] {
                let mut make = kbuild.make(&objects);
                make.arg(format!("M={}", stage.display()))
                    .arg(format!("INSTALL_MOD_PATH={}", root.display()));
                if build == Build::Test {
                    make.arg("RINGFENCE_TEST=1");
                }
                job.run(make.args(goal))?;
            }
            Ok(())
        })?;
    Ok(Modules { step })
}

/// Declares a build of the modules with Clippy, of which any message is an error.
pub fn declare_clippy(plan: &mut Plan, workspace: &Path, kernel: &Kernel) -> Result<Step> {
    let workspace = workspace.to_owned();
    let (kbuild, objects) = (kernel.kbuild.clone(), kernel.objects());
    plan.step("modules-clippy")
        .needs(&kernel.step)
        .input(&workspace.join("kmod"))
        .input(&workspace.join("ta/proto/src"))
        .runs(move |job| {
            let stage = stage(job, &workspace)?;
            let mut make = kbuild.make(&objects);
            make.arg(format!("M={}", stage.display())).args([
                "CLIPPY=1",
                "RINGFENCE_TEST=1",
                "KRUSTFLAGS=-Dwarnings",
            ]);
            job.run(make.arg("modules"))
        })
}

/// Copies what the modules are made from, so that the build writes nothing into the checkout.
///
/// Returns the copy of `kmod`; the protocol's numbers keep their place relative to it.
fn stage(job: &Job, workspace: &Path) -> Result<PathBuf> {
    let stage = job.file("source");
    fs::create_dir_all(stage.join("ta/proto"))?;
    copy_tree(job, &workspace.join("kmod"), &stage.join("kmod"))?;
    copy_tree(
        job,
        &workspace.join("ta/proto/src"),
        &stage.join("ta/proto/src"),
    )?;
    Ok(stage.join("kmod"))
}
