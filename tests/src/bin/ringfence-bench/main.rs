// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures what an allocation and its release cost on each heap, in
//! instructions: `ringfence-bench HEAP[:LARGEST]…`, the largest size in bytes.
//! The word `pages` stands for all that buffers of pages can, on our heaps and on
//! the kernel's own, one beside the other; our modules are loaded for that.
//! `protection=HEAP` measures what protecting a buffer of that heap costs,
//! `content=HEAP` what decrypting and decoding into one does.
//!
//! Prints one JSON document, see [`ringfence_tests::bench`]. The machine must
//! have been booted so that its time counts instructions. Exit status: 0, 1 when
//! something failed, 2 for wrong usage.

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod content;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod counter;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod decoding;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod pages;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod protection;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod rounds;

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let protected: Vec<&str> = arguments
        .iter()
        .filter_map(|argument| argument.strip_prefix("protection="))
        .collect();
    let content = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("content="));
    let heaps: Option<Vec<_>> = arguments
        .iter()
        .filter(|argument| !argument.contains('='))
        .map(|argument| match argument.split_once(':') {
            Some((heap, largest)) => Some((heap, largest.parse().ok()?)),
            None => Some((argument.as_str(), u64::MAX)),
        })
        .collect();
    let heaps = match heaps {
        Some(heaps) if !heaps.is_empty() => heaps,
        _ => {
            eprintln!(
                "usage: ringfence-bench [pages] HEAP[:LARGEST]... [protection=HEAP] [content=HEAP]"
            );
            return ExitCode::from(2);
        }
    };
    match measure(&heaps, &protected, content) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfence-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn measure(heaps: &[(&str, u64)], protected: &[&str], content: Option<&str>) -> anyhow::Result<()> {
    use ringfence_tests::bench::Figures;
    use rustix::system::uname;
    use rustix::thread::{sched_setaffinity, CpuSet};

    // Before calibration: an interrupt, and a move to another CPU, cost instructions, too.
    let mut last = CpuSet::new();
    last.set(std::thread::available_parallelism()?.get() - 1);
    sched_setaffinity(None, &last)?;
    let counter = counter::calibrate()?;
    let (pages, heaps): (Vec<_>, Vec<_>) = heaps.iter().partition(|(heap, _)| *heap == "pages");
    let pages = if pages.is_empty() {
        Vec::new()
    } else {
        pages::measure(&counter)?
    };
    let heaps = heaps
        .iter()
        .map(|(heap, largest)| rounds::measure(&counter, heap, *largest))
        .collect::<anyhow::Result<_>>()?;
    let mut protection = Vec::new();
    for heap in protected {
        protection.extend(protection::measure(&counter, heap)?);
    }
    let heap_of_content = content;
    let content = content
        .map(|heap| content::measure(&counter, heap))
        .transpose()?;
    let decoding = heap_of_content
        .map(|heap| decoding::measure(&counter, heap))
        .transpose()?;
    let figures = Figures {
        kernel: uname().release().to_string_lossy().into_owned(),
        counter,
        heaps,
        pages,
        protection,
        content,
        decoding,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

#[cfg(not(all(feature = "guest", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("ringfence-bench runs in the guest: build it for aarch64, with the feature `guest`");
    std::process::ExitCode::from(2)
}
