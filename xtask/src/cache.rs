// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where everything that is not source lives: one directory outside the checkout.
//!
//! ```text
//! out/<step>/<key>/   what a step made; complete once `.complete` is there
//! work/<step>/        a step's own scratch that survives runs (Cargo target directories)
//! checks/             what `.ci/run` compiles for this machine
//! log/<step>.log      what its commands printed, last run only
//! apt/                the private apt root
//! keys/               secrets made on this machine (the TA's factory key)
//! run/<id>/           one directory for each guest that was booted
//! locks/<name>        held while the step (or the apt root, or the system's packages) is worked on,
//!                     so that two xtasks share the cache and do not collide
//! ```

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{anyhow, Context, Result};
use rustix::fs::{flock, FlockOperation};

/// Name of the file that marks a step's output as complete.
pub const STAMP: &str = ".complete";

/// Outputs of a step that are kept, latest used first, when a new one has been made.
const KEPT_OUTPUTS: usize = 4;

/// An output that was used so lately is kept as well: another checkout may be building with it.
const IN_USE: Duration = Duration::from_secs(30 * 60);

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens (and creates) `$RINGFENCE_CACHE`, `$XDG_CACHE_HOME/ringfence` or `~/.cache/ringfence`.
    pub fn open() -> Result<Self> {
        let env = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = env("RINGFENCE_CACHE")
            .or_else(|| env("XDG_CACHE_HOME").map(|dir| dir.join("ringfence")))
            .or_else(|| env("HOME").map(|dir| dir.join(".cache/ringfence")))
            .ok_or_else(|| anyhow!("no cache directory: set RINGFENCE_CACHE or HOME"))?;
        Self::at(&root)
    }

    /// Opens (and creates) the cache in the directory `root`.
    pub fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("create the cache {}", root.display()))?;
        Ok(Self {
            root: root.canonicalize()?,
        })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the step `name` puts its output under `key`.
    pub fn out(&self, name: &str, key: &str) -> PathBuf {
        self.root.join("out").join(name).join(key)
    }

    /// Scratch of the step `name`, kept from run to run.
    pub fn work(&self, name: &str) -> Result<PathBuf> {
        self.subdirectory(&format!("work/{name}"))
    }

    /// Log file of the step `name`.
    pub fn log(&self, name: &str) -> Result<PathBuf> {
        Ok(self.subdirectory("log")?.join(format!("{name}.log")))
    }

    /// A directory below the root, created when absent.
    pub fn subdirectory(&self, path: &str) -> Result<PathBuf> {
        let dir = self.root.join(path);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// Removes outputs, scratch and logs; with `all` sources, tools and keys too.
    ///
    /// The fetched and unpacked sources and the Rust tools take long to make and depend on nothing
    /// in the checkout, so they stay unless everything goes.
    pub fn clean(&self, all: bool) -> Result<()> {
        let held = fs::read_dir(self.subdirectory("locks")?)?
            .map(|entry| self.lock(&entry?.file_name().to_string_lossy()))
            .collect::<Result<Vec<Lock>>>()?;
        let doomed: Vec<PathBuf> = if all {
            vec![self.root.clone()]
        } else {
            let outputs = fs::read_dir(self.root.join("out")).into_iter().flatten();
            let made = outputs
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| !is_fetched(path));
            made.chain(["work", "checks", "log", "run"].map(|name| self.root.join(name)))
                .collect()
        };
        for path in doomed.into_iter().filter(|path| path.exists()) {
            println!("removing {}", path.display());
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        drop(held);
        Ok(())
    }

    /// Takes the lock `name`, waiting for another xtask that holds it.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.subdirectory("locks")?.join(name);
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            eprintln!(
                "{name:18} waiting for another xtask, process {}",
                holder.trim()
            );
            flock(&file, FlockOperation::LockExclusive)?;
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }

    /// Outputs of the step `name`, complete or not, in the order of their last use.
    pub fn outputs(&self, name: &str) -> Vec<(SystemTime, PathBuf)> {
        let entries = fs::read_dir(self.root.join("out").join(name));
        let paths = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        let last_use =
            |path: &Path| fs::metadata(path.join(STAMP)).and_then(|stamp| stamp.modified());
        let mut outputs: Vec<_> = paths
            .map(|path| (last_use(&path).unwrap_or(SystemTime::UNIX_EPOCH), path))
            .collect();
        outputs.sort();
        outputs
    }

    /// Removes the outputs of `name` beyond the few that were used last.
    pub fn prune(&self, name: &str) -> Result<()> {
        let mut outputs = self.outputs(name);
        let surplus = outputs.len().saturating_sub(KEPT_OUTPUTS);
        outputs.truncate(surplus);
        // A time in the future is one of now, by a clock that was set back.
        outputs.retain(|(used, _)| used.elapsed().is_ok_and(|age| age > IN_USE));
        for (_, path) in outputs {
            fs::remove_dir_all(&path).with_context(|| format!("prune {}", path.display()))?;
        }
        Ok(())
    }
}

/// Whether a step's outputs come from the network alone.
fn is_fetched(outputs: &Path) -> bool {
    let name = outputs.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with("-upstream")
        || ["linux-source", "rust-src", "bindgen", "userland", "clip"].contains(&&*name)
}

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Whether the output directory `dir` is complete; notes its use when it is.
pub fn is_complete(dir: &Path) -> bool {
    match File::options().append(true).open(dir.join(STAMP)) {
        Ok(stamp) => {
            // A read-only cache still works: the time is for pruning only.
            let _ = stamp.set_modified(SystemTime::now());
            true
        }
        Err(_) => false,
    }
}

/// Marks the output directory `dir` as complete.
pub fn mark_complete(dir: &Path) -> Result<()> {
    let stamp = File::create(dir.join(STAMP))?;
    stamp.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pruned_is_neither_new_nor_in_use() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::at(root.path()).expect("a temporary cache");
        let now = SystemTime::now();
        for number in 0..=KEPT_OUTPUTS + 1 {
            let output = cache.out("step", &number.to_string());
            fs::create_dir_all(&output).expect("a writable cache");
            mark_complete(&output).expect("a writable cache");
            // The first was used long ago, and so were all but the last.
            let age = if number <= 1 { IN_USE * 2 } else { IN_USE / 2 };
            File::options()
                .append(true)
                .open(output.join(STAMP))
                .and_then(|stamp| stamp.set_modified(now - age))
                .expect("a writable stamp");
        }
        let left = |number: usize| cache.out("step", &number.to_string()).exists();
        cache.prune("step").expect("a writable cache");
        assert!(!left(0) && !left(1));
        assert!((2..=KEPT_OUTPUTS + 1).all(left));

        let surplus = cache.out("step", "one more");
        fs::create_dir_all(&surplus).expect("a writable cache");
        mark_complete(&surplus).expect("a writable cache");
        cache.prune("step").expect("a writable cache");
        assert!(left(2), "it was used a moment ago");
    }
}
