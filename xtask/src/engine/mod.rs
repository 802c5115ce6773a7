// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps: each makes one output directory from declared inputs, and is skipped when nothing changed.
//!
//! A step's key is the hash of its inputs: content of files, parameters, and the keys of the steps
//! that it needs. All keys are known before anything runs, so a plan is laid out first (the artefact
//! modules do that, handing each other typed paths) and then only what is missing is executed, in
//! parallel where the graph allows.

mod job;
mod progress;
mod schedule;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
pub use job::Job;

/// What a step does when it runs.
type Action = Box<dyn Fn(&Job) -> Result<()> + Send + Sync>;

/// A step of a plan, as others see it: where its output is, or will be.
#[derive(Debug, Clone)]
pub struct Step {
    index: usize,
    key: String,
    dir: PathBuf,
}

impl Step {
    /// The step's output directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file of its output.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }
}

/// A step as the plan holds it.
struct Planned {
    name: String,
    dir: PathBuf,
    needs: Vec<usize>,
    resumes: bool,
    action: Action,
}

/// All steps that may be needed, laid out but not run.
pub struct Plan {
    cache: Cache,
    steps: Vec<Planned>,
}

impl Plan {
    /// An empty plan over `cache`.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            steps: Vec::new(),
        }
    }

    /// The cache that the plan's outputs are in.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Starts the declaration of the step `name`.
    pub fn step(&mut self, name: &str) -> Declaration<'_> {
        let mut digest = Sha256::new();
        feed(&mut digest, "step", name.as_bytes());
        Declaration {
            plan: self,
            name: name.to_owned(),
            digest,
            needs: Vec::new(),
            resumes: false,
            failure: None,
        }
    }
}

/// The declaration of one step: its inputs, then what it does.
pub struct Declaration<'p> {
    plan: &'p mut Plan,
    name: String,
    digest: Sha256,
    needs: Vec<usize>,
    resumes: bool,
    failure: Option<anyhow::Error>,
}

impl Declaration<'_> {
    /// A parameter that the output depends on.
    pub fn param(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        feed(&mut self.digest, name, value.as_ref());
        self
    }

    /// A file, or every file below a directory, that the output depends on.
    pub fn input(mut self, path: &Path) -> Self {
        if let Err(error) = hash_tree(&mut self.digest, path) {
            self.failure.get_or_insert(error.context(format!(
                "{}: read the input {}",
                self.name,
                path.display()
            )));
        }
        self
    }

    /// Another step whose output this one uses.
    pub fn needs(mut self, step: &Step) -> Self {
        feed(&mut self.digest, "needs", step.key.as_bytes());
        self.needs.push(step.index);
        self
    }

    /// An unfinished output is taken up where it was left, instead of started afresh.
    pub fn resumes(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// Ends the declaration with what the step does.
    pub fn runs(self, action: impl Fn(&Job) -> Result<()> + Send + Sync + 'static) -> Result<Step> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let key: String = self
            .digest
            .finalize()
            .iter()
            .take(10)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let dir = self.plan.cache.out(&self.name, &key);
        let step = Step {
            index: self.plan.steps.len(),
            key,
            dir: dir.clone(),
        };
        self.plan.steps.push(Planned {
            name: self.name,
            dir,
            needs: self.needs,
            resumes: self.resumes,
            action: Box::new(action),
        });
        Ok(step)
    }
}

/// Adds a named value to a digest, unambiguously.
fn feed(digest: &mut Sha256, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
}

/// Adds names and contents of the files below `path`, in name order.
///
/// Build leftovers (`target`, hidden files) are no inputs.
fn hash_tree(digest: &mut Sha256, path: &Path) -> Result<()> {
    let is_source = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name.starts_with('.') || name == "target")
    };
    for entry in walkdir::WalkDir::new(path)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_source)
    {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        let relative = entry
            .path()
            .strip_prefix(path)?
            .to_string_lossy()
            .into_owned();
        let content =
            std::fs::read(entry.path()).with_context(|| entry.path().display().to_string())?;
        feed(digest, &relative, &content);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(param: &str) -> String {
        let mut digest = Sha256::new();
        feed(&mut digest, "name", param.as_bytes());
        format!("{:?}", digest.finalize())
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let mut split = Sha256::new();
        feed(&mut split, "a", b"bc");
        let mut joined = Sha256::new();
        feed(&mut joined, "ab", b"c");
        assert_ne!(split.finalize(), joined.finalize());
        assert_ne!(key_of("x"), key_of("y"));
    }
}
