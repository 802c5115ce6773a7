// SPDX-License-Identifier: MIT OR Apache-2.0
//! What decoding costs: the table, and the bound.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};
use ringfence_tests::bench::{DecodingFigures, Figures};

use super::table::{grouped, row};
use super::Judgement;

/// How many times a program of Linux decoding in the secure world may cost.
const DECODING: f64 = 1.2;

/// The table.
pub fn table(text: &mut String, figures: &DecodingFigures) {
    let DecodingFigures { width, height, .. } = figures;
    let head = format!(
        "decoding a frame of {width} x {height}, {} bytes of JPEG",
        grouped(figures.bytes)
    );
    let heads = vec!["instructions".to_owned(), "for each pixel".to_owned()];
    row(text, &head, heads);
    row(text, "---", vec!["---:".to_owned(); 2]);
    for (name, instructions) in [
        ("the same library in a program of Linux", figures.library),
        (
            "DECODE, from one protected buffer to another",
            figures.whole,
        ),
        ("of these for calls and windows", figures.around),
    ] {
        // CAST: Instruction counts are far below 2^53.
        let each = instructions as f64 / (width * height) as f64;
        row(
            text,
            name,
            vec![grouped(instructions), format!("{each:.1}")],
        );
    }
    writeln!(text).expect("writing to a String succeeds");
}

/// Judges what was measured.
pub fn judge(figures: &Figures) -> Judgement {
    let judge = || -> Result<String> {
        let figures = figures.decoding.as_ref();
        let figures = figures.context("decoding was not measured")?;
        // CAST: Instruction counts are far below 2^53.
        let ratio = figures.whole as f64 / figures.library as f64;
        let said = format!(
            "{} over {} instructions is {ratio:.4}, at most {DECODING:.4}",
            figures.whole, figures.library
        );
        ensure!(ratio <= DECODING, "{said}");
        Ok(said)
    };
    (
        "decoder: a frame beside the same library in a program of Linux",
        judge(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_bound_is_found() {
        let figures = |whole| Figures {
            decoding: Some(DecodingFigures {
                width: 640,
                height: 360,
                bytes: 1,
                rounds: 1,
                whole,
                around: 1,
                library: 1000,
            }),
            ..Figures::default()
        };
        assert!(judge(&figures(1200)).1.is_ok());
        assert!(judge(&figures(1201)).1.is_err());
        let mut nothing = figures(1);
        nothing.decoding = None;
        assert!(judge(&nothing).1.is_err());
    }
}
