// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trusted application, as the stripped ELF that OP-TEE embeds.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, Result};

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
    let key = provisioning_key(plan.cache())?;
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
                    ("RINGFENCE_PROVISIONING_KEY_FILE", &key),
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

/// The file with this machine's provisioning key: 32 random bytes, made once.
pub fn provisioning_key(cache: &Cache) -> Result<PathBuf> {
    let path = cache.subdirectory("keys")?.join("provisioning.key");
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
