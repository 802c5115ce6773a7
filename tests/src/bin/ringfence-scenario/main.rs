// SPDX-License-Identifier: MIT OR Apache-2.0

//! Scenarios that the guest plays, with a report of what was measured:
//! `ringfence-scenario main JOB.json` decrypts into protected buffers,
//! `ringfence-scenario camera [WIDTH HEIGHT]` has a camera start with the machine,
//! `ringfence-scenario video SCREENING.json` plays an encrypted film.
//!
//! Exit status: 0 if everything was as promised, 1 if something was not, 2 for
//! wrong usage.

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod camera;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod protected;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod report;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod screening;

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(verdict) = ringfence_tests::guest::memory::child(&arguments) {
        return verdict;
    }
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let played = match words.as_slice() {
        ["main", job] => protected::play(job.as_ref()),
        ["video", job] => screening::play(job.as_ref()),
        ["camera"] => camera::play(camera::FRAME),
        ["camera", width, height] => match (width.parse(), height.parse()) {
            (Ok(width), Ok(height)) => camera::play((width, height)),
            _ => return usage(),
        },
        _ => return usage(),
    };
    match played {
        Ok(report) => report.verdict(),
        Err(error) => {
            eprintln!("ringfence-scenario: the scenario broke off: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn usage() -> std::process::ExitCode {
    eprintln!(
        "usage: ringfence-scenario main JOB.json | camera [WIDTH HEIGHT] | video SCREENING.json"
    );
    std::process::ExitCode::from(2)
}

#[cfg(not(all(feature = "guest", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "ringfence-scenario runs in the guest: build it for aarch64, with the feature `guest`"
    );
    std::process::ExitCode::from(2)
}
