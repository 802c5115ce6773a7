// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is said about the tests of the guest agrees with the tests.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use ringfence_tests::attacks::{ATTACKS, HEAD};
use ringfence_tests::bad_cases::BAD_CASES;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources of a suite, by its module's name.
fn source(module: &str) -> String {
    const SUITES: &str = "src/bin/ringfence-tests/suites";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(SUITES);
    let file = match folder.join(module).is_dir() {
        true => format!("{SUITES}/{module}/mod.rs"),
        false => format!("{SUITES}/{module}.rs"),
    };
    read(&file)
}

/// Whether the guest's program has a test of this name, as far as a look at its
/// list of tests can tell.
fn exists(test: &str) -> bool {
    let Some((suite, name)) = test.split_once("::") else {
        return false;
    };
    let module = match suite {
        "swiotlb" | "doomed" => "attacks",
        other => other,
    };
    source(module).contains(&format!("\"{name}\""))
}

#[test]
fn the_readme_has_the_table_of_attacks() {
    let readme = read("../README.md");
    let (_, rest) = readme
        .split_once("<!-- attacks:begin -->\n\n")
        .expect("the README marks the table's begin");
    let (table, _) = rest
        .split_once("\n\n<!-- attacks:end -->")
        .expect("the README marks the table's end");
    let rows = ATTACKS.iter().map(|attack| attack.row());
    let wanted = HEAD.lines().map(str::to_owned).chain(rows);
    for (line, wanted) in table.lines().zip(wanted) {
        assert_eq!(line, wanted);
    }
    assert_eq!(table.lines().count(), ATTACKS.len() + 2);
}

#[test]
fn every_attack_has_its_test() {
    for attack in ATTACKS {
        assert!(exists(attack.test), "there is no {}", attack.test);
    }
}

#[test]
fn every_test_of_attacks_is_in_the_table() {
    let known: HashSet<_> = ATTACKS
        .iter()
        .filter_map(|attack| attack.test.split_once("::"))
        .map(|(_, name)| name)
        .collect();
    let source = source("attacks");
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.split_once("(\"")?.1.split_once("\","))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 30, "only {names:?}");
    for name in names {
        assert!(known.contains(name), "{name} is not in the table");
    }
}

#[test]
fn every_bad_case_has_its_tests() {
    let numbers: Vec<_> = BAD_CASES.iter().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
    for case in BAD_CASES {
        assert!(!case.tests.is_empty(), "{}", case.what);
        for test in case.tests {
            assert!(exists(test), "{}: there is no {test}", case.number);
        }
    }
}
