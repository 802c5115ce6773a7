// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's kernel: `allnoconfig` and the fragments of `platform/`, built out of tree by LLVM.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use super::source::Source;
use super::{copy_tree, make};
use crate::engine::{Job, Plan, Step};
use crate::host::Host;
use crate::rust::Library;
use crate::versions::Versions;

/// Fragment of every kernel.
const FRAGMENT: &str = include_str!("../../platform/kernel.config");

/// What the debug kernel has besides.
const DEBUG_FRAGMENT: &str = include_str!("../../platform/kernel-debug.config");

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The default kernel.
    Plain,
    /// KASAN, lockdep, kmemleak, DMA and dma-buf debugging, fault injection.
    Debug,
}

impl Flavour {
    /// `name` for the plain flavour, `name-debug` for the other.
    pub fn name(self, name: &str) -> String {
        match self {
            Self::Plain => name.to_owned(),
            Self::Debug => format!("{name}-debug"),
        }
    }

    fn fragment(self) -> String {
        match self {
            Self::Plain => FRAGMENT.to_owned(),
            Self::Debug => format!("{FRAGMENT}\n{DEBUG_FRAGMENT}"),
        }
    }
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Debug => "debug",
        })
    }
}

/// How the kernel's build is called, for the kernel itself and for modules out of tree.
#[derive(Debug, Clone)]
pub struct Kbuild {
    host: Host,
    library: Library,
    source: Source,
    bindgen: Step,
}

/// A built kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The step that builds it.
    pub step: Step,
    /// The call of its build, for modules.
    pub kbuild: Kbuild,
    /// Which kernel it is.
    pub flavour: Flavour,
}

impl Kernel {
    /// The uncompressed image.
    pub fn image(&self) -> PathBuf {
        self.objects().join("arch/arm64/boot/Image")
    }

    /// The kernel's build directory (`O=`).
    pub fn objects(&self) -> PathBuf {
        self.step.file("build")
    }

    /// Installed modules: has `lib/modules`.
    pub fn modules(&self) -> PathBuf {
        self.step.file("modules")
    }
}

impl Kbuild {
    /// Declares what kernels and modules share: the source and bindgen.
    pub fn declare(
        plan: &mut Plan,
        host: &Host,
        versions: &Versions,
        source: Source,
        library: &Library,
    ) -> Result<Self> {
        let toolchain = library.toolchain().clone();
        let version = versions.host.bindgen.clone();
        let bindgen = plan
            .step("bindgen")
            .param("version", &version)
            .param("rustc", toolchain.identity())
            .runs(move |job| {
                let mut cargo = toolchain.cargo();
                cargo.args([
                    "install",
                    "--locked",
                    "--quiet",
                    "bindgen-cli",
                    "--version",
                    &version,
                ]);
                cargo
                    .arg("--root")
                    .arg(job.dir())
                    .arg("--target-dir")
                    .arg(job.work()?);
                // No bin directory of the user is meant: the warning about PATH is pointless.
                job.run(&mut cargo)
            })?;
        Ok(Self {
            host: host.clone(),
            library: library.clone(),
            source,
            bindgen,
        })
    }

    /// `make` in the kernel's source with `objects` as its build directory.
    pub fn make(&self, objects: &Path) -> Command {
        let mut command = make();
        command
            .arg("-C")
            .arg(&self.source.tree)
            .arg(format!("O={}", objects.display()))
            .arg("ARCH=arm64")
            .arg(format!("LLVM={}/", self.host.llvm_bin().display()))
            .arg(format!(
                "BINDGEN={}",
                self.bindgen.file("bin/bindgen").display()
            ))
            .arg(format!("RUST_LIB_SRC={}", self.library.source().display()))
            .env("LIBCLANG_PATH", self.host.llvm_lib())
            .env("KBUILD_BUILD_USER", "ringfence")
            .env("KBUILD_BUILD_HOST", "ringfence")
            .env_remove("RUSTFLAGS");
        command
    }

    /// Declares the kernel of the given flavour.
    pub fn declare_kernel(&self, plan: &mut Plan, flavour: Flavour) -> Result<Kernel> {
        let kbuild = self.clone();
        let mut step = plan
            .step(&flavour.name("kernel"))
            .param("config", flavour.fragment())
            .param("rustc", self.library.toolchain().identity())
            .param("llvm", &self.host.llvm)
            .needs(&self.source.step)
            .needs(&self.bindgen);
        if let Some(library) = self.library.step() {
            step = step.needs(library);
        }
        let step = step.resumes().runs(move |job| kbuild.build(job, flavour))?;
        Ok(Kernel {
            step,
            kbuild: self.clone(),
            flavour,
        })
    }

    fn build(&self, job: &Job, flavour: Flavour) -> Result<()> {
        let objects = job.file("build");
        if !objects.exists() {
            // Kbuild compares commands and times, so it only makes what another configuration changes.
            match job.previous() {
                Some(previous) => {
                    let pending = job.file("build.new");
                    if pending.exists() {
                        fs::remove_dir_all(&pending)?;
                    }
                    copy_tree(job, &previous.join("build"), &pending)?;
                    fs::rename(&pending, &objects)?;
                }
                None => fs::create_dir(&objects)?,
            }
        }
        let config = objects.join(".config");
        job.run(self.make(&objects).arg("allnoconfig"))?;
        // A later setting overrides an earlier one.
        let merged = format!("{}\n{}", fs::read_to_string(&config)?, flavour.fragment());
        fs::write(&config, merged)?;
        job.run(self.make(&objects).arg("olddefconfig"))?;
        let config = fs::read_to_string(&config)?;
        let lost = lost_lines(&flavour.fragment(), &config);
        if !lost.is_empty() {
            bail!(
                "the kernel's configuration lost these lines of the fragment:\n{}",
                lost.join("\n")
            );
        }
        job.run(self.make(&objects).args(["Image", "modules"]))?;
        let modules = job.file("modules");
        if modules.exists() {
            fs::remove_dir_all(&modules)?;
        }
        let mut install = self.make(&objects);
        install
            .arg("modules_install")
            .arg(format!("INSTALL_MOD_PATH={}", modules.display()));
        job.run(install.args(["INSTALL_MOD_STRIP=1", "DEPMOD=true"]))
            .context("install the kernel's modules")
    }
}

/// Settings of `fragment` that `config` does not have; the last of repeated settings counts.
fn lost_lines(fragment: &str, config: &str) -> Vec<String> {
    let setting = |line: &str| {
        let (name, value) = line.split_once('=')?;
        name.starts_with("CONFIG_")
            .then(|| (name.to_owned(), value.to_owned()))
    };
    let wanted: BTreeMap<_, _> = fragment.lines().filter_map(setting).collect();
    let found: BTreeMap<_, _> = config.lines().filter_map(setting).collect();
    let differs = |(name, value): &(&String, &String)| {
        found.get(*name).map_or("n", String::as_str) != value.as_str()
    };
    wanted
        .iter()
        .filter(differs)
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::lost_lines;

    #[test]
    fn a_lost_setting_is_named() {
        let fragment = "# comment\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=n\nCONFIG_D=\"x\"\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n";
        assert_eq!(lost_lines(fragment, config), ["CONFIG_B=m"]);
    }

    #[test]
    fn the_last_of_repeated_settings_counts() {
        assert_eq!(
            lost_lines("CONFIG_A=m\nCONFIG_A=y\n", "CONFIG_A=y\n"),
            Vec::<String>::new()
        );
    }
}
