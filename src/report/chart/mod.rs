//! Charts as inline SVG.
//!
//! Widths are in percent and heights in pixels, so a chart is as wide as its
//! place on the page and its text keeps its size. Colors come from the page's
//! classes. No text of a row or a source enters here.

mod histogram;
mod lengths;

pub(super) use histogram::histogram;
pub(super) use lengths::{lengths, lengths_axis};

use super::numbers::percent;

/// A share of the pool above the same share of the subset; a full bar is
/// `largest`.
pub(super) fn pair(pool: f64, subset: f64, largest: f64) -> String {
    format!(
        "<svg class=\"pair\" role=\"img\" aria-label=\"{} of the pool, {} of the subset\" \
         width=\"100%\" height=\"18\">\
         <rect class=\"pool-fill\" x=\"0\" y=\"1\" width=\"{:.2}%\" height=\"7\"/>\
         <rect class=\"subset-fill\" x=\"0\" y=\"10\" width=\"{:.2}%\" height=\"7\"/></svg>",
        percent(pool),
        percent(subset),
        width(pool, largest),
        width(subset, largest),
    )
}

/// A bar as long as `value` is of `largest`.
pub(super) fn bar(value: f64, largest: f64) -> String {
    format!(
        "<svg class=\"bar\" aria-hidden=\"true\" width=\"100%\" height=\"9\">\
         <rect class=\"subset-fill\" x=\"0\" y=\"0\" width=\"{:.2}%\" height=\"9\"/></svg>",
        width(value, largest),
    )
}

/// Overlaps on a scale from none to all: a line from `low` to `high`, a dot at `mean`, and
/// a mark at what `chance` gives.
pub(super) fn overlap(low: f64, mean: Option<f64>, high: f64, chance: f64) -> String {
    let dot = mean.map_or_else(String::new, |mean| {
        format!("<circle class=\"subset-fill\" cx=\"{:.2}%\" cy=\"9\" r=\"4\"/>", 100.0 * mean)
    });
    format!(
        "<svg class=\"overlap\" aria-hidden=\"true\" width=\"100%\" height=\"18\">\
         <line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"9\" y2=\"9\"/>\
         <line class=\"chance\" x1=\"{chance:.2}%\" x2=\"{chance:.2}%\" y1=\"2\" y2=\"16\"/>\
         <line class=\"range\" x1=\"{:.2}%\" x2=\"{:.2}%\" y1=\"9\" y2=\"9\"/>{dot}</svg>",
        100.0 * low,
        100.0 * high,
        chance = 100.0 * chance,
    )
}

fn width(value: f64, largest: f64) -> f64 {
    100.0 * value / largest.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_stand_between_none_and_all() {
        let svg = overlap(0.25, Some(0.5), 0.75, 0.05);
        assert!(svg.contains("class=\"range\" x1=\"25.00%\" x2=\"75.00%\""), "{svg}");
        assert!(svg.contains("cx=\"50.00%\"") && svg.contains("x1=\"5.00%\""), "{svg}");
        assert!(!overlap(0.2, None, 0.3, 0.05).contains("circle"));
    }

    #[test]
    fn bars_are_as_long_as_their_part_of_the_largest() {
        assert!(bar(3.0, 4.0).contains("width=\"75.00%\""));
        assert!(pair(0.1, 0.2, 0.2).contains("width=\"50.00%\""));
        assert!(pair(0.0, 0.0, 0.0).contains("width=\"0.00%\""));
    }
}
