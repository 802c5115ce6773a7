// SPDX-License-Identifier: MIT OR Apache-2.0
//! The camera's latencies as a picture.

use std::path::Path;

use anyhow::{anyhow, Result};
use plotters::prelude::*;

use super::camera::Row;
use crate::bench::show_size;

/// Pixels.
const SIZE: (u32, u32) = (1200, 640);

/// Width of a bar and of the gap between two groups, where a group is 1 wide.
const GAP: f64 = 0.15;

/// The least and the most that the axis shows: instructions.
const SCALE: (f64, f64) = (1e3, 1e9);

const COLOURS: [RGBColor; 3] = [
    RGBColor(0x1b, 0x7f, 0x79),
    RGBColor(0xe0, 0x9f, 0x3e),
    RGBColor(0x9e, 0x2a, 0x2b),
];

/// Draws a group of bars for each row, one bar for each size, on a logarithmic scale.
pub fn draw(rows: &[Row], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    plot(&area, rows)
        .and_then(|()| area.present())
        .map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// The error of a backend that draws SVG.
type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn plot<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    rows: &[Row],
) -> Result<(), DrawError<'a>> {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "Instructions until a camera has its buffer (lower is better)",
            ("sans-serif", 24),
        )
        .margin(20)
        .x_label_area_size(90)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..rows.len() as f64, (SCALE.0..SCALE.1).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc("instructions, logarithmic")
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .draw()?;
    let sizes = rows.first().map_or(0, |row| row.sizes.len());
    let width = (1.0 - GAP) / sizes.max(1) as f64;
    for (index, colour) in (0..sizes).zip(COLOURS.iter().cycle()) {
        let bars = rows.iter().enumerate().filter_map(|(group, row)| {
            let figures = row.sizes.get(index)?;
            let left = group as f64 + GAP / 2.0 + index as f64 * width;
            let median = figures.alloc.map(|alloc| alloc.median as f64);
            // What failed always has a bar as high as the picture, and no colour in it.
            let style = match median {
                Some(_) => colour.filled(),
                None => colour.stroke_width(1),
            };
            let top = median.unwrap_or(SCALE.1);
            Some(Rectangle::new(
                [(left, SCALE.0), (left + width * 0.9, top)],
                style,
            ))
        });
        let size = rows.first().map_or(0, |row| row.sizes[index].size);
        chart
            .draw_series(bars)?
            .label(show_size(size))
            .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let failed = rows.iter().enumerate().filter_map(|(group, row)| {
            let figures = row.sizes.get(index)?;
            let left = group as f64 + GAP / 2.0 + index as f64 * width;
            (figures.failures > 0).then(|| {
                Text::new(
                    format!("{} of {} failed", figures.failures, figures.rounds),
                    (left + width * 0.2, SCALE.1 / 2.0),
                    ("sans-serif", 12)
                        .into_font()
                        .transform(FontTransform::Rotate90)
                        .color(colour),
                )
            })
        });
        chart.draw_series(failed)?;
    }
    for (group, row) in rows.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64 + GAP / 2.0, SCALE.0));
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        for (line, text) in row.name.split(", ").enumerate() {
            area.draw(&Text::new(
                text.to_owned(),
                (x, y + 10 + 16 * line as i32),
                style.clone(),
            ))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfence_tests::bench::{SizeFigures, Spread};

    #[test]
    fn a_heap_that_failed_is_in_the_picture() {
        let figures = |alloc| SizeFigures {
            size: 1 << 20,
            rounds: 5,
            failures: if alloc == 0 { 5 } else { 0 },
            alloc: (alloc != 0).then(|| Spread::of(vec![alloc])).flatten(),
            close: None,
        };
        let rows = [3_462, 0].map(|alloc| Row {
            name: format!("a heap, {alloc}"),
            sizes: vec![figures(alloc); 3],
        });
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("chart.svg");
        draw(&rows, &path).expect("a picture");
        let text = std::fs::read_to_string(path).expect("a file");
        assert!(text.contains("5 of 5 failed") && text.contains("1 MiB"));
    }
}
