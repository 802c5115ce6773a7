// SPDX-License-Identifier: MIT OR Apache-2.0
//! One progress bar for each running step on a terminal, plain lines elsewhere.
//!
//! A step's length is not known, but its log is: a build is as far as its log has grown towards the
//! number of lines that the last complete one had.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cache::Cache;

/// How often the logs are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often a running step is mentioned where there is no terminal.
const REMINDER: Duration = Duration::from_secs(60);

/// The step's log as it grows.
struct Watched {
    bar: ProgressBar,
    log: Option<File>,
    lines: u64,
    started: Instant,
    mentioned: Instant,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<BTreeMap<String, Watched>>,
    stopped: AtomicBool,
}

/// The bars of all running steps.
pub struct Progress {
    cache: Cache,
    bars: MultiProgress,
    interactive: bool,
    total: usize,
    begun: AtomicUsize,
    shared: Arc<Shared>,
    ticker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts showing progress for `total` steps.
    pub fn start(cache: &Cache, total: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let interactive = std::io::stderr().is_terminal();
        let ticker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while !shared.stopped.load(Ordering::Relaxed) {
                    thread::sleep(TICK);
                    let mut watched = shared.watched.lock().expect("no holder panics");
                    for (name, step) in watched.iter_mut() {
                        step.look(name, interactive);
                    }
                }
            })
        };
        Self {
            cache: cache.clone(),
            bars: MultiProgress::new(),
            interactive,
            total,
            begun: AtomicUsize::new(0),
            shared,
            ticker: Some(ticker),
        }
    }

    /// Shows that the step `name` begins.
    pub fn begin(&self, name: &str) -> StepBar<'_> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let expected = fs::read_to_string(self.lines_file(name))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let bar = match expected {
            Some(lines) => ProgressBar::new(lines)
                .with_style(style("{prefix:18} {bar:24} {elapsed:>5} {wide_msg:.dim}")),
            None => ProgressBar::new_spinner().with_style(style(
                "{prefix:18} {spinner:24} {elapsed:>5} {wide_msg:.dim}",
            )),
        };
        let bar = if self.interactive {
            self.bars.add(bar)
        } else {
            bar
        };
        bar.set_prefix(name.to_owned());
        if !self.interactive {
            eprintln!("[{number}/{}] {name}", self.total);
        }
        let log = self
            .cache
            .log(name)
            .ok()
            .and_then(|path| File::open(path).ok());
        let now = Instant::now();
        let watched = Watched {
            bar,
            log,
            lines: 0,
            started: now,
            mentioned: now,
        };
        self.shared
            .watched
            .lock()
            .expect("no holder panics")
            .insert(name.to_owned(), watched);
        StepBar {
            progress: self,
            name: name.to_owned(),
        }
    }

    /// Ends the display.
    pub fn finish(mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            // A panic of the ticker costs nothing but the display.
            let _ = ticker.join();
        }
    }

    fn lines_file(&self, name: &str) -> PathBuf {
        self.cache.root().join("log").join(format!("{name}.lines"))
    }
}

/// The bar of one step.
pub struct StepBar<'p> {
    progress: &'p Progress,
    name: String,
}

impl StepBar<'_> {
    /// Takes the bar away; a complete step leaves one line.
    pub fn end(self, complete: bool) {
        let removed = self
            .progress
            .shared
            .watched
            .lock()
            .expect("no holder panics")
            .remove(&self.name);
        let Some(mut step) = removed else { return };
        step.look(&self.name, false);
        step.bar.finish_and_clear();
        let verdict = if complete { "done" } else { "FAILED" };
        let line = format!(
            "{:18} {verdict} in {}",
            self.name,
            seconds(step.started.elapsed())
        );
        if self.progress.interactive {
            // The terminal may be gone; the step's result does not depend on it.
            let _ = self.progress.bars.println(line);
        } else {
            eprintln!("{line}");
        }
        if complete {
            // Only the next display's scale is lost when this fails.
            let _ = fs::write(self.progress.lines_file(&self.name), step.lines.to_string());
        }
    }
}

impl Watched {
    /// Reads what the log has grown by, and shows it.
    fn look(&mut self, name: &str, interactive: bool) {
        let mut grown = Vec::new();
        if let Some(log) = &mut self.log {
            // A log that can't be read shows no progress.
            let _ = log.read_to_end(&mut grown);
        }
        self.lines += grown.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let text = String::from_utf8_lossy(&grown);
        if let Some(line) = text.lines().rev().find(|line| !line.trim().is_empty()) {
            self.bar.set_message(line.trim().to_owned());
        }
        self.bar
            .set_position(self.lines.min(self.bar.length().unwrap_or(u64::MAX)));
        self.bar.tick();
        if !interactive && self.mentioned.elapsed() > REMINDER {
            self.mentioned = Instant::now();
            eprintln!("{name:18} running for {}", seconds(self.started.elapsed()));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}

/// A duration as people read it.
fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{:.1}s", duration.as_secs_f32())
    } else {
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}
