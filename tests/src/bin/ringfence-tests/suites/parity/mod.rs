// SPDX-License-Identifier: MIT OR Apache-2.0

//! The same program on our heaps and on the kernel's own, in one boot.
//!
//! A program notes what it sees of a heap and its buffers: errnos, flags, contents.
//! What it sees of ours must be what it sees of theirs, note by note, but for the
//! [`differences`] that the README names.

mod allocation;
mod buffer;
mod mapping;
mod sharing;

use std::fmt::Display;

use ringfence_tests::differences::{self, Kind};
use ringfence_tests::guest::module;
use rustix::io::Errno;

use super::Test;

pub const TESTS: &[Test] = &[
    ("allocation_is_as_upstream", allocation_is_the_same),
    ("buffers_are_as_upstream", buffers_are_the_same),
    ("mappings_are_as_upstream", mappings_are_the_same),
    ("sharing_is_as_upstream", sharing_is_the_same),
];

/// A heap of ours, and the kernel's own on the same memory.
struct Pair {
    kind: Kind,
    ours: &'static str,
    theirs: &'static str,
}

const PAIRS: [Pair; 3] = [
    Pair {
        kind: Kind::System,
        ours: "ringfence-system",
        theirs: "system",
    },
    Pair {
        kind: Kind::Cma,
        ours: "ringfence-default_cma_region",
        theirs: "default_cma_region",
    },
    Pair {
        kind: Kind::Cma,
        ours: "ringfence-isp@94000000",
        theirs: "isp@94000000",
    },
];

/// A heap that is looked at.
struct Subject {
    kind: Kind,
    name: &'static str,
    /// Whether it is the kernel's own.
    upstream: bool,
}

/// What was seen, in order: of what, and what.
#[derive(Default)]
struct Notes(Vec<(String, String)>);

impl Notes {
    /// Notes what was seen of something.
    fn note(&mut self, what: impl Into<String>, seen: impl Display) {
        self.0.push((what.into(), seen.to_string()));
    }

    /// Notes how a call ended.
    fn call<T>(&mut self, what: impl Into<String>, outcome: Result<T, Errno>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.note(what, "ok");
                Some(value)
            }
            Err(errno) => {
                self.note(what, name(errno));
                None
            }
        }
    }
}

/// The name of an errno.
fn name(errno: Errno) -> String {
    let name = match errno {
        Errno::ACCESS => "EACCES",
        Errno::BADF => "EBADF",
        Errno::FAULT => "EFAULT",
        Errno::INVAL => "EINVAL",
        Errno::NOMEM => "ENOMEM",
        Errno::NOTTY => "ENOTTY",
        Errno::OVERFLOW => "EOVERFLOW",
        Errno::PERM => "EPERM",
        _ => return format!("errno {}", errno.raw_os_error()),
    };
    name.to_owned()
}

/// Looks at both heaps of every pair, and compares.
fn compare(look: fn(&Subject, &mut Notes) -> anyhow::Result<()>) -> anyhow::Result<()> {
    module::load("vgem")?;
    let mut wrong = Vec::new();
    let mut seen = 0;
    for pair in &PAIRS {
        let notes = |name, upstream| {
            let mut notes = Notes::default();
            let subject = Subject {
                kind: pair.kind,
                name,
                upstream,
            };
            look(&subject, &mut notes).map_err(|error| error.context(name))?;
            anyhow::Ok(notes.0)
        };
        let (ours, theirs) = (notes(pair.ours, false)?, notes(pair.theirs, true)?);
        anyhow::ensure!(
            ours.len() == theirs.len(),
            "{}: {} notes, and {} of {}",
            pair.ours,
            ours.len(),
            theirs.len(),
            pair.theirs
        );
        seen += ours.len();
        for ((what, ours), (what_too, theirs)) in ours.iter().zip(&theirs) {
            anyhow::ensure!(what == what_too, "{what} was compared with {what_too}");
            let known = differences::find(pair.kind, what);
            let is_right = match known {
                Some(known) => ours == known.ours && theirs == known.theirs,
                None => ours == theirs,
            };
            if !is_right {
                wrong.push(format!(
                    "{}: {what}: {ours}, and theirs: {theirs}",
                    pair.ours
                ));
            }
        }
    }
    anyhow::ensure!(
        wrong.is_empty(),
        "{} of {seen} differ:\n{}",
        wrong.len(),
        wrong
            .iter()
            .take(40)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
    println!("{seen} outcomes compared");
    Ok(())
}

fn allocation_is_the_same() -> anyhow::Result<()> {
    compare(allocation::look)
}

fn buffers_are_the_same() -> anyhow::Result<()> {
    compare(buffer::look)
}

fn mappings_are_the_same() -> anyhow::Result<()> {
    compare(mapping::look)
}

fn sharing_is_the_same() -> anyhow::Result<()> {
    compare(sharing::look)
}
