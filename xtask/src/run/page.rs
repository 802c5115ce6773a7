// SPDX-License-Identifier: MIT OR Apache-2.0
//! A page that shows pictures of the screen beside what Linux sees of the same memory.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ringfence_tests::screening::{Screening as Played, Seen, Sight};

use crate::screening::Screening;

/// How the page looks.
const STYLE: &str = "\
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em }
table { border-spacing: 0 1em; width: 100% } td { vertical-align: top; width: 50% }
img, .memory { width: 480px; height: 270px; display: block }
.memory { background: repeating-linear-gradient(45deg, #333 0 14px, #3d3d3d 14px 28px);
  color: #eee; display: flex; align-items: center; justify-content: center; text-align: center }
.memory.open { background: #a00 }
small { color: #555 }";

/// Writes the page into `folder`, with the pictures out of `taken`; returns its path.
pub fn write(folder: &Path, taken: &Path, film: &Screening, seen: &Seen) -> Result<PathBuf> {
    let mut rows = String::new();
    for sight in &seen.sights {
        let name = format!("{}.png", Played::picture(sight.frame));
        fs::copy(taken.join(&name), folder.join(&name)).with_context(|| name.clone())?;
        rows.push_str(&row(sight, &name)?);
    }
    let page = format!(
        "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>What is on the screen, and what Linux sees \
         of it</title>\n<style>\n{STYLE}\n</style>\n<h1>What is on the screen, and what Linux sees of \
         it</h1>\n<p>{}</p>\n<p>Left: the screen, photographed from outside of the machine. Right: \
         what root in Linux gets of the same memory at the same moment.</p>\n<table>\n{rows}</table>\n",
        escape(&film.title)
    );
    let path = folder.join("index.html");
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// One picture.
fn row(sight: &Sight, file: &str) -> Result<String> {
    let Sight {
        frame,
        psnr,
        memory,
        readers,
        killed,
    } = sight;
    let (class, word) = if killed == readers {
        ("memory", "nothing")
    } else {
        ("memory open", "some of it")
    };
    let mut places = String::new();
    for (start, size) in memory {
        write!(places, "{start:#x}-{:#x} ", start + size - 1)?;
    }
    Ok(format!(
        "<tr><td><img src=\"{file}\" alt=\"picture {frame} of the film\">\n<small>picture {frame}, \
         {psnr:.1} dB from the original</small></td>\n<td><div class=\"{class}\">{word}:<br>{killed} of \
         {readers} readers killed by the CPU</div>\n<small>{places}</small></td></tr>\n"
    ))
}

/// Text within HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(killed: usize) -> Sight {
        Sight {
            frame: 7,
            psnr: 41.23,
            memory: vec![(0x8000_0000, 4096)],
            readers: 2,
            killed,
        }
    }

    #[test]
    fn a_reader_that_lives_is_shown() {
        let closed = row(&sight(2), "x.png").expect("text");
        assert!(closed.contains("nothing") && closed.contains("0x80000000-0x80000fff"));
        assert!(row(&sight(1), "x.png")
            .expect("text")
            .contains("memory open"));
    }

    #[test]
    fn titles_are_text() {
        assert_eq!(escape("a<b & c"), "a&lt;b &amp; c");
    }
}
