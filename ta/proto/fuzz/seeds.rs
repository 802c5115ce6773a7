// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stored seeds of a fuzz target, and numbers to damage them by; shared by
//! the tests beside the fuzz targets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The seeds in a folder, by name.
pub fn stored(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .expect("seed folder")
        .map(|entry| {
            let entry = entry.expect("seed");
            let name = entry.file_name().into_string().expect("plain name");
            (name, fs::read(entry.path()).expect("seed"))
        })
        .collect()
}

/// Checks that what was made is stored; with `RINGFENCE_WRITE_SEEDS=1` in the
/// environment, stores it first. Returns all that is stored.
pub fn check(folder: &Path, made: &BTreeMap<&str, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    if std::env::var_os("RINGFENCE_WRITE_SEEDS").is_some() {
        fs::create_dir_all(folder).expect("seed folder");
        for (name, content) in made {
            fs::write(folder.join(name), content).expect("seed written");
        }
    }
    let stored = stored(folder);
    for (name, content) in made {
        assert_eq!(stored.get(*name), Some(content), "{name}");
    }
    stored
}

/// A small generator of numbers that are always the same (xorshift64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new() -> Self {
        Self(0x5eed_0f1e_d6e2)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
