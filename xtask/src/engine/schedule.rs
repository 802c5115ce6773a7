// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the missing steps of a plan, several at a time, each after those that it needs.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Condvar, Mutex};
use std::thread;

use anyhow::{anyhow, Context, Result};

use super::job::{Children, Job};
use super::progress::Progress;
use super::{Plan, Planned, Step};
use crate::cache;

/// What the workers share.
#[derive(Default)]
struct State {
    waiting: BTreeSet<usize>,
    running: usize,
    done: BTreeSet<usize>,
    failures: Vec<String>,
}

impl Plan {
    /// Makes the outputs of `targets`, and of whatever they need, complete.
    pub fn execute(&self, targets: &[&Step]) -> Result<()> {
        let waiting = self.missing(targets);
        if waiting.is_empty() {
            return Ok(());
        }
        let total = waiting.len();
        let state = Mutex::new(State {
            waiting,
            ..State::default()
        });
        let changed = Condvar::new();
        let children = Children::default();
        let progress = Progress::start(&self.cache, total);
        let workers = thread::available_parallelism()
            .map_or(2, usize::from)
            .clamp(2, 4);
        thread::scope(|scope| {
            for _ in 0..workers.min(total) {
                scope.spawn(|| self.work(&state, &changed, &children, &progress));
            }
        });
        progress.finish();
        let state = state.into_inner().expect("workers do not panic");
        if state.failures.is_empty() {
            Ok(())
        } else {
            Err(anyhow!(state.failures.join("\n\n")))
        }
    }

    /// Steps whose output is missing, among `targets` and what incomplete ones need.
    fn missing(&self, targets: &[&Step]) -> BTreeSet<usize> {
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut queue: Vec<(usize, bool)> = targets.iter().map(|step| (step.index, true)).collect();
        while let Some((index, wanted)) = queue.pop() {
            if !seen.insert((index, wanted)) {
                continue;
            }
            let step = &self.steps[index];
            // Asked for complete steps' needs too: it notes their use, which keeps them from pruning.
            let incomplete = !cache::is_complete(&step.dir) && wanted;
            if incomplete {
                missing.insert(index);
            }
            queue.extend(step.needs.iter().map(|&need| (need, incomplete)));
        }
        missing
    }

    /// One worker: takes steps that are ready until none is left or one failed.
    fn work(
        &self,
        state: &Mutex<State>,
        changed: &Condvar,
        children: &Children,
        progress: &Progress,
    ) {
        let mut guard = state.lock().expect("workers do not panic");
        loop {
            let over = guard.waiting.is_empty() || !guard.failures.is_empty();
            if over {
                changed.notify_all();
                return;
            }
            let ready = guard.waiting.iter().copied().find(|&index| {
                self.steps[index]
                    .needs
                    .iter()
                    .all(|&need| self.is_made(need, &guard))
            });
            let Some(index) = ready else {
                assert!(
                    guard.running > 0,
                    "a step only needs steps that were declared before it"
                );
                guard = changed.wait(guard).expect("workers do not panic");
                continue;
            };
            guard.waiting.remove(&index);
            guard.running += 1;
            drop(guard);
            let step = &self.steps[index];
            let outcome = self.run_step(step, children, progress);
            guard = state.lock().expect("workers do not panic");
            guard.running -= 1;
            match outcome {
                Ok(()) => {
                    guard.done.insert(index);
                }
                Err(explained) => {
                    // Whoever was stopped because of the first failure has nothing to add to it.
                    if guard.failures.is_empty() {
                        guard.failures.push(explained);
                    }
                    children.cancel();
                }
            }
            changed.notify_all();
        }
    }

    fn is_made(&self, index: usize, state: &State) -> bool {
        state.done.contains(&index)
            || (!state.waiting.contains(&index) && cache::is_complete(&self.steps[index].dir))
    }

    fn run_step(
        &self,
        step: &Planned,
        children: &Children,
        progress: &Progress,
    ) -> Result<(), String> {
        let unexplained = |error: anyhow::Error| format!("{}: {error:#}", step.name);
        let _lock = self.cache.lock(&step.name).map_err(unexplained)?;
        if cache::is_complete(&step.dir) {
            // Another xtask has made it meanwhile.
            return Ok(());
        }
        let job = self.begin(step, children).map_err(unexplained)?;
        let bar = progress.begin(&step.name);
        let outcome = (step.action)(&job)
            .and_then(|()| cache::mark_complete(&step.dir))
            .and_then(|()| self.cache.prune(&step.name));
        bar.end(outcome.is_ok());
        outcome.map_err(|error| job.explain(&error))
    }

    fn begin<'r>(&'r self, step: &'r Planned, children: &'r Children) -> Result<Job<'r>> {
        if !step.resumes && step.dir.exists() {
            fs::remove_dir_all(&step.dir)
                .with_context(|| format!("clear {}", step.dir.display()))?;
        }
        fs::create_dir_all(&step.dir).with_context(|| format!("create {}", step.dir.display()))?;
        Job::start(&step.name, &step.dir, &self.cache, children)
    }
}
