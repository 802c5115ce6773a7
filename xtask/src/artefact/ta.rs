// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trusted application, as the stripped ELF that OP-TEE embeds, and the one that tests attack with.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, Result};
use ringfence_tests::foreign;

use super::optee::DevKit;
use super::CROSS_COMPILE;
use crate::cache::Cache;
use crate::engine::{Plan, Step};
use crate::rust::{CrossBuild, Library};
use crate::stack::Build;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The built trusted application.
#[derive(Debug, Clone)]
pub struct TrustedApplication {
    /// The step that builds it.
    pub step: Step,
}

impl TrustedApplication {
    /// The ELF to embed. OP-TEE takes the UUID from the file's name.
    pub fn stripped(&self) -> PathBuf {
        self.step
            .file("9a3e4d0c-8b57-4c7e-a1f6-5d2c90e7b314.stripped.elf")
    }
}

/// Declares the trusted application.
pub fn declare(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    kit: &DevKit,
    build: Build,
) -> Result<TrustedApplication> {
    let features = match build {
        Build::Test => "optee,test-commands",
        Build::Product => "optee",
    };
    let key = factory_key(plan.cache())?;
    let step = plan
        .step(&build.name("ta"))
        .needs(&kit.step)
        .input(&workspace.join("ta/src"))
        .input(&workspace.join("ta/build.rs"))
        .input(&workspace.join("ta/Cargo.toml"))
        .input(&key)
        .param("features", features);
    let step = library.inputs(step, workspace);
    let (root, library, kit) = (workspace.to_owned(), library.clone(), kit.dir());
    let step = step.runs(move |job| {
        let arguments = [
            "--package",
            "ringfence-ta",
            "--bin",
            "ringfence-ta",
            "--profile",
            "ta",
            "--features",
            features,
        ];
        let built = library.build(
            job,
            &CrossBuild {
                workspace: &root,
                target: TARGET,
                std: "core,alloc,panic_abort",
                std_features: false,
                arguments: &arguments,
                rustflags: "",
                environment: &[
                    ("TA_DEV_KIT_DIR", &kit),
                    ("RINGFENCE_FACTORY_KEY_FILE", &key),
                ],
            },
        )?;
        let stripped = job.file("9a3e4d0c-8b57-4c7e-a1f6-5d2c90e7b314.stripped.elf");
        let mut objcopy = Command::new(format!("{CROSS_COMPILE}objcopy"));
        job.run(
            objcopy
                .arg("--strip-unneeded")
                .arg(built.join("ta/ringfence-ta"))
                .arg(stripped),
        )
    })?;
    Ok(TrustedApplication { step })
}

/// The trusted application of the tests that has no business with the firewall.
#[derive(Debug, Clone)]
pub struct ForeignApplication {
    /// The step that builds it.
    pub step: Step,
}

impl ForeignApplication {
    /// Name and file of what tee-supplicant loads.
    pub fn signed(&self) -> (String, PathBuf) {
        let name = format!("{}.ta", foreign::UUID_TEXT);
        let file = self.step.file(&name);
        (name, file)
    }
}

/// Declares the foreign application, signed with the key that this OP-TEE trusts.
pub fn declare_foreign(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    kit: &DevKit,
) -> Result<ForeignApplication> {
    let step = plan
        .step("foreign-ta")
        .needs(&kit.step)
        .input(&workspace.join("tests/foreign-ta"))
        .input(&workspace.join("tests/src/foreign.rs"));
    let step = library.inputs(step, workspace);
    let (root, library, kit) = (workspace.to_owned(), library.clone(), kit.dir());
    let step = step.runs(move |job| {
        let arguments = [
            "--package",
            "ringfence-foreign-ta",
            "--bin",
            "ringfence-foreign-ta",
            "--profile",
            "ta",
            "--features",
            "optee",
        ];
        let built = library.build(
            job,
            &CrossBuild {
                workspace: &root,
                target: TARGET,
                std: "core,alloc,panic_abort",
                std_features: false,
                arguments: &arguments,
                rustflags: "",
                environment: &[("TA_DEV_KIT_DIR", &kit)],
            },
        )?;
        let stripped = job.file("stripped.elf");
        let mut objcopy = Command::new(format!("{CROSS_COMPILE}objcopy"));
        job.run(
            objcopy
                .arg("--strip-unneeded")
                .arg(built.join("ta/ringfence-foreign-ta"))
                .arg(&stripped),
        )?;
        let mut sign = Command::new("/usr/bin/python3");
        sign.arg(kit.join("scripts/sign_encrypt.py"))
            .args(["--uuid", foreign::UUID_TEXT, "--ta-version", "0"])
            .arg("--key")
            .arg(kit.join("keys/default_ta.pem"))
            .arg("--in")
            .arg(&stripped)
            .arg("--out")
            .arg(job.file(format!("{}.ta", foreign::UUID_TEXT)));
        job.run(&mut sign)
    })?;
    Ok(ForeignApplication { step })
}

/// The file with the factory key of this cache's applications: 32 random bytes, made once.
pub fn factory_key(cache: &Cache) -> Result<PathBuf> {
    let path = cache.subdirectory("keys")?.join("factory.key");
    if fs::metadata(&path).is_ok_and(|file| file.len() == 32) {
        return Ok(path);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| anyhow!("no random numbers: {error}"))?;
    let pending = path.with_extension("new");
    let mut options = fs::File::options();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&pending)?;
    std::io::Write::write_all(&mut file, &key)?;
    fs::rename(&pending, &path)?;
    Ok(path)
}
