// SPDX-License-Identifier: MIT OR Apache-2.0
//! What decryption costs: the table, and the bounds.

use std::fmt::Write;

use anyhow::{ensure, Context, Result};
use ringfence_tests::bench::{ContentFigures, Figures};

use super::table::{grouped, row};
use super::Judgement;

/// How many times plain AES-CTR decrypting a sample of `cenc` may cost.
const CENC: f64 = 1.2;

/// The same for `cbcs`, which decrypts a tenth, and moves every block by itself.
const CBCS: f64 = 1.5;

/// The table.
pub fn table(text: &mut String, figures: &ContentFigures) {
    let heads = vec!["instructions".to_owned(), "for each byte".to_owned()];
    row(text, "decrypting 1 MiB", heads);
    row(text, "---", vec!["---:".to_owned(); 2]);
    for (name, instructions) in [
        ("AES-CTR over the application's own memory", figures.plain),
        ("`cenc` into a protected buffer", figures.cenc),
        ("`cbcs`, pattern 1:9, into a protected buffer", figures.cbcs),
    ] {
        // CAST: Instruction counts are far below 2^53.
        let each = instructions as f64 / figures.bytes as f64;
        row(
            text,
            name,
            vec![grouped(instructions), format!("{each:.2}")],
        );
    }
    let film = &figures.film;
    writeln!(
        text,
        "\nA film of {} frames and {} bytes took {} secure calls for decryption, at most {} for a frame.\n",
        film.frames,
        grouped(film.bytes),
        film.secure_calls,
        film.most_secure_calls
    )
    .expect("writing to a String succeeds");
}

/// Judges what was measured.
pub fn judge(figures: &Figures) -> [Judgement; 3] {
    let judge = |judge: &dyn Fn(&ContentFigures) -> Result<String>| {
        let measured = figures.content.as_ref();
        judge(measured.context("decryption was not measured")?)
    };
    let decryption = |instructions: u64, plain: u64, at_most: f64| {
        // CAST: Instruction counts are far below 2^53.
        let ratio = instructions as f64 / plain as f64;
        let said =
            format!("{instructions} over {plain} instructions is {ratio:.4}, at most {at_most:.4}");
        ensure!(ratio <= at_most, "{said}");
        Ok(said)
    };
    let calls = |figures: &ContentFigures| {
        let film = &figures.film;
        let said = format!(
            "{} calls for {} frames, at most {} for one",
            film.secure_calls, film.frames, film.most_secure_calls
        );
        ensure!(film.within_bounds && film.frames > 0, "{said}");
        Ok(said)
    };
    [
        (
            "content: decrypting `cenc` into protected memory is near plain AES-CTR",
            judge(&|figures| decryption(figures.cenc, figures.plain, CENC)),
        ),
        (
            "content: decrypting `cbcs` is, too",
            judge(&|figures| decryption(figures.cbcs, figures.plain, CBCS)),
        ),
        (
            "content: a frame takes four secure calls and one for each MiB",
            judge(&calls),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_tests::bench::FilmFigures;

    fn figures(cenc: u64, cbcs: u64, within_bounds: bool) -> Figures {
        Figures {
            content: Some(ContentFigures {
                bytes: 1 << 20,
                rounds: 1,
                plain: 1000,
                cenc,
                cbcs,
                film: FilmFigures {
                    frames: 3,
                    bytes: 100,
                    secure_calls: 3,
                    most_secure_calls: 1,
                    within_bounds,
                },
            }),
            ..Figures::default()
        }
    }

    #[test]
    fn what_is_over_its_bound_is_found() {
        let holds = |figures: &Figures| judge(figures).map(|(_, judged)| judged.is_ok());
        assert_eq!(holds(&figures(1200, 1500, true)), [true, true, true]);
        assert_eq!(holds(&figures(1201, 1501, false)), [false, false, false]);
        let mut nothing = figures(1, 1, true);
        nothing.content = None;
        assert_eq!(holds(&nothing), [false, false, false]);
    }
}
