// SPDX-License-Identifier: MIT OR Apache-2.0

//! Scenarios that the guest plays, with a report of what was measured:
//! `ringfence-scenario main JOB.json`, `ringfence-scenario video SCREENING.json`.
//!
//! Exit status: 0 if everything was as promised, 1 if something was not, 2 for
//! wrong usage.

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod cinema;
#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod play;
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
    let [scenario, job] = arguments.as_slice() else {
        eprintln!("usage: ringfence-scenario main JOB.json | video SCREENING.json");
        return ExitCode::from(2);
    };
    let outcome = match scenario.as_str() {
        "main" => play::play(job.as_ref()),
        "video" => screening::play(job.as_ref()),
        _ => {
            eprintln!("there is no scenario {scenario}: they are `main` and `video`");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(report) => report.verdict(),
        Err(error) => {
            eprintln!("ringfence-scenario: the scenario broke off: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(feature = "guest", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "ringfence-scenario runs in the guest: build it for aarch64, with the feature `guest`"
    );
    std::process::ExitCode::from(2)
}
