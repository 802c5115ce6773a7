// SPDX-License-Identifier: MIT OR Apache-2.0
//! The building machine: Debian packages that must be installed, and QEMU of a usable version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{anyhow, bail, Context, Result};

use crate::apt;
use crate::cache::Cache;
use crate::versions::{numbers, Versions};

/// Program that boots the guest.
pub const QEMU: &str = "qemu-system-aarch64";

/// Packages besides LLVM and QEMU, in Debian's names.
const PACKAGES: [&str; 25] = [
    "bc",
    "bison",
    "ca-certificates",
    "debian-archive-keyring",
    "device-tree-compiler",
    "dpkg-dev",
    "ffmpeg",
    "flex",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "kmod",
    "libc6-dev",
    "libc6-dev-arm64-cross",
    "libelf-dev",
    "libssl-dev",
    "make",
    "patch",
    "python3",
    "python3-cryptography",
    "python3-libfdt",
    "python3-pip",
    "python3-pyelftools",
    "rsync",
    "valgrind",
    "xz-utils",
];

/// The tools of this machine, as the steps use them.
#[derive(Debug, Clone)]
pub struct Host {
    /// Major version of the LLVM tools.
    pub llvm: String,
}

impl Host {
    /// The `bin` directory of the LLVM tools.
    pub fn llvm_bin(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/llvm-{}/bin", self.llvm))
    }

    /// The `lib` directory of the LLVM tools, with libclang.
    pub fn llvm_lib(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/llvm-{}/lib", self.llvm))
    }
}

/// What this machine lacks.
#[derive(Debug)]
pub struct Missing {
    /// Packages that any suite of the system has.
    pub packages: Vec<String>,
    /// The QEMU found, when it is too old or absent.
    pub qemu: Option<String>,
    llvm: String,
}

impl Missing {
    /// Looks at the machine.
    pub fn find(versions: &Versions) -> Result<Self> {
        let llvm = choose_llvm(&versions.host.llvm);
        let wanted = PACKAGES
            .iter()
            .map(|&name| name.to_owned())
            .chain(llvm_packages(&llvm));
        let wanted: Vec<String> = wanted.collect();
        let installed = installed(&wanted)?;
        let packages = wanted
            .into_iter()
            .filter(|name| !installed.contains(name))
            .collect();
        let qemu = match qemu_version() {
            Some(found) if numbers(&found) >= numbers(&versions.host.qemu) => None,
            Some(found) => Some(found),
            None => Some("none".to_owned()),
        };
        Ok(Self {
            packages,
            qemu,
            llvm,
        })
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.qemu.is_none()
    }
}

/// Installs what is missing, saying so, and returns the machine's tools.
pub fn ensure(cache: &Cache, versions: &Versions) -> Result<Host> {
    let missing = Missing::find(versions)?;
    if !missing.is_empty() {
        let _lock = cache.lock("host-packages")?;
        install(cache, versions, &missing)?;
        let left = Missing::find(versions)?;
        if !left.is_empty() {
            bail!(
                "still missing after the installation: {} {}",
                left.packages.join(" "),
                left.qemu.unwrap_or_default()
            );
        }
    }
    Ok(Host { llvm: missing.llvm })
}

fn install(cache: &Cache, versions: &Versions, missing: &Missing) -> Result<()> {
    if !missing.packages.is_empty() {
        eprintln!("installing Debian packages: {}", missing.packages.join(" "));
        let names = missing.packages.iter().map(String::as_str);
        let arguments: Vec<&str> = ["install"].into_iter().chain(names).collect();
        // The lists are absent on a fresh image and stale on an old one; most machines need neither.
        let listed = missing
            .packages
            .iter()
            .all(|name| candidate(name).is_some());
        if !listed || apt_get(cache, &arguments).is_err() {
            apt_get(cache, &["update"])?;
            apt_get(cache, &arguments)?;
        }
    }
    if let Some(found) = &missing.qemu {
        eprintln!(
            "installing qemu-system-arm: {found} is here, {} or later is needed",
            versions.host.qemu
        );
        if candidate("qemu-system-arm")
            .is_some_and(|version| numbers(&version) >= numbers(&versions.host.qemu))
        {
            return apt_get(cache, &["install", "qemu-system-arm"]);
        }
        install_backport(cache, versions)?;
    }
    Ok(())
}

/// Installs QEMU from the backports of the system's suite, whose sources list stays as it is.
fn install_backport(cache: &Cache, versions: &Versions) -> Result<()> {
    let suite = format!("{}-{}", codename()?, versions.archive.backports);
    let dir = cache.subdirectory("apt/backports")?;
    fs::create_dir_all(dir.join("lists/partial"))?;
    let list = dir.join("sources.list");
    fs::write(&list, apt::source_line("deb", "", &suite)?)?;
    // Only the main list is replaced: the system's sources.list.d still applies, and dependencies
    // come from there. A machine with everything in sources.list needs that one as well.
    let system = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    fs::write(&list, format!("{}{system}", fs::read_to_string(&list)?))?;
    let sources = format!("Dir::Etc::sourcelist={}", list.display());
    let lists = format!("Dir::State::lists={}", dir.join("lists").display());
    let options = ["-o", &sources, "-o", &lists];
    apt_get(cache, &[&options[..], &["update"]].concat())?;
    apt_get(
        cache,
        &[
            &options[..],
            &["install", "--target-release", &suite, "qemu-system-arm"],
        ]
        .concat(),
    )
}

/// Runs apt-get on the system, as root or through sudo, asking nothing; what it says goes to a log.
fn apt_get(cache: &Cache, arguments: &[&str]) -> Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else {
        let mut command = Command::new("sudo");
        command.args(["--non-interactive", "env"]);
        command
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
        .args(["--quiet", "--yes", "--no-install-recommends"])
        .args(arguments);
    let path = cache.log("host-packages")?;
    let log = fs::File::options().create(true).append(true).open(&path)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status();
    let status = status.context("run apt-get")?;
    if !status.success() {
        let call = arguments.join(" ");
        bail!(
            "apt-get failed ({status}); to see why: less {}\nby hand, as root: apt-get {call}",
            path.display()
        );
    }
    Ok(())
}

/// Names of those of `wanted` that are installed.
fn installed(wanted: &[String]) -> Result<BTreeSet<String>> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\\n"])
        .args(wanted);
    // It fails when it does not know a package at all, and lists the others.
    let output = query
        .output()
        .context("start dpkg-query: this needs Debian")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect())
}

/// The first known-good LLVM that is installed, else the first that can be, else the first.
fn choose_llvm(known_good: &[String]) -> String {
    let first =
        |test: &dyn Fn(&String) -> bool| known_good.iter().find(|major| test(major)).cloned();
    first(&|major| Path::new(&format!("/usr/lib/llvm-{major}/bin/clang")).exists())
        .or_else(|| first(&|major| candidate(&format!("clang-{major}")).is_some()))
        .or_else(|| known_good.first().cloned())
        .unwrap_or_default()
}

fn llvm_packages(major: &str) -> impl Iterator<Item = String> + '_ {
    ["clang", "lld", "llvm"]
        .map(|tool| format!("{tool}-{major}"))
        .into_iter()
        .chain([format!("libclang-{major}-dev")])
}

/// The version of `package` that the system's apt would install.
fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache")
        .env("LC_ALL", "C")
        .args(["policy", package])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let upstream = version
        .split_once(':')
        .map_or(version, |(_, upstream)| upstream);
    (upstream != "(none)").then(|| upstream.to_owned())
}

/// Version of the installed QEMU.
pub fn qemu_version() -> Option<String> {
    let output = Command::new(QEMU).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once("version ").map(|(_, rest)| {
        rest.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let line = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| anyhow!("this Debian has no codename"))
}
