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
                if guard.running == 0 {
                    let gone = self.gone(&guard);
                    guard.waiting.extend(gone);
                } else {
                    guard = changed.wait(guard).expect("workers do not panic");
                }
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

    /// What waiting steps need that was complete when the work began and is not any more: another
    /// xtask, of another checkout, has pruned it from the cache that both use.
    fn gone(&self, state: &State) -> Vec<usize> {
        let needs = |&index: &usize| self.steps[index].needs.iter().copied();
        let gone: Vec<usize> = state
            .waiting
            .iter()
            .flat_map(needs)
            .filter(|need| !state.waiting.contains(need) && !self.is_made(*need, state))
            .collect();
        assert!(
            !gone.is_empty(),
            "a step only needs steps that were declared before it"
        );
        gone
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;

    fn plan(root: &Path) -> Plan {
        Plan::new(Cache::at(root).expect("a temporary cache"))
    }

    /// A step that counts its runs.
    fn counted(plan: &mut Plan, name: &str, runs: &Arc<AtomicUsize>) -> Step {
        let runs = Arc::clone(runs);
        plan.step(name)
            .runs(move |job| {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(fs::write(job.file("output"), "made")?)
            })
            .expect("no inputs to read")
    }

    #[test]
    fn what_is_complete_is_not_made_again_and_what_is_not_is() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let runs = Arc::new(AtomicUsize::new(0));
        for expected in [1, 1] {
            let mut plan = plan(root.path());
            let step = counted(&mut plan, "step", &runs);
            plan.execute(&[&step]).expect("it can be made");
            assert_eq!(runs.load(Ordering::Relaxed), expected);
        }
        let mut plan = plan(root.path());
        let step = counted(&mut plan, "step", &runs);
        // As a run that was killed half-way leaves it.
        fs::remove_file(step.file(cache::STAMP)).expect("it was complete");
        fs::write(step.file("half"), "").expect("a writable output");
        plan.execute(&[&step]).expect("it can be made");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert!(!step.file("half").exists());
    }

    #[test]
    fn a_failure_shows_the_end_of_its_log_and_stops_what_needs_it() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut plan = plan(root.path());
        let runs = Arc::new(AtomicUsize::new(0));
        let broken = plan
            .step("broken")
            .runs(|job| {
                job.run(std::process::Command::new("sh").args(["-c", "echo why not; exit 3"]))
            })
            .expect("no inputs to read");
        let counter = Arc::clone(&runs);
        let dependent = plan
            .step("dependent")
            .needs(&broken)
            .runs(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
            .expect("no inputs to read");
        let error = plan.execute(&[&dependent]).expect_err("a step fails");
        let error = error.to_string();
        assert!(error.contains("why not"), "{error}");
        assert!(error.contains("broken.log"), "{error}");
        assert_eq!(runs.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_need_that_another_checkout_prunes_meanwhile_is_made_again() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let runs = Arc::new(AtomicUsize::new(0));
        let mut plan = plan(root.path());
        let need = counted(&mut plan, "need", &runs);
        plan.execute(&[&need]).expect("it can be made");
        let pruned = need.dir().to_owned();
        let other = plan
            .step("other")
            .runs(move |_| Ok(fs::remove_dir_all(&pruned)?))
            .expect("no inputs to read");
        let last = plan
            .step("last")
            .needs(&need)
            .needs(&other)
            .runs(|_| Ok(()))
            .expect("no inputs to read");
        plan.execute(&[&last]).expect("it can be made");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert!(need.file("output").exists());
    }
}
