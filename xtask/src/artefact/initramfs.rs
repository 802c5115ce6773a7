// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's root file system: a cpio archive that the kernel unpacks into memory.
//!
//! It is not compressed: the kernel would spend more time on that, most of all the debug kernel, than
//! the host saves.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Write};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cpio::newc::{trailer, Builder};

use super::copy_tree;
use super::kernel::Kernel;
use super::kselftest::{self, Kselftest};
use super::modules::Modules;
use super::programs::Programs;
use super::ta::TrustedApplication;
use super::userland::Userland;
use crate::engine::{Job, Plan, Step};
use crate::stack::Build;

/// The first process.
const INIT: &str = include_str!("../../platform/init");

/// Where tee-supplicant looks for trusted applications.
const TRUSTED_APPLICATIONS: &str = "usr/lib/optee_armtz";

/// Type bits of a character device in a mode.
const CHARACTER_DEVICE: u32 = 0o020_000;

/// The packed root file system.
#[derive(Debug, Clone)]
pub struct Initramfs {
    /// The step that packs it.
    pub step: Step,
}

impl Initramfs {
    /// The archive.
    pub fn archive(&self) -> PathBuf {
        self.step.file("initramfs.cpio")
    }
}

/// What only a test build has.
#[derive(Debug)]
pub struct TestParts {
    /// The kernel's own test of heaps.
    pub kselftest: Kselftest,
    /// A trusted application that is none of ours.
    pub foreign: TrustedApplication,
}

/// Declares the root file system that goes with `kernel`.
pub fn declare(
    plan: &mut Plan,
    userland: &Userland,
    kernel: &Kernel,
    modules: &Modules,
    programs: &Programs,
    tests: Option<&TestParts>,
) -> Result<Initramfs> {
    let build = match tests {
        Some(_) => Build::Test,
        None => Build::Product,
    };
    let (userland_root, kernel_modules, own_modules) =
        (userland.root(), kernel.modules(), modules.root());
    let mut files: Vec<(&str, PathBuf)> = programs.files().collect();
    let mut applications = Vec::new();
    if let Some(tests) = tests {
        files.push((kselftest::PROGRAM, tests.kselftest.program()));
        applications.push(tests.foreign.signed());
    }
    let mut step = plan
        .step(&kernel.flavour.name(&build.name("initramfs")))
        .needs(&userland.step)
        .needs(&kernel.step)
        .needs(&modules.step)
        .needs(&programs.step)
        .param("init", INIT);
    if let Some(tests) = tests {
        step = step.needs(&tests.kselftest.step).needs(&tests.foreign.step);
    }
    let step = step.runs(move |job| {
        let root = job.file("root");
        copy_tree(job, &userland_root, &root)?;
        trim(&root)?;
        for folder in ["bin", "dev", "etc", "proc", "sys"] {
            fs::create_dir_all(root.join(folder))?;
        }
        link_libraries(&root)?;
        symlink("/usr/bin/busybox", root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/sh"))?;
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        )?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        for (name, file) in &files {
            fs::copy(file, root.join("usr/bin").join(name))?;
        }
        for (name, file) in &applications {
            let folder = root.join(TRUSTED_APPLICATIONS);
            fs::create_dir_all(&folder)?;
            fs::copy(file, folder.join(name))?;
        }
        for modules in [&kernel_modules, &own_modules] {
            copy_tree(
                job,
                &modules.join("lib/modules"),
                &root.join("usr/lib/modules"),
            )?;
        }
        index_modules(job, &root)?;
        pack(&root, &job.file("initramfs.cpio"))
    })?;
    Ok(Initramfs { step })
}

/// Removes what the guest has no use for.
fn trim(root: &Path) -> Result<()> {
    for folder in [
        "usr/share",
        "usr/lib/systemd",
        "usr/lib/aarch64-linux-gnu/gconv",
    ] {
        let path = root.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Gives the root the links of a merged /usr, which Debian's packages take for granted.
fn link_libraries(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("usr/lib"))?;
    let lib = root.join("lib");
    if !lib.exists() {
        symlink("usr/lib", lib)?;
    }
    let loader = root.join("usr/lib/ld-linux-aarch64.so.1");
    if !loader.exists() && fs::symlink_metadata(&loader).is_err() {
        symlink("aarch64-linux-gnu/ld-linux-aarch64.so.1", loader)?;
    }
    Ok(())
}

/// Writes the dependency lists that modprobe reads.
fn index_modules(job: &Job, root: &Path) -> Result<()> {
    for entry in fs::read_dir(root.join("usr/lib/modules"))? {
        let folder = entry?.path();
        for link in ["build", "source"] {
            // Links to the building machine; absent with some versions of kbuild.
            let _ = fs::remove_file(folder.join(link));
        }
        let release = folder
            .file_name()
            .context("a directory has a name")?
            .to_owned();
        job.run(
            Command::new("/sbin/depmod")
                .arg("--basedir")
                .arg(root)
                .arg(release),
        )?;
    }
    Ok(())
}

/// Packs the directory `root`, and the console's device node, into `archive`.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut output = BufWriter::new(File::create(archive)?);
    let mut number = 0;
    let mut entry = |name: &str| {
        number += 1;
        Builder::new(name).ino(number).uid(0).gid(0)
    };
    for found in walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let found = found?;
        let name = found
            .path()
            .strip_prefix(root)?
            .to_str()
            .context("a name that is not text")?;
        let metadata = fs::symlink_metadata(found.path())?;
        let content = if metadata.is_symlink() {
            fs::read_link(found.path())?
                .into_os_string()
                .into_encoded_bytes()
        } else if metadata.is_file() {
            fs::read(found.path())?
        } else {
            Vec::new()
        };
        let size = u32::try_from(content.len()).context("a file too large for cpio")?;
        let mode = metadata.permissions().mode();
        let mut writer = entry(name).mode(mode).write(&mut output, size);
        std::io::copy(&mut Cursor::new(content), &mut writer)?;
        writer.finish()?;
    }
    let console = entry("dev/console")
        .mode(CHARACTER_DEVICE | 0o600)
        .rdev_major(5)
        .rdev_minor(1);
    console.write(&mut output, 0).finish()?;
    trailer(&mut output)?.flush()?;
    Ok(())
}
