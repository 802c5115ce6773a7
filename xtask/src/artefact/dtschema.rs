// SPDX-License-Identifier: MIT OR Apache-2.0
//! dt-schema, the devicetree project's validator, and what it says of the bindings in `dts/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::engine::{Plan, Step};

/// Prefix of the compatible strings whose nodes are judged: QEMU's own nodes are not ours to mend.
const OURS: &str = "ringfence";

/// The fetched validator.
#[derive(Debug, Clone)]
pub struct Dtschema {
    /// The step that fetches it.
    pub step: Step,
}

/// Declares the validator, of all the packages that it takes.
pub fn declare(plan: &mut Plan, packages: &[String]) -> Result<Dtschema> {
    let wanted = packages.to_owned();
    let step = plan
        .step("dtschema")
        .param("packages", packages.join(" "))
        .runs(move |job| {
            // Debian's own Python: another one on PATH may lack pip.
            let mut pip = Command::new("/usr/bin/python3");
            pip.args(["-m", "pip", "install", "--disable-pip-version-check"]);
            pip.args(["--no-input", "--only-binary", ":all:", "--no-deps"]);
            pip.arg("--target").arg(job.file("packages"));
            job.run(pip.args(&wanted))
        })?;
    Ok(Dtschema { step })
}

impl Dtschema {
    /// Checks the schemas below `bindings`, and returns what is wrong with them.
    pub fn check_schemas(&self, bindings: &Path) -> Result<String> {
        let mut check = self.tool("dt-doc-validate");
        said(check.arg("-u").arg(bindings).args(schemas(bindings)?))
    }

    /// Checks a devicetree blob against the schemas below `bindings`, and returns what is wrong
    /// with it.
    pub fn check_blob(&self, bindings: &Path, blob: &Path, scratch: &Path) -> Result<String> {
        let processed = scratch.join("schema.json");
        let complaints = said(
            self.tool("dt-mk-schema")
                .arg("-j")
                .arg("-o")
                .arg(&processed)
                .arg(bindings),
        )?;
        ensure!(complaints.is_empty(), "dt-mk-schema: {complaints}");
        said(
            self.tool("dt-validate")
                .arg("-s")
                .arg(&processed)
                .args(["-l", OURS])
                .arg(blob),
        )
    }

    /// Compiles the examples of a schema into `scratch`, and returns the blob.
    pub fn compile_examples(&self, schema: &Path, scratch: &Path) -> Result<PathBuf> {
        let examples = self.tool("dt-extract-example").arg(schema).output()?;
        ensure!(
            examples.status.success() && !examples.stdout.is_empty(),
            "{} has no examples: {}",
            schema.display(),
            String::from_utf8_lossy(&examples.stderr)
        );
        compile(
            &examples.stdout,
            scratch,
            &["-Wno-avoid_unnecessary_addr_size"],
        )
    }

    fn tool(&self, name: &str) -> Command {
        let packages = self.step.file("packages");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(packages.join("bin").join(name))
            .env("PYTHONPATH", &packages);
        command
    }
}

/// The schema files below `bindings`.
pub fn schemas(bindings: &Path) -> Result<Vec<PathBuf>> {
    let mut schemas = Vec::new();
    for entry in walkdir::WalkDir::new(bindings).sort_by_file_name() {
        let path = entry?.into_path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            schemas.push(path);
        }
    }
    ensure!(
        !schemas.is_empty(),
        "no schemas below {}",
        bindings.display()
    );
    Ok(schemas)
}

/// Compiles a devicetree's source into `scratch`, and returns the blob. A warning is an error, unless
/// `flags` silence it.
pub fn compile(source: &[u8], scratch: &Path, flags: &[&str]) -> Result<PathBuf> {
    let (from, to) = (scratch.join("tree.dts"), scratch.join("tree.dtb"));
    fs::write(&from, source)?;
    let complaints = said(
        Command::new("dtc")
            .args(flags)
            .args(["-O", "dtb", "-o"])
            .arg(&to)
            .arg(&from),
    )?;
    ensure!(complaints.is_empty(), "dtc: {complaints}");
    Ok(to)
}

/// What a program prints, on either stream. The validators' exit statuses tell nothing: what they
/// have to say they say.
fn said(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("run {}", command.get_program().to_string_lossy()))?;
    let said = [output.stdout, output.stderr].concat();
    let mut said = String::from_utf8_lossy(&said).trim().to_owned();
    if !output.status.success() && said.is_empty() {
        said = format!("{} without a word", output.status);
    }
    Ok(said)
}
