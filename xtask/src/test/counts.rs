// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many tests passed, failed and were skipped.

use std::fmt;
use std::ops::AddAssign;

/// Outcomes of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// One test, which passed.
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One test, which failed.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One test, which could not run here.
    pub const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Whether something ran and nothing failed.
    pub fn is_success(&self) -> bool {
        !self.has_failures() && self.passed > 0
    }

    /// Whether a test failed.
    pub fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Sum of all summaries of libtest or libtest-mimic in `output`.
    pub fn of_output(output: &str) -> Self {
        output.lines().filter_map(Self::of_summary).sum()
    }

    /// Counts of a summary, if `line` is one.
    fn of_summary(line: &str) -> Option<Self> {
        let (_, counts) = line
            .trim()
            .strip_prefix("test result: ")?
            .split_once(". ")?;
        let count = |word: &str| {
            let field = counts
                .split(';')
                .map(str::trim)
                .find(|field| field.ends_with(word))?;
            field.split(' ').next()?.parse().ok()
        };
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            skipped: count(" ignored")?,
        })
    }

    /// The same, with at least one failure: of a run that failed beside its tests, or without a
    /// summary of them.
    pub fn and_failed(mut self) -> Self {
        self.failed = self.failed.max(1);
        self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut sum = Self::default();
        for counts in all {
            sum += counts;
        }
        sum
    }
}

impl From<bool> for Counts {
    /// One test, which passed or not.
    fn from(passed: bool) -> Self {
        if passed {
            Self::PASSED
        } else {
            Self::FAILED
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_test_harnesses_are_counted() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            noise: 9 passed; 9 failed\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 4.10s\n";
        let sum = Counts::of_output(output);
        assert_eq!(
            sum,
            Counts {
                passed: 5,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 1 skipped");
        assert_eq!(sum.and_failed(), sum);
        assert_eq!(Counts::PASSED.and_failed().failed, 1);
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!Counts::default().is_success());
        assert!(!Counts {
            passed: 5,
            failed: 1,
            skipped: 0
        }
        .is_success());
        assert!(Counts {
            passed: 5,
            failed: 0,
            skipped: 2
        }
        .is_success());
    }
}
