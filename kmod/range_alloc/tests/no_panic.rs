// SPDX-License-Identifier: GPL-2.0

//! Compiled as the kernel compiles it, overflow checks included, the crate has no way to panic.

use std::{env, fs, path::PathBuf, process::Command};

/// Calls everything that is generic, so that it is compiled.
const CALLS: &str = "
#![no_std]
use ringfence_range_alloc::*;
pub type Ranges<'a> = RangeAllocator<&'a mut [Record], &'a mut [Group]>;
pub fn new<'a>(g: Geometry, n: usize, r: &'a mut [Record], i: &'a mut [Group])
    -> Result<Ranges<'a>, GeometryError> { RangeAllocator::new(g, n, r, i) }
pub fn alloc(r: &mut Ranges<'_>, q: Request) -> Result<Range, AllocError> { r.alloc(q) }
pub fn alloc_at(r: &mut Ranges<'_>, s: u64, n: u64) -> Result<Range, AllocError> { r.alloc_at(s, n) }
pub fn free(r: &mut Ranges<'_>, h: Handle) -> Result<Extent, FreeError> { r.free(h) }
pub fn stats(r: &Ranges<'_>) -> Stats { r.stats() }
pub fn count(r: &Ranges<'_>) -> u64 { r.ranges().fold(0, |n, b| n ^ b.size) }
";

#[test]
#[cfg_attr(miri, ignore = "runs the compiler")]
fn no_panic_is_compiled_in() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no_panic");
    fs::create_dir_all(&directory).unwrap();
    let calls = directory.join("calls.rs");
    fs::write(&calls, CALLS).unwrap();
    let compile = |name: &str, source: &str| {
        let library = directory.join("libringfence_range_alloc.rlib");
        let status = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition=2021", "--crate-type=rlib", "--crate-name", name])
            .args(["-Copt-level=2", "-Ccodegen-units=1", "-Cpanic=abort"])
            .args([
                "-Coverflow-checks=on",
                "-Cdebug-assertions=off",
                "--emit=asm,link",
            ])
            .arg("--out-dir")
            .arg(&directory)
            .args(
                (name == "calls")
                    .then(|| format!("--extern=ringfence_range_alloc={}", library.display())),
            )
            .arg(source)
            .status()
            .unwrap();
        assert!(status.success());
        fs::read_to_string(directory.join(name).with_extension("s")).unwrap()
    };
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    for (name, source) in [
        ("ringfence_range_alloc", library),
        ("calls", calls.to_str().unwrap()),
    ] {
        let assembly = compile(name, source);
        let panics: Vec<_> = assembly
            .lines()
            .filter(|line| line.contains("panic"))
            .collect();
        assert!(panics.is_empty(), "{name}: {panics:?}");
        assert!(
            assembly.contains("ringfence_range_alloc"),
            "{name} is empty"
        );
    }
}
