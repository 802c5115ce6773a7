// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's test suites: `ringfence-tests list`, `ringfence-tests [SUITE]
//! [options of libtest]`; all suites of the default boot without SUITE.
//!
//! Tests look at counts that the whole machine shares, so they run one by one.

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
mod suites;

#[cfg(all(feature = "guest", target_arch = "aarch64"))]
fn main() -> std::process::ExitCode {
    suites::main()
}

#[cfg(not(all(feature = "guest", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    eprintln!("ringfence-tests runs in the guest: build it for aarch64, with the feature `guest`");
    std::process::ExitCode::from(2)
}
