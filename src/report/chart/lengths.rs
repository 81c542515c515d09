//! Score against length.

use std::fmt::Write as _;

use super::super::LengthGrid;
use super::super::numbers::{count, score};

/// Height of the plot, and of everything with the axis.
const PLOT: f64 = 280.0;
const HEIGHT: u32 = 326;

/// Free space above the highest cell.
const TOP: f64 = 10.0;

/// How faint the rarest cell is.
const FAINTEST: f64 = 0.3;

/// Least distance of two ticks, as a share of the width: a number of six digits has
/// room at the width of a phone.
const TICK_DISTANCE: f64 = 0.17;

/// The ranked examples by answer length and score: the fuller a cell, the darker; in
/// the accent color where examples of it were selected.
pub(in super::super) fn lengths(grid: &LengthGrid, cut: f32) -> String {
    let mut svg = format!(
        "<svg class=\"lengths\" role=\"img\" aria-labelledby=\"lengths-title lengths-text\" \
         width=\"100%\" height=\"{HEIGHT}\">\
         <title id=\"lengths-title\">Scores by answer length</title>\
         <desc id=\"lengths-text\">Answers of {} to {} tokens, scores from {} to {}.</desc>",
        count(grid.shortest.into()),
        count(grid.longest.into()),
        score(grid.low.into()),
        score(grid.high.into()),
    );
    cells(&mut svg, grid);
    let y = height_of(share(cut, grid));
    let _ = write!(svg, "<line class=\"cut\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
    length_axis(&mut svg, grid);
    svg.push_str("</svg>");
    svg
}

/// The numbers beside it, in a chart of their own that has a width in pixels.
pub(in super::super) fn lengths_axis(grid: &LengthGrid) -> String {
    let mut svg =
        format!("<svg class=\"scale\" aria-hidden=\"true\" width=\"58\" height=\"{HEIGHT}\">");
    for quarter in 0..=4_u32 {
        let up = f64::from(quarter) / 4.0;
        let value = f64::from(grid.low) + up * f64::from(grid.high - grid.low);
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"50\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            height_of(up) + 4.0,
            score(value)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn cells(svg: &mut String, grid: &LengthGrid) {
    let most = grid.cells.iter().map(|cell| cell.n_ranked).max().unwrap_or(1);
    let (width, height) = (100.0 / grid.n_lengths as f64, (PLOT - TOP) / grid.n_scores as f64);
    for cell in &grid.cells {
        let x = cell.length as f64 * width;
        let y = height_of((cell.score + 1) as f64 / grid.n_scores as f64);
        let class = if cell.n_selected > 0 { "subset-fill" } else { "pool-fill" };
        // By the logarithm: single examples can be seen beside thousands.
        let opacity =
            FAINTEST + (1.0 - FAINTEST) * (cell.n_ranked as f64).ln_1p() / (most as f64).ln_1p();
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{y:.1}\" width=\"{:.2}%\" \
             height=\"{:.1}\" fill-opacity=\"{opacity:.2}\"/>",
            width * 0.94,
            height - 0.6,
        );
    }
}

/// Ticks at 1, 2 and 5 times powers of ten, as many as have room.
fn length_axis(svg: &mut String, grid: &LengthGrid) {
    let (low, high) = (f64::from(grid.shortest), f64::from(grid.longest) + 1.0);
    let _ = write!(svg, "<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"{PLOT}\" y2=\"{PLOT}\"/>");
    for (tick, along) in ticks(low, high) {
        let anchor = if along < 0.04 {
            "start"
        } else if along > 0.96 {
            "end"
        } else {
            "middle"
        };
        let x = 100.0 * along;
        let _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{PLOT}\" y2=\"{}\"/>\
             <text class=\"tick\" x=\"{x:.2}%\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            PLOT + 4.0,
            PLOT + 20.0,
            count(tick),
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"50%\" y=\"{}\" text-anchor=\"middle\">tokens that carry loss</text>",
        PLOT + 40.0
    );
}

/// Round numbers from `low` to `high` and how far along they are in the logarithm.
fn ticks(low: f64, high: f64) -> Vec<(u64, f64)> {
    let powers = (0..10).map(|power| 10_u64.pow(power));
    let round = powers.flat_map(|power| [power, 2 * power, 5 * power]);
    let mut ticks: Vec<(u64, f64)> = Vec::new();
    for tick in round {
        let along = ((tick as f64).ln() - low.ln()) / (high.ln() - low.ln());
        let has_room = ticks.last().is_none_or(|(_, last)| along - last >= TICK_DISTANCE);
        if (0.0..=1.0).contains(&along) && has_room {
            ticks.push((tick, along));
        }
    }
    ticks
}

/// Where `score` is between the lowest and the highest.
fn share(score: f32, grid: &LengthGrid) -> f64 {
    let range = f64::from(grid.high - grid.low);
    if range > 0.0 { (f64::from(score - grid.low) / range).clamp(0.0, 1.0) } else { 0.0 }
}

/// The height in pixels of what is `up` of the way up.
fn height_of(up: f64) -> f64 {
    PLOT - (PLOT - TOP) * up
}

#[cfg(test)]
mod tests {
    use super::super::super::GridCell;
    use super::*;

    fn grid(cells: &[(usize, usize, u64, u64)]) -> LengthGrid {
        let cell = |&(length, score, n_ranked, n_selected): &(usize, usize, u64, u64)| GridCell {
            length,
            score,
            n_ranked,
            n_selected,
        };
        LengthGrid {
            shortest: 1,
            longest: 999,
            low: 0.0,
            high: 1.0,
            n_lengths: 4,
            n_scores: 2,
            cells: cells.iter().map(cell).collect(),
        }
    }

    #[test]
    fn a_cell_stands_where_its_length_and_score_are() {
        let svg = lengths(&grid(&[(1, 0, 9, 0), (3, 1, 9, 2)]), 0.5);
        insta::assert_snapshot!(svg.split("<rect").nth(1).unwrap(), @r#" class="pool-fill" x="25.00%" y="145.0" width="23.50%" height="134.4" fill-opacity="1.00"/>"#);
        let second = svg.split("<rect").nth(2).unwrap();
        assert!(second.starts_with(" class=\"subset-fill\" x=\"75.00%\" y=\"10.0\""), "{second}");
        assert!(second.contains("class=\"cut\" x1=\"0\" x2=\"100%\" y1=\"145.0\""), "{second}");
    }

    #[test]
    fn ticks_are_round_and_have_room() {
        let of = |low, high| ticks(low, high).iter().map(|(tick, _)| *tick).collect::<Vec<_>>();
        assert_eq!(of(1.0, 1000.0), [1, 5, 20, 100, 500]);
        assert_eq!(of(1.0, 2.0), [1, 2]);
        assert_eq!(of(7.5, 8.5), [] as [u64; 0]);
    }

    #[test]
    fn no_examples_make_a_chart_too() {
        let svg = lengths(&grid(&[]), 0.0) + &lengths_axis(&grid(&[]));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
