// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suite `bindings`: the schemas in `dts/` are right, their examples and the guest's devicetree
//! keep them, and mistakes are found.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Result};

use crate::artefact::devicetree::{Board, Devicetree};
use crate::artefact::dtschema::{self, Dtschema};

/// Mistakes in the merged tree of the guest: a text in its source, what stands there instead, and a
/// word that the validator's complaint must have.
const MISTAKES: [(&str, &str, &str); 6] = [
    ("\"secure-video\"", "\"secure-vide0\"", "secure-vide0"),
    (
        "ringfence,protection = \"buffer\"",
        "ringfence,protection = \"none\"",
        "'none' is not one of",
    ),
    (
        "ringfence,use-case = \"trusted-ui\";",
        "",
        "'ringfence,use-case' is a required property",
    ),
    (
        "compatible = \"ringfence,carveout-heap\";",
        "compatible = \"ringfence,carveout-heap\"; ringfence,alignment = <0x10>;",
        "less than the minimum",
    ),
    (
        "compatible = \"ringfence,carveout-heap\";",
        "compatible = \"ringfence,carveout-heap\"; ringfence,use-case = \"trusted-ui\";",
        "does not match any of the regexes",
    ),
    (
        "compatible = \"ringfence,carveout-heap\";",
        "compatible = \"ringfence,carveout-heap\"; ringfence,cpu-acess;",
        "does not match any of the regexes",
    ),
];

/// A test: its name, and the first thing that was wrong.
pub type Outcome = (String, Result<()>);

/// Runs the suite over the bindings in `dts` and the guest's devicetrees.
pub fn run(dtschema: &Dtschema, dts: &Path, devicetree: &Devicetree) -> Result<Vec<Outcome>> {
    let blob = devicetree.blob(Board::Ordinary);
    let bindings = dts.join("bindings");
    let scratch = tempfile::tempdir()?;
    let scratch = scratch.path();
    let nothing_in = |complaints: String| {
        ensure!(complaints.is_empty(), "{complaints}");
        Ok(())
    };

    let mut outcomes = vec![(
        "the schemas are valid".to_owned(),
        dtschema.check_schemas(&bindings).and_then(nothing_in),
    )];
    for schema in dtschema::schemas(&bindings)? {
        let kept = dtschema
            .compile_examples(&schema, scratch)
            .and_then(|examples| dtschema.check_blob(&bindings, &examples, scratch))
            .and_then(nothing_in);
        let name = schema.file_stem().unwrap_or_default().to_string_lossy();
        outcomes.push((format!("the examples keep {name}"), kept));
    }
    for (name, blob) in [
        ("the guest's devicetree keeps them", &blob),
        (
            "the guest's devicetree for measurements keeps them",
            &devicetree.blob(Board::Bench),
        ),
        (
            "the guest's devicetree with an IOMMU keeps them",
            &devicetree.blob(Board::Translated),
        ),
    ] {
        outcomes.push((
            name.to_owned(),
            dtschema
                .check_blob(&bindings, blob, scratch)
                .and_then(nothing_in),
        ));
    }

    let source = decompile(&blob)?;
    for (right, wrong, complaint) in MISTAKES {
        let found = mistake(dtschema, &bindings, scratch, &source, right, wrong).and_then(|said| {
            ensure!(
                said.contains(complaint),
                "expected {complaint:?} in: {said}"
            );
            Ok(())
        });
        outcomes.push((
            format!("a mistake is found: {wrong:?} for {right:?}"),
            found,
        ));
    }
    Ok(outcomes)
}

/// What the validator says of the tree with one mistake in it.
fn mistake(
    dtschema: &Dtschema,
    bindings: &Path,
    scratch: &Path,
    source: &str,
    right: &str,
    wrong: &str,
) -> Result<String> {
    ensure!(source.contains(right), "the tree has no {right:?}");
    // What dtc has to say of QEMU's own nodes is not asked.
    let blob = dtschema::compile(source.replace(right, wrong).as_bytes(), scratch, &["-q"])?;
    dtschema.check_blob(bindings, &blob, scratch)
}

/// The source of a blob.
fn decompile(blob: &Path) -> Result<String> {
    let output = Command::new("dtc")
        .args(["-q", "-I", "dtb", "-O", "dts"])
        .arg(blob)
        .output()?;
    ensure!(
        output.status.success(),
        "dtc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
