// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a job printed about its failures: they are shown again at the end, where nobody has to look
//! for them.

/// Lines of a job's end that are shown when it does not say by itself what failed.
const TAIL: usize = 40;

/// What names failures in the outputs of libtest and libtest-mimic: what they say of each comes
/// between two such lines.
const LIST: &str = "failures:";

/// What ends a list that is not followed by another one.
const SUMMARY: &str = "test result: ";

/// The first line of what explains how a boot ended, and the start of the last one.
const EXPLANATION: [&str; 2] = ["---- last lines of the console", "logs: "];

/// The part of a failed job's output that says why it failed.
pub fn excerpt(output: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut end: Option<&[&str]> = None;
    for line in output.lines() {
        match end {
            Some(marks) => {
                if marks.iter().any(|mark| line.starts_with(mark)) {
                    end = None;
                } else {
                    found.push(line);
                }
            }
            None if line == LIST => end = Some(&[LIST, SUMMARY]),
            None if line == EXPLANATION[0] => {
                found.push(line);
                end = Some(&EXPLANATION[1..]);
            }
            None if line.starts_with("test ") && line.contains(" ... FAILED: ") => found.push(line),
            None => {}
        }
    }
    if found.iter().all(|line| line.is_empty()) {
        let lines: Vec<_> = output.lines().collect();
        found = lines[lines.len().saturating_sub(TAIL)..].to_vec();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_harnesses_say_of_failures_is_found() {
        let output = "running 2 tests\n\
            test a ... ok\n\
            test b ... FAILED\n\
            \n\
            failures:\n\
            \n\
            ---- b ----\n\
            4096 bytes are left\n\
            \n\
            failures:\n    b\n\
            \n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\n\
            test latency::close ... FAILED: 9 times\n";
        let found = excerpt(output);
        assert!(found.contains(&"---- b ----"), "{found:?}");
        assert!(found.contains(&"4096 bytes are left"), "{found:?}");
        assert!(found.contains(&"test latency::close ... FAILED: 9 times"));
        assert!(!found.iter().any(|line| line.contains("... ok")));
    }

    #[test]
    fn how_a_boot_ended_is_found() {
        let output = "running 1 test\n\
            ---- last lines of the console\n\
            Oops\n\
            ---- the guest crashed: Oops\n\
            logs: somewhere\n\
            more\n";
        let found = excerpt(output);
        assert_eq!(found.last(), Some(&"---- the guest crashed: Oops"));
    }

    #[test]
    fn of_other_jobs_the_end_is_shown() {
        let output = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        let found = excerpt(&output);
        assert_eq!((found.len(), found.first()), (TAIL, Some(&"60")));
    }
}
