// SPDX-License-Identifier: MIT OR Apache-2.0
//! What jobs that run side by side print, one after the other.
//!
//! The first job that has not ended prints as it goes; what the others print is kept until their turn
//! comes. What a job has printed can be read again when all is over.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};

use crate::vm::{self, Sink, Stream};

/// Output of several jobs.
pub struct Transcript(Mutex<State>);

struct State {
    /// The job that prints as it goes.
    current: usize,
    jobs: Vec<Kept>,
    print: Sink,
}

/// What a job has printed.
#[derive(Default)]
struct Kept {
    pieces: Vec<(Stream, Vec<u8>)>,
    ended: bool,
}

impl Transcript {
    /// A transcript of `jobs` jobs on this process's own streams.
    pub fn new(jobs: usize) -> Arc<Self> {
        Self::onto(jobs, Arc::new(vm::pass_on))
    }

    fn onto(jobs: usize, print: Sink) -> Arc<Self> {
        let mut kept = Vec::new();
        kept.resize_with(jobs, Kept::default);
        Arc::new(Self(Mutex::new(State {
            current: 0,
            jobs: kept,
            print,
        })))
    }

    /// Where the job of this number prints to, until this is dropped.
    pub fn page(self: &Arc<Self>, job: usize) -> Page {
        Page {
            transcript: Arc::clone(self),
            job,
        }
    }

    fn write(&self, job: usize, stream: Stream, bytes: &[u8]) {
        let mut state = self.0.lock().expect("no holder panics");
        if job == state.current {
            (state.print)(stream, bytes);
        }
        state.jobs[job].pieces.push((stream, bytes.to_owned()));
    }

    /// All that the job of this number has printed.
    pub fn text(&self, job: usize) -> String {
        let state = self.0.lock().expect("no holder panics");
        let pieces = state.jobs[job].pieces.iter();
        let bytes: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes.clone()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn end(&self, job: usize) {
        let mut guard = self.0.lock().expect("no holder panics");
        let state = &mut *guard;
        state.jobs[job].ended = true;
        while state.jobs.get(state.current).is_some_and(|job| job.ended) {
            state.current += 1;
            if let Some(next) = state.jobs.get(state.current) {
                for (stream, bytes) in &next.pieces {
                    (state.print)(*stream, bytes);
                }
            }
        }
    }
}

/// One job's part of the transcript.
pub struct Page {
    transcript: Arc<Transcript>,
    job: usize,
}

impl Page {
    /// Prints a line.
    pub fn line(&self, text: impl AsRef<str>) {
        let line = format!("{}\n", text.as_ref());
        self.transcript
            .write(self.job, Stream::Output, line.as_bytes());
    }

    /// A sink that prints here, and keeps what came on standard output.
    pub fn recorder(&self) -> (Sink, Arc<Mutex<Vec<u8>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&kept);
        let (transcript, job) = (Arc::clone(&self.transcript), self.job);
        let sink: Sink = Arc::new(move |stream, bytes: &[u8]| {
            if stream == Stream::Output {
                keep.lock()
                    .expect("no holder panics")
                    .extend_from_slice(bytes);
            }
            transcript.write(job, stream, bytes);
        });
        (sink, kept)
    }

    /// Runs a command that prints here; returns how it ended, and its standard output.
    pub fn run(&self, command: &mut Command) -> Result<(ExitStatus, String)> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        let (sink, kept) = self.recorder();
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            if let Some(output) = output {
                scope.spawn(|| copy(output, Stream::Output, &sink));
            }
            if let Some(errors) = errors {
                scope.spawn(|| copy(errors, Stream::Error, &sink));
            }
        });
        let status = child.wait()?;
        let printed = kept.lock().expect("no holder panics");
        Ok((status, String::from_utf8_lossy(&printed).into_owned()))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.transcript.end(self.job);
    }
}

/// Passes on what a child prints until it closes the stream.
fn copy(mut from: impl std::io::Read, stream: Stream, sink: &Sink) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        sink(stream, &buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_print_one_after_the_other() {
        let printed = Arc::new(Mutex::new(String::new()));
        let keep = Arc::clone(&printed);
        let transcript = Transcript::onto(
            3,
            Arc::new(move |_, bytes: &[u8]| {
                keep.lock()
                    .expect("no holder panics")
                    .push_str(&String::from_utf8_lossy(bytes));
            }),
        );
        let shown = || printed.lock().expect("no holder panics").clone();
        let pages: Vec<Page> = (0..3).map(|job| transcript.page(job)).collect();
        let [first, second, third] = pages.try_into().ok().expect("three");
        second.line("b1");
        first.line("a1");
        assert_eq!(shown(), "a1\n");
        third.line("c1");
        drop(third);
        first.line("a2");
        drop(first);
        assert_eq!(shown(), "a1\na2\nb1\n");
        second.line("b2");
        drop(second);
        assert_eq!(shown(), "a1\na2\nb1\nb2\nc1\n");
        assert_eq!(transcript.text(1), "b1\nb2\n");
    }

    #[test]
    fn a_command_prints_on_its_page() {
        let transcript = Transcript::onto(1, Arc::new(|_, _: &[u8]| {}));
        let page = transcript.page(0);
        let (status, output) = page
            .run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .expect("there is a shell");
        assert_eq!((status.code(), output.as_str()), (Some(3), "out\n"));
    }
}
