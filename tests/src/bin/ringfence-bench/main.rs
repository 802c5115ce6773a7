// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures what an allocation and its release cost on each heap, in
//! instructions: `ringfence-bench HEAP[:LARGEST]…`, the largest size in bytes.
//! The word `pages` stands for all that buffers of pages can, on our heaps and on
//! the kernel's own, one beside the other; our modules are loaded for that.
//! `protection:HEAP,HEAP…` stands for what protecting a buffer of these heaps costs,
//! `states:HEAP,HEAP…` for these heaps in a fresh machine and in one that has been in
//! use, `mixed:HEAP,HEAP…` for heaps that are nearly full under several threads,
//! `touch:HEAP,HEAP…` for what it costs a process to use a buffer, `content:HEAP` for
//! decrypting and decoding into buffers of a heap.
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
mod mixed;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod pages;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod protection;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod rounds;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod states;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod touch;

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(work) = Work::parse(&arguments) else {
        eprintln!(
            "usage: ringfence-bench [pages] [protection:HEAP,HEAP...] [states:HEAP,HEAP...] \
             [mixed:HEAP,HEAP...] [touch:HEAP,HEAP...] [content:HEAP] HEAP[:LARGEST]..."
        );
        return ExitCode::from(2);
    };
    match measure(&work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringfence-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be measured.
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
#[derive(Default)]
struct Work<'a> {
    heaps: Vec<(&'a str, u64)>,
    pages: bool,
    protection: Vec<&'a str>,
    content: Option<&'a str>,
    states: Vec<&'a str>,
    mixed: Vec<&'a str>,
    touch: Vec<&'a str>,
}

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
impl<'a> Work<'a> {
    /// The words of the command line; `None` when they make no sense.
    fn parse(arguments: &'a [String]) -> Option<Self> {
        let mut work = Self::default();
        for argument in arguments {
            match argument.split_once(':') {
                None if argument == "pages" => work.pages = true,
                None => work.heaps.push((argument, u64::MAX)),
                Some(("protection", heaps)) => work.protection = heaps.split(',').collect(),
                Some(("content", heap)) => work.content = Some(heap),
                Some(("states", heaps)) => work.states = heaps.split(',').collect(),
                Some(("mixed", heaps)) => work.mixed = heaps.split(',').collect(),
                Some(("touch", heaps)) => work.touch = heaps.split(',').collect(),
                Some((heap, largest)) => work.heaps.push((heap, largest.parse().ok()?)),
            }
        }
        (!arguments.is_empty()).then_some(work)
    }
}

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn measure(work: &Work<'_>) -> anyhow::Result<()> {
    use ringfence_tests::bench::Figures;
    use rustix::system::uname;

    let counter = counter::calibrate()?;
    // Those that leave the machine as it was come first.
    let figures = Figures {
        kernel: uname().release().to_string_lossy().into_owned(),
        heaps: work
            .heaps
            .iter()
            .map(|(heap, largest)| rounds::measure(&counter, heap, *largest))
            .collect::<anyhow::Result<_>>()?,
        protection: work
            .protection
            .iter()
            .map(|heap| protection::measure(&counter, heap))
            .collect::<anyhow::Result<Vec<_>>>()?
            .concat(),
        content: work
            .content
            .map(|heap| content::measure(&counter, heap))
            .transpose()?,
        pages: match work.pages {
            true => pages::measure(&counter)?,
            false => Vec::new(),
        },
        decoding: work
            .content
            .map(|heap| decoding::measure(&counter, heap))
            .transpose()?,
        mixed: mixed::measure(&counter, &work.mixed)?,
        touches: touch::measure(&counter, &work.touch)?,
        states: match work.states.as_slice() {
            [] => Vec::new(),
            heaps => states::measure(&counter, heaps)?,
        },
        counter,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

#[cfg(not(all(feature = "guest", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("ringfence-bench runs in the guest: build it for aarch64, with the feature `guest`");
    std::process::ExitCode::from(2)
}
