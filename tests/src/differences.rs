// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a heap of Ringfence's behaves differently from the kernel's own: the one
//! list of it, which the parity suite holds both to, and which is in the README.

/// Which heaps are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The system heap.
    System,
    /// Heaps on contiguous memory.
    Cma,
}

/// A difference that is meant.
#[derive(Debug)]
pub struct Difference {
    /// On which heap.
    pub kind: Kind,
    /// How the notes begin in which the suite sees it.
    pub notes: &'static str,
    /// What the README says it is about.
    pub what: &'static str,
    /// What is seen of ours.
    pub ours: &'static str,
    /// What is seen of the kernel's own.
    pub theirs: &'static str,
    /// Why.
    pub why: &'static str,
}

const REFUSED_AT_ONCE: (&str, &str, &str) = (
    "ENOMEM",
    "not tried: the kernel would kill one process after the other",
    "a typing error must not end other programs",
);

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    huge("0x200000000000 bytes"),
    huge("0x8000000000000000 bytes"),
    huge("0xfffffffffffff000 bytes"),
];

const fn huge(notes: &'static str) -> Difference {
    Difference {
        kind: Kind::System,
        notes,
        what: "a size beyond the machine's memory",
        ours: REFUSED_AT_ONCE.0,
        theirs: REFUSED_AT_ONCE.1,
        why: REFUSED_AT_ONCE.2,
    }
}

/// The difference that a note is about, if one is to be seen there.
pub fn find(kind: Kind, note: &str) -> Option<&'static Difference> {
    DIFFERENCES
        .iter()
        .find(|difference| difference.kind == kind && note.starts_with(difference.notes))
}

/// The list as a table of the README.
pub fn table() -> String {
    let mut table =
        String::from("| heap | what | Ringfence | upstream | why |\n|---|---|---|---|---|\n");
    let mut rows: Vec<String> = Vec::new();
    for difference in DIFFERENCES {
        let heap = match difference.kind {
            Kind::System => "system",
            Kind::Cma => "CMA",
        };
        let row = format!(
            "| {heap} | {} | {} | {} | {} |\n",
            difference.what, difference.ours, difference.theirs, difference.why
        );
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    table.extend(rows);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_this_table() {
        let readme = include_str!("../../README.md");
        let (_, rest) = readme
            .split_once("<!-- differences:begin -->\n")
            .expect("the README marks where the table begins");
        let (inside, _) = rest
            .split_once("<!-- differences:end -->")
            .expect("and where it ends");
        assert_eq!(
            inside.trim(),
            table().trim(),
            "put this there:\n{}",
            table()
        );
    }

    #[test]
    fn a_difference_is_one() {
        for difference in DIFFERENCES {
            assert_ne!(difference.ours, difference.theirs, "{}", difference.notes);
        }
    }
}
