// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Rust toolchain: what it can build for, and the standard library's source where it lacks that.
//!
//! A target that rustup has installed is used. Otherwise the standard library is built by
//! `-Zbuild-std`, from rustup's `rust-src` or from Debian's package of exactly the same version. The
//! latter is put into a private sysroot of links: the toolchain's own directory is left alone.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{anyhow, bail, Context, Result};

use crate::apt::{only_file, Apt, Item};
use crate::engine::{Declaration, Job, Plan, Step};
use crate::versions::numbers;

/// Variables of the calling Cargo that must not reach a build for another target.
const INHERITED: [&str; 6] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WRAPPER",
];

/// The installed toolchain.
#[derive(Debug, Clone)]
pub struct Toolchain {
    cargo: OsString,
    sysroot: PathBuf,
    release: String,
    identity: String,
}

impl Toolchain {
    /// Asks rustc what it is.
    pub fn detect() -> Result<Self> {
        let rustc = |argument: &str| -> Result<String> {
            let output = Command::new("rustc")
                .args(argument.split(' '))
                .output()
                .context("start rustc")?;
            if !output.status.success() {
                bail!(
                    "rustc {argument} failed: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Ok(String::from_utf8(output.stdout)?)
        };
        let identity = rustc("--version --verbose")?;
        let release = identity
            .lines()
            .find_map(|line| line.strip_prefix("release: "));
        let release = release
            .ok_or_else(|| anyhow!("rustc names no release"))?
            .to_owned();
        let sysroot = PathBuf::from(rustc("--print sysroot")?.trim());
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self {
            cargo,
            sysroot,
            release,
            identity,
        })
    }

    /// The compiler, in all detail: an input of every step that runs it.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Release number, such as `1.95.0`.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether the standard library for `target` is installed.
    pub fn has_target(&self, target: &str) -> bool {
        self.sysroot
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
    }

    /// Whether the standard library's source is installed.
    pub fn has_source(&self) -> bool {
        self.sysroot
            .join("lib/rustlib/src/rust/library/Cargo.lock")
            .exists()
    }

    /// Cargo, without the settings of the Cargo that runs xtask.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for name in INHERITED {
            command.env_remove(name);
        }
        command
    }

    /// Declares the step that brings the standard library's source.
    pub fn declare_library(&self, plan: &mut Plan, apt: &Arc<Apt>) -> Result<Library> {
        if self.has_source() {
            let source = self.sysroot.join("lib/rustlib/src/rust/library");
            return Ok(Library {
                toolchain: self.clone(),
                source,
                wrapper: None,
                step: None,
            });
        }
        let (toolchain, apt) = (self.clone(), Arc::clone(apt));
        let step = plan
            .step("rust-src")
            .param("rustc", &self.identity)
            .runs(move |job| toolchain.fetch_library(job, &apt))?;
        let source = step.file("sysroot/lib/rustlib/src/rust/library");
        Ok(Library {
            toolchain: self.clone(),
            source,
            wrapper: Some(step.file("rustc")),
            step: Some(step),
        })
    }

    fn fetch_library(&self, job: &Job, apt: &Apt) -> Result<()> {
        let numbers: Vec<String> = numbers(&self.release).iter().map(u64::to_string).collect();
        let release = numbers.join(".");
        apt.fetch(
            job,
            &Item::Binary("rust-src".to_owned()),
            std::slice::from_ref(&release),
            job.dir(),
        )
        .with_context(|| {
            format!(
                "rustc {} has no library source: install it (rustup component add rust-src), \
                 or use a Rust release whose rust-src Debian has",
                self.release
            )
        })?;
        let package = only_file(job.dir(), "deb")?;
        job.run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&package)
                .arg(job.file("package")),
        )?;
        fs::remove_file(package)?;
        let library = job.file("package/usr/src").join(format!("rustc-{release}"));
        self.link_sysroot(&job.file("sysroot"), &library)?;
        let wrapper = job.file("rustc");
        let rustc = self.sysroot.join("bin/rustc");
        let arguments = [rustc, "--sysroot".into(), job.file("sysroot")]
            .map(|path| path.to_string_lossy().into_owned());
        fs::write(
            &wrapper,
            format!("#!/bin/sh\nexec {} \"$@\"\n", shell_words::join(&arguments)),
        )?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A sysroot of links to the real one, in which the library's source is `library`.
    fn link_sysroot(&self, private: &Path, library: &Path) -> Result<()> {
        fs::create_dir_all(private.join("lib/rustlib/src"))?;
        for (folder, replaced) in [("", "lib"), ("lib", "rustlib"), ("lib/rustlib", "src")] {
            for entry in fs::read_dir(self.sysroot.join(folder))? {
                let entry = entry?;
                if entry.file_name() != replaced {
                    symlink(entry.path(), private.join(folder).join(entry.file_name()))?;
                }
            }
        }
        symlink(library, private.join("lib/rustlib/src/rust"))?;
        Ok(())
    }
}

/// The toolchain together with the standard library's source.
#[derive(Debug, Clone)]
pub struct Library {
    toolchain: Toolchain,
    source: PathBuf,
    wrapper: Option<PathBuf>,
    step: Option<Step>,
}

/// One Cargo build for a target other than the host.
pub struct CrossBuild<'a> {
    /// Root of the workspace.
    pub workspace: &'a Path,
    /// Target triple.
    pub target: &'a str,
    /// Crates of the standard library that are built when the target is not installed.
    pub std: &'a str,
    /// Whether the standard library keeps its default features.
    pub std_features: bool,
    /// Everything else: packages, features, profile.
    pub arguments: &'a [&'a str],
    /// Extra flags for rustc.
    pub rustflags: &'a str,
    /// Environment of the build.
    pub environment: &'a [(&'a str, &'a Path)],
}

/// A name for a checkout, so that several can share a cache: Cargo names its own crates by their
/// place in the workspace, and would take those of another checkout for built.
fn checkout(workspace: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    workspace.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Library {
    /// The `library` directory: what the kernel calls `RUST_LIB_SRC`.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The toolchain it belongs to.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// The step to wait for, when the source has to be fetched.
    pub fn step(&self) -> Option<&Step> {
        self.step.as_ref()
    }

    /// Adds to a step's declaration what every cross build depends on, besides its own sources.
    pub fn inputs<'p>(&self, declaration: Declaration<'p>, workspace: &Path) -> Declaration<'p> {
        let declaration = declaration
            .param("rustc", self.toolchain.identity())
            .input(&workspace.join("ta/proto"))
            .input(&workspace.join("Cargo.toml"))
            .input(&workspace.join("Cargo.lock"));
        match &self.step {
            Some(step) => declaration.needs(step),
            None => declaration,
        }
    }

    /// Runs a cross build; returns the directory that has `<profile>/<artefact>`.
    pub fn build(&self, job: &Job, build: &CrossBuild<'_>) -> Result<PathBuf> {
        let target_dir = job.work()?.join(checkout(build.workspace));
        let mut cargo = self.toolchain.cargo();
        cargo
            .current_dir(build.workspace)
            .args(["build", "--locked", "--target", build.target]);
        cargo
            .args(build.arguments)
            .arg("--target-dir")
            .arg(&target_dir);
        if !self.toolchain.has_target(build.target) {
            cargo
                .env("RUSTC_BOOTSTRAP", "1")
                .arg(format!("-Zbuild-std={}", build.std));
            if !build.std_features {
                cargo.arg("-Zbuild-std-features=");
            }
            if let Some(wrapper) = &self.wrapper {
                cargo.env("RUSTC", wrapper);
            }
        }
        if !build.rustflags.is_empty() {
            cargo.env("RUSTFLAGS", build.rustflags);
        }
        cargo.env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        );
        cargo.envs(build.environment.iter().copied());
        job.run(&mut cargo)?;
        Ok(target_dir.join(build.target))
    }
}
