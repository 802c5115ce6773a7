// SPDX-License-Identifier: MIT OR Apache-2.0
//! Searches the guest's memory from outside, where no protection hides anything.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use anyhow::{anyhow, Context, Result};
use ringfence_tests::host_port::Reply;
use rustix::fs::{seek, SeekFrom};
use rustix::io::Errno;

use super::machine::MEMORY_START;

/// Bytes of a needle.
pub const NEEDLE_SIZE: usize = 16;

/// Bytes that are looked at together.
const WINDOW: usize = 4 << 20;

/// A named set of byte strings to look for.
#[derive(Debug, Clone)]
pub struct Needles {
    name: String,
    automaton: Arc<AhoCorasick>,
}

impl Needles {
    /// The set `name`.
    pub fn new(name: &str, patterns: &[[u8; NEEDLE_SIZE]]) -> Result<Self> {
        let automaton = AhoCorasick::new(patterns).context("prepare the search")?;
        Ok(Self {
            name: name.to_owned(),
            automaton: Arc::new(automaton),
        })
    }
}

/// Looks for the set `name` among `known`: see [`search`].
pub fn answer(
    memory: &OwnedFd,
    known: &[Needles],
    name: &str,
    expect_in: &[(u64, u64)],
) -> Result<Reply> {
    let set = known
        .iter()
        .find(|set| set.name == name)
        .ok_or_else(|| anyhow!("no needles named {name}"))?;
    search(&File::from(memory.try_clone()?), &set.automaton, expect_in)
}

/// Counts matches that lie wholly in one of the ranges `expect_in` (start, size), and all others.
fn search(memory: &File, automaton: &AhoCorasick, expect_in: &[(u64, u64)]) -> Result<Reply> {
    let (mut inside, mut outside, mut first_outside) = (0, 0, None);
    let mut window = vec![0; WINDOW];
    let mut end_of_data = 0;
    while let Some((start, end)) = next_extent(memory, end_of_data)? {
        end_of_data = end;
        let mut offset = start;
        while offset < end {
            let length = WINDOW.min(usize::try_from(end - offset)?);
            memory.read_exact_at(&mut window[..length], offset)?;
            for found in automaton.find_overlapping_iter(&window[..length]) {
                let address = MEMORY_START + offset + found.start() as u64;
                let size = (found.end() - found.start()) as u64;
                let expected = expect_in.iter().any(|&(base, bytes)| {
                    address >= base && address.saturating_add(size) <= base.saturating_add(bytes)
                });
                if expected {
                    inside += 1;
                } else {
                    outside += 1;
                    first_outside.get_or_insert(address);
                }
            }
            if offset + length as u64 == end {
                break;
            }
            // What crosses the border of two windows is found in the second.
            offset += (length - (NEEDLE_SIZE - 1)) as u64;
        }
    }
    Ok(Reply::Found {
        inside,
        outside,
        first_outside: first_outside.map(|address| format!("{address:#x}")),
    })
}

/// The next part of the file at or after `from` that is not a hole.
fn next_extent(file: &File, from: u64) -> Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error).context("look for data in the guest's memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDLE: [u8; NEEDLE_SIZE] = *b"0123456789abcdef";

    fn memory_with(needles_at: &[u64]) -> File {
        let file = File::from(
            rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"),
        );
        file.set_len(64 << 20).expect("sparse");
        for &offset in needles_at {
            file.write_all_at(&NEEDLE, offset).expect("in the file");
        }
        file
    }

    fn find(needles_at: &[u64], expect_in: &[(u64, u64)]) -> Reply {
        let needles = Needles::new("n", &[NEEDLE]).expect("one pattern");
        search(&memory_with(needles_at), &needles.automaton, expect_in).expect("searched")
    }

    #[test]
    fn every_offset_is_searched_across_windows_and_holes() {
        let window = WINDOW as u64;
        let at = [3, window - 7, 20 << 20, (64 << 20) - 16];
        let all = [(MEMORY_START, 64 << 20)];
        assert_eq!(
            find(&at, &all),
            Reply::Found {
                inside: 4,
                outside: 0,
                first_outside: None
            }
        );
    }

    #[test]
    fn a_needle_that_sticks_out_of_a_range_is_outside() {
        let range = [(MEMORY_START + 4096, 4096)];
        let expected = Reply::Found {
            inside: 1,
            outside: 1,
            first_outside: Some(format!("{:#x}", MEMORY_START + 8192 - 15)),
        };
        assert_eq!(find(&[4096, 8192 - 15], &range), expected);
    }

    #[test]
    fn a_window_border_counts_a_needle_once() {
        let extent = WINDOW as u64 * 2;
        let needles = Needles::new("n", &[NEEDLE]).expect("one pattern");
        let memory = memory_with(&[]);
        memory
            .write_all_at(&vec![1; WINDOW * 2], 0)
            .expect("in the file");
        for back in 0..=NEEDLE_SIZE as u64 {
            memory
                .write_all_at(&NEEDLE, WINDOW as u64 - back)
                .expect("in the file");
            let found =
                search(&memory, &needles.automaton, &[(MEMORY_START, extent)]).expect("searched");
            assert_eq!(
                found,
                Reply::Found {
                    inside: 1,
                    outside: 0,
                    first_outside: None
                },
                "{back} before"
            );
            memory
                .write_all_at(&[1; NEEDLE_SIZE], WINDOW as u64 - back)
                .expect("in the file");
        }
    }
}
