// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages and sources of the Debian archive, by a private apt root.
//!
//! The archive's address comes from the machine's own apt configuration, and apt checks every file
//! against Debian's keyring. Nothing of the system's apt state is changed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{anyhow, bail, Context, Result};

use crate::cache::Cache;
use crate::engine::Job;
use crate::versions::is_of_series;

/// Environment variable that overrides the archive's address.
pub const MIRROR_VARIABLE: &str = "RINGFENCE_MIRROR";

/// Where Debian keeps the keyring of its archive, newest name first.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// What is fetched from the archive.
#[derive(Debug, Clone)]
pub enum Item {
    /// An arm64 (or architecture-independent) binary package.
    Binary(String),
    /// A source package.
    Source(String),
}

impl Item {
    fn name(&self) -> &str {
        match self {
            Self::Binary(name) | Self::Source(name) => name,
        }
    }

    /// What `apt-cache madison` calls the index that has it.
    fn index(&self) -> &'static str {
        match self {
            Self::Binary(_) => "Packages",
            Self::Source(_) => "Sources",
        }
    }
}

/// The address of the main Debian archive that this machine uses.
pub fn mirror() -> Result<String> {
    if let Some(mirror) = std::env::var_os(MIRROR_VARIABLE).filter(|value| !value.is_empty()) {
        return mirror
            .into_string()
            .map_err(|_| anyhow!("{MIRROR_VARIABLE} is not text"));
    }
    let ask = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("apt-get").args(arguments).output();
        let output = output.context("start apt-get: this needs Debian")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let format = "$(CREATED_BY)|$(REPO_URI)|$(ORIGIN)|$(LABEL)";
    if let Some(mirror) = mirror_of_targets(&ask(&["indextargets", "--format", format])?) {
        return Ok(mirror);
    }
    mirror_of_addresses(&ask(&["update", "--print-uris"])?).ok_or_else(|| {
        anyhow!("apt's configuration names no Debian archive; set {MIRROR_VARIABLE} to the address of one")
    })
}

/// The main archive among the indices that apt has fetched: their Release files say what they are.
fn mirror_of_targets(listing: &str) -> Option<String> {
    listing.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            ["Packages", uri, "Debian", "Debian"] => Some(uri.to_owned()),
            _ => None,
        }
    })
}

/// The main archive among the addresses that apt would fetch, where it has fetched nothing yet (a
/// fresh image): of Debian's archives the one for security has `security` in its suites' names, and
/// other people's repositories have no component `main` under the address of a `debian`.
fn mirror_of_addresses(listing: &str) -> Option<String> {
    listing.lines().find_map(|line| {
        let address = line.strip_prefix('\'')?.split('\'').next()?;
        let (archive, index) = address.split_once("/dists/")?;
        let (suite, component) = index.split_once('/')?;
        let is_main = component.starts_with("main/binary-");
        (is_main && archive.ends_with("/debian") && !suite.contains("security"))
            .then(|| archive.to_owned())
    })
}

/// Debian's keyring on this machine.
fn keyring() -> Result<&'static str> {
    KEYRINGS
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| anyhow!("no keyring of the Debian archive: install debian-archive-keyring"))
}

/// One line of a sources list; `options` go with the keyring in the brackets.
pub fn source_line(kind: &str, options: &str, suite: &str) -> Result<String> {
    Ok(format!(
        "{kind} [signed-by={} {options}] {} {suite} main\n",
        keyring()?,
        mirror()?
    ))
}

/// A private apt root in the cache.
pub struct Apt {
    cache: Cache,
    root: PathBuf,
    suites: Vec<String>,
    /// Whether this process has fetched the indices.
    refreshed: Mutex<bool>,
}

impl Apt {
    /// The root for `suites` in `cache`; nothing is fetched until something is asked for.
    pub fn new(cache: &Cache, suites: &[String]) -> Self {
        Self {
            cache: cache.clone(),
            root: cache.root().join("apt"),
            suites: suites.to_vec(),
            refreshed: Mutex::new(false),
        }
    }

    /// Fetches `item` in the first of the `series` that can be had, into the job's directory `into`.
    ///
    /// Returns the version. A source package is unpacked, with Debian's patches, to `into/source`; a
    /// binary package is left as it is.
    pub fn fetch(&self, job: &Job, item: &Item, series: &[String], into: &Path) -> Result<String> {
        self.ensure_indices(job, false)?;
        let mut tried = Vec::new();
        for attempt in [Attempt::Indices, Attempt::Refreshed] {
            if matches!(attempt, Attempt::Refreshed) && !self.ensure_indices(job, true)? {
                break;
            }
            let found = self.versions(job, item)?;
            job.note(&format!(
                "{} in the archive: {}",
                item.name(),
                found.join(" ")
            ))?;
            for wanted in series {
                for version in found.iter().filter(|version| is_of_series(version, wanted)) {
                    match self.download(job, item, version, into) {
                        Ok(()) => {
                            if series.first() != Some(wanted) || !tried.is_empty() {
                                eprintln!(
                                    "{}: the archive has {}; took {version} (wanted {})",
                                    item.name(),
                                    found.join(", "),
                                    series.join(", then ")
                                );
                            }
                            return Ok(version.clone());
                        }
                        Err(error) => {
                            job.note(&format!("{} {version}: {error:#}", item.name()))?;
                            tried.push(version.clone());
                        }
                    }
                }
            }
        }
        let found = self.versions(job, item)?;
        bail!(
            "no usable version of {} in the archive: wanted {}, found {}, failed to fetch {}",
            item.name(),
            series.join(", "),
            if found.is_empty() {
                "none".to_owned()
            } else {
                found.join(", ")
            },
            if tried.is_empty() {
                "none".to_owned()
            } else {
                tried.join(", ")
            },
        )
    }

    /// Fetches a set of binary packages from the first of the `suites` that has all of them.
    pub fn fetch_set(
        &self,
        job: &Job,
        packages: &[String],
        suites: &[String],
        into: &Path,
    ) -> Result<String> {
        self.ensure_indices(job, false)?;
        let mut last = anyhow!("no suite is named");
        for attempt in [Attempt::Indices, Attempt::Refreshed] {
            if matches!(attempt, Attempt::Refreshed) && !self.ensure_indices(job, true)? {
                break;
            }
            for suite in suites {
                let wanted = packages
                    .iter()
                    .map(|package| format!("{package}:arm64/{suite}"));
                match job.run(
                    self.command("apt-get")
                        .arg("download")
                        .args(wanted)
                        .current_dir(into),
                ) {
                    Ok(()) => return Ok(suite.clone()),
                    Err(error) => {
                        job.note(&format!("{suite}: {error:#}"))?;
                        last = error.context(format!("fetch the guest's packages from {suite}"));
                    }
                }
            }
        }
        Err(last)
    }

    /// Versions of `item` in all suites, newest first.
    fn versions(&self, job: &Job, item: &Item) -> Result<Vec<String>> {
        let listing = job.output(self.command("apt-cache").args(["madison", item.name()]))?;
        let mut versions: Vec<String> = Vec::new();
        for line in listing.lines() {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            if let [_, version, index] = fields[..] {
                if index.ends_with(item.index()) && !versions.iter().any(|known| known == version) {
                    versions.push(version.to_owned());
                }
            }
        }
        // Insertion sort by Debian's order: there are a handful, and each comparison starts dpkg.
        let mut sorted: Vec<String> = Vec::new();
        for version in versions {
            let place = sorted
                .iter()
                .position(|other| is_newer(&version, other))
                .unwrap_or(sorted.len());
            sorted.insert(place, version);
        }
        Ok(sorted)
    }

    fn download(&self, job: &Job, item: &Item, version: &str, into: &Path) -> Result<()> {
        let exact = format!("{}={version}", item.name());
        match item {
            Item::Binary(_) => job.run(
                self.command("apt-get")
                    .args(["download", &exact])
                    .current_dir(into),
            ),
            Item::Source(_) => {
                let source =
                    ["source", "--only-source", "--download-only", &exact].map(OsString::from);
                job.run(self.command("apt-get").args(source).current_dir(into))?;
                let description = only_file(into, "dsc")?;
                let mut unpack = Command::new("dpkg-source");
                unpack
                    .args(["--no-check", "-x"])
                    .arg(&description)
                    .arg("source")
                    .current_dir(into);
                job.run(&mut unpack)
            }
        }
    }

    /// Fetches the indices when there are none, or when `again` they may be stale.
    ///
    /// Returns whether they were fetched now.
    fn ensure_indices(&self, job: &Job, again: bool) -> Result<bool> {
        let mut refreshed = self.refreshed.lock().expect("no holder panics");
        let _lock = self.cache.lock("apt")?;
        if *refreshed {
            return Ok(false);
        }
        let mut list = String::new();
        for suite in &self.suites {
            list.push_str(&source_line("deb", "arch=arm64", suite)?);
            list.push_str(&source_line("deb-src", "", suite)?);
        }
        let path = self.root.join("sources.list");
        let unchanged = fs::read_to_string(&path).is_ok_and(|old| old == list);
        if unchanged && !again {
            return Ok(false);
        }
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.root.join(dir))?;
        }
        fs::write(self.root.join("status"), "")?;
        // Under its final name only when the indices are there: an interrupted update is repeated.
        let pending = self.root.join("pending.list");
        fs::write(&pending, &list)?;
        job.run(self.command_with(&pending, "apt-get").args([
            "update",
            "-o",
            "APT::Update::Error-Mode=any",
        ]))?;
        fs::rename(&pending, &path)?;
        *refreshed = true;
        Ok(true)
    }

    fn command(&self, program: &str) -> Command {
        self.command_with(&self.root.join("sources.list"), program)
    }

    fn command_with(&self, sources: &Path, program: &str) -> Command {
        let at = |option: &str, path: &Path| format!("{option}={}", path.display());
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args([
            "-o".to_owned(),
            at("Dir::Etc::sourcelist", sources),
            "-o".to_owned(),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "-o".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "-o".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "-o".to_owned(),
            at("Dir::State::lists", &self.root.join("lists")),
            "-o".to_owned(),
            at("Dir::State::status", &self.root.join("status")),
            "-o".to_owned(),
            at("Dir::Cache", &self.root.join("cache")),
            "-o".to_owned(),
            "APT::Architecture=arm64".to_owned(),
            "-o".to_owned(),
            "APT::Architectures=arm64".to_owned(),
            "-o".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "-o".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The cache need not be readable for apt's own user.
            "-o".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ]);
        command
    }
}

/// Which state of the indices a fetch is tried with.
enum Attempt {
    Indices,
    Refreshed,
}

fn is_newer(version: &str, other: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", version, "gt", other])
        .status()
        .is_ok_and(|status| status.success())
}

/// The only file with this extension in `dir`.
pub fn only_file(dir: &Path, extension: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => bail!(
            "{} .{extension} files in {}, one expected",
            found.len(),
            dir.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_told_from_security_and_third_parties() {
        let listing = "Packages|http://packages.example/apt/|Example|Example\n\
                       Packages|http://mirror.example/debian-security/|Debian|Debian-Security\n\
                       DEP-11|http://mirror.example/icons/|Debian|Debian\n\
                       Packages|http://mirror.example/debian/|Debian|Debian\n";
        assert_eq!(
            mirror_of_targets(listing).as_deref(),
            Some("http://mirror.example/debian/")
        );
        assert_eq!(
            mirror_of_targets("Packages|http://packages.example/apt/|Example|Example\n"),
            None
        );
    }

    #[test]
    fn a_fresh_image_without_indices_has_a_mirror_too() {
        let listing = "'http://packages.example/debian/dists/bookworm/stable/binary-amd64/Packages.xz' x 0 \n\
                       'http://mirror.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' x 0 \n\
                       'http://mirror.example/debian/dists/bookworm/InRelease' x 0 \n\
                       'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0 \n";
        assert_eq!(
            mirror_of_addresses(listing).as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(mirror_of_addresses(""), None);
    }
}
