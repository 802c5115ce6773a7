// SPDX-License-Identifier: MIT OR Apache-2.0
//! This project's kernel modules, built out of tree for one kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        .input(&workspace.join("tests/kmod"))
        .input(&workspace.join("ta/proto/src"))
        .param("build", build.name("build"))
        .runs(move |job| {
            let stage = Stage::copy(job, &workspace)?;
            let install = format!("INSTALL_MOD_PATH={}", job.file("modules").display());
            for goal in [&["modules"][..], &["modules_install", "DEPMOD=true"]] {
                let mut make = stage.product(kbuild.make(&objects));
                if build == Build::Test {
                    make.arg("RINGFENCE_TEST=1");
                }
                job.run(make.arg(&install).args(goal))?;
                if build == Build::Test {
                    let mut make = stage.tests(kbuild.make(&objects));
                    job.run(make.arg(&install).args(goal))?;
                }
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
        .input(&workspace.join("tests/kmod"))
        .input(&workspace.join("ta/proto/src"))
        .runs(move |job| {
            let stage = Stage::copy(job, &workspace)?;
            for mut make in [
                stage.product(kbuild.make(&objects)),
                stage.tests(kbuild.make(&objects)),
            ] {
                make.args(["CLIPPY=1", "RINGFENCE_TEST=1", "KRUSTFLAGS=-Dwarnings"]);
                job.run(make.arg("modules"))?;
            }
            Ok(())
        })
}

/// A copy of what the modules are made from, so that the build writes nothing into the checkout.
///
/// The protocol's numbers keep their place relative to the modules.
struct Stage(PathBuf);

impl Stage {
    fn copy(job: &Job, workspace: &Path) -> Result<Self> {
        let stage = job.file("source");
        for folder in ["kmod", "ta/proto/src", "tests/kmod"] {
            let copy = stage.join(folder);
            fs::create_dir_all(&copy)?;
            copy_tree(job, &workspace.join(folder), &copy)?;
        }
        Ok(Self(stage))
    }

    /// Kbuild's call for the product's modules.
    fn product(&self, mut make: Command) -> Command {
        make.arg(format!("M={}", self.0.join("kmod").display()));
        make
    }

    /// Kbuild's call for the tests' modules, which the product's must precede.
    fn tests(&self, mut make: Command) -> Command {
        let product = self.0.join("kmod");
        make.arg(format!("M={}", self.0.join("tests/kmod").display()))
            .arg(format!("RINGFENCE_KMOD={}", product.display()))
            .arg(format!(
                "KBUILD_EXTRA_SYMBOLS={}",
                product.join("Module.symvers").display()
            ));
        make
    }
}
