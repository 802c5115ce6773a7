// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask doctor`: what this machine lacks, and the command that brings it.

use anyhow::Result;
use rustix::fs::statvfs;

use crate::apt::{self, MIRROR_VARIABLE};
use crate::cache::Cache;
use crate::host::Missing;
use crate::rust::Toolchain;
use crate::versions::{numbers, Versions};

/// Space that a build from nothing takes, with the debug kernel, in bytes.
const SPACE: u64 = 8 << 30;

/// The oldest usable Rust: the kernel's and the workspace's own bound.
const RUST: &str = "1.85";

/// One line of the diagnosis: what was looked at, what was found, and the remedy if it is not well.
struct Finding {
    what: &'static str,
    found: String,
    remedy: Option<String>,
}

/// Prints the diagnosis; returns whether everything is there or can be brought by xtask itself.
pub fn examine(cache: &Cache) -> Result<bool> {
    let versions = Versions::load()?;
    let mut well = true;
    for finding in [
        packages(&versions)?,
        qemu(&versions)?,
        rust(),
        archive(),
        space(cache)?,
    ] {
        let mark = if finding.remedy.is_none() {
            "ok"
        } else {
            "missing"
        };
        println!("{mark:8} {:16} {}", finding.what, finding.found);
        if let Some(remedy) = finding.remedy {
            well = false;
            println!("{:8} {:16} -> {remedy}", "", "");
        }
    }
    Ok(well)
}

fn packages(versions: &Versions) -> Result<Finding> {
    let missing = Missing::find(versions)?.packages;
    let list = missing.join(" ");
    Ok(Finding {
        what: "Debian packages",
        found: if missing.is_empty() {
            "all installed".to_owned()
        } else {
            list.clone()
        },
        remedy: (!missing.is_empty()).then(|| {
            format!("apt-get install --no-install-recommends {list}   (any build does it)")
        }),
    })
}

fn qemu(versions: &Versions) -> Result<Finding> {
    let missing = Missing::find(versions)?.qemu;
    let wanted = &versions.host.qemu;
    Ok(Finding {
        what: "QEMU",
        found: missing.clone().or_else(crate::host::qemu_version).unwrap_or_default(),
        remedy: missing.map(|_| {
            format!("apt-get install qemu-system-arm, {wanted} or later, from backports if need be   (any build does it)")
        }),
    })
}

fn rust() -> Finding {
    match Toolchain::detect() {
        Ok(toolchain) => {
            let release = toolchain.release();
            let source = if toolchain.has_source() {
                "installed"
            } else {
                "from Debian's rust-src"
            };
            Finding {
                what: "Rust",
                found: format!("{release}, library source {source}"),
                remedy: (numbers(release) < numbers(RUST))
                    .then(|| format!("rustup update stable   ({RUST} or later)")),
            }
        }
        Err(error) => Finding {
            what: "Rust",
            found: format!("{error:#}"),
            remedy: Some("install Rust from https://rustup.rs".to_owned()),
        },
    }
}

fn archive() -> Finding {
    let (found, remedy) = match apt::mirror() {
        Ok(mirror) => (mirror, None),
        Err(error) => (
            format!("{error:#}"),
            Some(format!("{MIRROR_VARIABLE}=<address of a Debian archive>")),
        ),
    };
    Finding {
        what: "Debian archive",
        found,
        remedy,
    }
}

fn space(cache: &Cache) -> Result<Finding> {
    let root = cache.root();
    let file_system = statvfs(root)?;
    let free = file_system.f_bavail * file_system.f_frsize;
    Ok(Finding {
        what: "cache",
        found: format!("{}, {} GiB free", root.display(), free >> 30),
        remedy: (free < SPACE && !root.join("out").exists())
            .then(|| format!("RINGFENCE_CACHE=<directory with {} GiB free>", SPACE >> 30)),
    })
}
