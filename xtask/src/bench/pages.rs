// SPDX-License-Identifier: MIT OR Apache-2.0
//! Heaps of pages beside the kernel's own: what the figures must be, and their tables.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};
use ringfence_tests::bench::{Figures, PageFigures, Spread};

use super::table::{grouped, row, show_size};
use super::Judgement;

const MIB: u64 = 1 << 20;

/// A step of a buffer's life: its name, and its figure.
type Step = (&'static str, fn(&PageFigures) -> Spread);

const ALLOC: Step = ("`DMA_HEAP_IOCTL_ALLOC`", |figures| figures.alloc);

/// The steps, as they follow each other.
const STEPS: [Step; 5] = [
    ALLOC,
    ("`mmap` and a write to every page", |figures| figures.touch),
    ("attach, map, unmap and detach, for a device", |figures| {
        figures.import
    }),
    ("`vmap` and `vunmap`", |figures| figures.vmap),
    ("`close` of the last reference", |figures| figures.close),
];

/// How many times what one heap needs another may need.
struct Rule {
    /// What it says.
    name: &'static str,
    subject: &'static str,
    over: &'static str,
    steps: &'static [Step],
    /// Bytes, from which on it holds.
    from: u64,
    at_most: f64,
}

const RULES: [Rule; 4] = [
    Rule {
        name: "system, no pool: no step costs more than 1.05 of upstream's",
        subject: "Ringfence system, no pool",
        over: "upstream system heap",
        steps: &STEPS,
        from: 0,
        at_most: 1.05,
    },
    Rule {
        name: "system: no step costs more than 1.05 of upstream's",
        subject: "Ringfence system",
        over: "upstream system heap",
        steps: &STEPS,
        from: 0,
        at_most: 1.05,
    },
    Rule {
        name: "system: ALLOC from a warm pool is a third of upstream's, from 1 MiB on",
        subject: "Ringfence system",
        over: "upstream system heap",
        steps: &[ALLOC],
        from: MIB,
        at_most: 1.0 / 3.0,
    },
    Rule {
        name: "CMA: no step costs more than 1.05 of upstream's",
        subject: "Ringfence CMA",
        over: "upstream CMA heap",
        steps: &STEPS,
        from: 0,
        at_most: 1.05,
    },
];

/// Compares what was measured, if these heaps were.
pub fn judge(figures: &Figures) -> Vec<Judgement> {
    if figures.pages.is_empty() {
        return Vec::new();
    }
    RULES
        .iter()
        .map(|rule| (rule.name, rule.judge(&figures.pages)))
        .collect()
}

impl Rule {
    /// Says what comes closest to the bound, or is out of it.
    fn judge(&self, figures: &[PageFigures]) -> Result<String> {
        let (ratio, said) = figures
            .iter()
            .filter(|figures| figures.subject == self.subject && figures.size >= self.from)
            .map(|mine| {
                let other = figures
                    .iter()
                    .find(|other| other.subject == self.over && other.size == mine.size)
                    .with_context(|| format!("{} was not measured", self.over))?;
                Ok(self.steps.iter().map(|(name, step)| {
                    let (figure, over) = (step(mine).median, step(other).median);
                    // CAST: Instruction counts are far below 2^53.
                    let ratio = figure as f64 / over as f64;
                    let size = show_size(mine.size);
                    (
                        ratio,
                        format!("{name}, {size}: {figure} over {over} instructions"),
                    )
                }))
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .max_by(|(one, _), (other, _)| one.total_cmp(other))
            .with_context(|| format!("{} was not measured", self.subject))?;
        let said = format!("{said} is {ratio:.4}, at most {:.4}", self.at_most);
        ensure!(ratio <= self.at_most, "{said}");
        Ok(said)
    }
}

/// One table a step, one row a subject, one column a size, medians.
pub fn tables(text: &mut String, figures: &[PageFigures]) {
    let (mut subjects, mut sizes) = (Vec::new(), Vec::new());
    for figures in figures {
        if !subjects.contains(&&figures.subject) {
            subjects.push(&figures.subject);
        }
        if !sizes.contains(&figures.size) {
            sizes.push(figures.size);
        }
    }
    for (name, step) in &STEPS {
        let heads = sizes.iter().map(|&size| show_size(size)).collect();
        row(text, name, heads);
        let rules = sizes.iter().map(|_| "---:".to_owned()).collect();
        row(text, "---", rules);
        for subject in &subjects {
            let cells = sizes
                .iter()
                .map(|&size| {
                    figures
                        .iter()
                        .find(|figures| figures.subject == **subject && figures.size == size)
                        .map_or_else(String::new, |figures| grouped(step(figures).median))
                })
                .collect();
            let name = match subject.starts_with("Ringfence") {
                true => format!("**{subject}**"),
                false => (*subject).clone(),
            };
            row(text, &name, cells);
        }
        writeln!(text).expect("writing to a String succeeds");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_figures(subject: &str, size: u64, alloc: u64, close: u64) -> PageFigures {
        let spread = |median| Spread {
            min: 1,
            median,
            max: u64::MAX,
        };
        PageFigures {
            subject: subject.to_owned(),
            size,
            alloc: spread(alloc),
            touch: spread(100),
            import: spread(100),
            vmap: spread(100),
            close: spread(close),
        }
    }

    #[test]
    fn the_worst_step_of_the_worst_size_counts() {
        let figures = [
            page_figures("upstream system heap", 4096, 1000, 1000),
            page_figures("upstream system heap", MIB, 3000, 1000),
            page_figures("Ringfence system", 4096, 1000, 1050),
            page_figures("Ringfence system", MIB, 1000, 900),
        ];
        let said = RULES[1].judge(&figures).expect("within 1.05");
        assert!(said.contains("`close` of the last reference, 4 KiB: 1050 over 1000"));
        assert!(RULES[2].judge(&figures).is_ok(), "from 1 MiB on");
        let mut worse = figures.clone();
        worse[2].close.median = 1051;
        assert!(RULES[1].judge(&worse).is_err());
        worse[3].alloc.median = 1001;
        assert!(RULES[2].judge(&worse).is_err());
    }

    #[test]
    fn what_was_not_measured_holds_no_rule() {
        let mine = [page_figures("Ringfence CMA", 4096, 1, 1)];
        let error = RULES[3].judge(&mine).expect_err("nothing to compare with");
        assert!(error.to_string().contains("upstream CMA heap"));
        assert!(RULES[3].judge(&[]).is_err());
    }

    #[test]
    fn every_subject_is_a_row_of_every_table() {
        let figures = [
            page_figures("upstream system heap", 4096, 1000, 1),
            page_figures("Ringfence system", 4096, 2000, 1),
        ];
        let mut text = String::new();
        tables(&mut text, &figures);
        assert!(text.contains("| upstream system heap | 1,000 |\n"));
        assert!(text.contains("| **Ringfence system** | 2,000 |\n"));
        assert_eq!(text.matches("4 KiB").count(), STEPS.len());
    }
}
