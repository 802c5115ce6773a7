// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trusted applications: those that OP-TEE embeds, as stripped ELFs, and the one that tests
//! attack with, signed.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{anyhow, Result};
use ringfence_proto::command::TA_UUID_TEXT;
use ringfence_proto::decoder::DECODER_UUID_TEXT;
use ringfence_tests::foreign;

use super::optee::DevKit;
use super::CROSS_COMPILE;
use crate::cache::Cache;
use crate::engine::{Plan, Step};
use crate::rust::{CrossBuild, Library};
use crate::stack::Build;

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// A trusted application of the workspace, and how it is built.
struct Application {
    step: String,
    package: &'static str,
    binary: &'static str,
    uuid: &'static str,
    features: &'static str,
    /// What it is made from, relative to the workspace.
    sources: &'static [&'static str],
    /// Files that its build takes, by the variable that names them.
    files: Vec<(&'static str, PathBuf)>,
    /// Whether it is signed, for tee-supplicant to load.
    signed: bool,
}

/// A built trusted application.
#[derive(Debug, Clone)]
pub struct TrustedApplication {
    /// The step that builds it.
    pub step: Step,
    uuid: &'static str,
}

impl TrustedApplication {
    /// The ELF to embed. OP-TEE takes the UUID from the file's name.
    pub fn stripped(&self) -> PathBuf {
        self.step.file(format!("{}.stripped.elf", self.uuid))
    }

    /// Name and file of what tee-supplicant loads, if it is signed.
    pub fn signed(&self) -> (String, PathBuf) {
        let name = format!("{}.ta", self.uuid);
        let file = self.step.file(&name);
        (name, file)
    }
}

const fn features(build: Build) -> &'static str {
    match build {
        Build::Test => "optee,test-commands",
        Build::Product => "optee",
    }
}

/// Declares Ringfence's trusted application, which has the keys.
pub fn declare(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    kit: &DevKit,
    build: Build,
) -> Result<TrustedApplication> {
    let application = Application {
        step: build.name("ta"),
        package: "ringfence-ta",
        binary: "ringfence-ta",
        uuid: TA_UUID_TEXT,
        features: features(build),
        sources: &["ta/src", "ta/build.rs", "ta/Cargo.toml"],
        files: vec![("RINGFENCE_FACTORY_KEY_FILE", factory_key(plan.cache())?)],
        signed: false,
    };
    application.declare(plan, workspace, library, kit)
}

/// Declares the decoder.
pub fn declare_decoder(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    kit: &DevKit,
    build: Build,
) -> Result<TrustedApplication> {
    let application = Application {
        step: build.name("decoder-ta"),
        package: "ringfence-decoder",
        binary: "ringfence-decoder-ta",
        uuid: DECODER_UUID_TEXT,
        features: features(build),
        sources: &[
            "ta/decoder/src",
            "ta/decoder/build.rs",
            "ta/decoder/Cargo.toml",
            "ta/decoder/codec",
            "ta/src",
            "ta/Cargo.toml",
        ],
        files: Vec::new(),
        signed: false,
    };
    application.declare(plan, workspace, library, kit)
}

/// Declares the application of the tests that has no business with the firewall, signed with the
/// key that this OP-TEE trusts.
pub fn declare_foreign(
    plan: &mut Plan,
    workspace: &Path,
    library: &Library,
    kit: &DevKit,
) -> Result<TrustedApplication> {
    let application = Application {
        step: "foreign-ta".to_owned(),
        package: "ringfence-foreign-ta",
        binary: "ringfence-foreign-ta",
        uuid: foreign::UUID_TEXT,
        features: "optee",
        sources: &["tests/foreign-ta", "tests/src/foreign.rs"],
        files: Vec::new(),
        signed: true,
    };
    application.declare(plan, workspace, library, kit)
}

impl Application {
    fn declare(
        self,
        plan: &mut Plan,
        workspace: &Path,
        library: &Library,
        kit: &DevKit,
    ) -> Result<TrustedApplication> {
        let mut step = plan
            .step(&self.step)
            .needs(&kit.step)
            .param("features", self.features);
        for source in self.sources {
            step = step.input(&workspace.join(source));
        }
        for (_, file) in &self.files {
            step = step.input(file);
        }
        let step = library.inputs(step, workspace);
        let uuid = self.uuid;
        let (root, library, kit) = (workspace.to_owned(), library.clone(), kit.dir());
        let step = step.runs(move |job| {
            let arguments = [
                "--package",
                self.package,
                "--bin",
                self.binary,
                "--profile",
                "ta",
                "--features",
                self.features,
            ];
            let mut environment = vec![("TA_DEV_KIT_DIR", kit.as_path())];
            environment.extend(
                self.files
                    .iter()
                    .map(|(name, file)| (*name, file.as_path())),
            );
            let built = library.build(
                job,
                &CrossBuild {
                    workspace: &root,
                    target: TARGET,
                    std: "core,alloc,panic_abort",
                    std_features: false,
                    arguments: &arguments,
                    rustflags: "",
                    environment: &environment,
                },
            )?;
            let stripped = job.file(format!("{uuid}.stripped.elf"));
            let mut objcopy = Command::new(format!("{CROSS_COMPILE}objcopy"));
            job.run(
                objcopy
                    .arg("--strip-unneeded")
                    .arg(built.join("ta").join(self.binary))
                    .arg(&stripped),
            )?;
            if !self.signed {
                return Ok(());
            }
            let mut sign = Command::new("/usr/bin/python3");
            sign.arg(kit.join("scripts/sign_encrypt.py"))
                .args(["--uuid", uuid, "--ta-version", "0"])
                .arg("--key")
                .arg(kit.join("keys/default_ta.pem"))
                .arg("--in")
                .arg(&stripped)
                .arg("--out")
                .arg(job.file(format!("{uuid}.ta")));
            job.run(&mut sign)
        })?;
        Ok(TrustedApplication { step, uuid })
    }
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
