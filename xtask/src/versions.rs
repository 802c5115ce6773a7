// SPDX-License-Identifier: MIT OR Apache-2.0
//! The versions that the build asks for, as `platform/versions.toml` declares them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Content of `platform/versions.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Versions {
    /// The archive.
    pub archive: Archive,
    /// Tools of the building machine.
    pub host: Host,
    /// Source packages: series known to work, in order of preference.
    pub source: BTreeMap<String, Vec<String>>,
    /// The guest's user space.
    pub guest: Guest,
    /// The clip of the main job.
    pub clip: Clip,
}

/// Which parts of the Debian archive are used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Suites that packages and sources are taken from.
    pub suites: Vec<String>,
    /// Suffix of the suite that has a newer QEMU than the system's own.
    pub backports: String,
}

/// Tools of the building machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Lowest usable version of QEMU.
    pub qemu: String,
    /// Known-good major versions of LLVM.
    pub llvm: Vec<String>,
    /// Version of bindgen-cli.
    pub bindgen: String,
    /// The devicetree validator and what it needs, as pip takes them.
    pub dtschema: Vec<String>,
}

/// The guest's user space.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Suites that have all of it, in order of preference.
    pub suites: Vec<String>,
    /// Binary packages that go into the guest.
    pub packages: Vec<String>,
    /// Binary packages that programs for the guest are linked with.
    pub development: Vec<String>,
}

/// A file in a wheel of the Python package index.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// Name and version of the package.
    pub package: String,
    /// SHA-256 of the wheel, in hexadecimal.
    pub sha256: String,
    /// The file in it.
    pub member: String,
    /// What the clip is, and its licence.
    pub title: String,
}

impl Versions {
    /// Reads the declaration that this xtask was built with.
    pub fn load() -> Result<Self> {
        toml::from_str(include_str!("../platform/versions.toml"))
            .context("read xtask/platform/versions.toml")
    }

    /// The series wanted of a source package.
    pub fn series(&self, package: &str) -> Result<&[String]> {
        let series = self.source.get(package);
        series
            .map(Vec::as_slice)
            .with_context(|| format!("xtask/platform/versions.toml has no [source] {package}"))
    }
}

/// Whether `version` (of Debian, perhaps with an epoch) belongs to `series`.
pub fn is_of_series(version: &str, series: &str) -> bool {
    let upstream = version
        .split_once(':')
        .map_or(version, |(_, upstream)| upstream);
    upstream
        .strip_prefix(series)
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// The leading numbers of a version, for comparing: `8.2.2+ds` gives `[8, 2, 2]`.
pub fn numbers(version: &str) -> Vec<u64> {
    let end = version
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(version.len());
    version[..end]
        .split('.')
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_well_formed() {
        let versions = Versions::load().expect("versions.toml parses");
        assert!(versions.series("linux").is_ok());
        assert!(versions.series("no-such-source").is_err());
    }

    #[test]
    fn a_series_ends_at_a_number() {
        assert!(is_of_series("2.12.1+dfsg-1", "2.12.1"));
        assert!(is_of_series("2.12.16+dfsg-1", "2.12"));
        assert!(is_of_series("1:10.0.2+ds-2", "10.0"));
        assert!(!is_of_series("2.12.16+dfsg-1", "2.12.1"));
        assert!(!is_of_series("7.30.1", "7.3"));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("10.0.2+ds-2") > numbers("8.1"));
        assert!(numbers("7.2.19+dfsg") < numbers("8.1"));
    }
}
