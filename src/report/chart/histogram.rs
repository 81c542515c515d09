//! How scores are spread.

use std::fmt::Write as _;

use super::super::numbers::{count, score};
use super::super::{Histogram, Scores};

/// Height of the plot, and of everything with the axis.
const PLOT: f64 = 190.0;
const HEIGHT: u32 = 236;

/// Free space above the highest bar, for the name of the cut.
const TOP: f64 = 26.0;

/// Part of a bin's width that its bar takes.
const BAR: f64 = 0.84;

/// The scores of the ranked examples, the selected ones in the accent color,
/// with a line at the lowest selected score.
pub(in super::super) fn histogram(scores: &Scores) -> String {
    let Scores { cut, histogram, .. } = scores;
    let n_ranked: u64 = histogram.bins.iter().map(|bin| bin.n_ranked).sum();
    let n_selected: u64 = histogram.bins.iter().map(|bin| bin.n_selected).sum();
    let mut svg = format!(
        "<svg class=\"histogram\" role=\"img\" aria-labelledby=\"histogram-title histogram-text\" \
         width=\"100%\" height=\"{HEIGHT}\">\
         <title id=\"histogram-title\">Histogram of scores</title>\
         <desc id=\"histogram-text\">{} ranked examples between {} and {}; {} selected, from {} up.</desc>",
        count(n_ranked),
        score(histogram.low.into()),
        score(histogram.high.into()),
        count(n_selected),
        score((*cut).into()),
    );
    grid(&mut svg, histogram);
    bars(&mut svg, histogram);
    axis(&mut svg, histogram);
    cut_line(&mut svg, *cut, histogram);
    svg.push_str("</svg>");
    svg
}

/// Two lines across, at half and at the whole of the highest bar.
fn grid(svg: &mut String, histogram: &Histogram) {
    let highest = highest(histogram);
    for n in [highest.div_ceil(2), highest] {
        let y = top_of(n, highest);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"0\" y=\"{:.1}\">{}</text>",
            y - 4.0,
            count(n)
        );
    }
}

fn bars(svg: &mut String, histogram: &Histogram) {
    let highest = highest(histogram);
    let step = 100.0 / histogram.bins.len() as f64;
    for (bin, counts) in histogram.bins.iter().enumerate() {
        let x = (bin as f64 + (1.0 - BAR) / 2.0) * step;
        // Selected ones stand at the bottom, the others on top of them.
        let middle = top_of(counts.n_selected, highest);
        let top = top_of(counts.n_ranked, highest);
        for (class, from, to) in [("subset-fill", PLOT, middle), ("pool-fill", middle, top)] {
            if from > to {
                // What is there can be seen.
                let height = (from - to).max(1.0);
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x:.2}%\" width=\"{:.2}%\" y=\"{:.1}\" height=\"{height:.1}\"/>",
                    BAR * step,
                    from - height,
                );
            }
        }
    }
}

fn axis(svg: &mut String, histogram: &Histogram) {
    let (low, high) = (f64::from(histogram.low), f64::from(histogram.high));
    let _ = write!(svg, "<line class=\"axis\" x1=\"0\" x2=\"100%\" y1=\"{PLOT}\" y2=\"{PLOT}\"/>");
    for quarter in 0..=4_u32 {
        let along = f64::from(quarter) / 4.0;
        let anchor = ["start", "middle", "middle", "middle", "end"][quarter as usize];
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{:.0}%\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            100.0 * along,
            PLOT + 20.0,
            score(low + along * (high - low)),
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"50%\" y=\"{}\" text-anchor=\"middle\">score</text>",
        PLOT + 40.0
    );
}

fn cut_line(svg: &mut String, cut: f32, histogram: &Histogram) {
    let width = f64::from(histogram.high - histogram.low);
    let along = if width > 0.0 { f64::from(cut - histogram.low) / width } else { 0.0 };
    let x = 100.0 * along.clamp(0.0, 1.0);
    let (anchor, dx) = if x > 50.0 { ("end", -6) } else { ("start", 6) };
    let _ = write!(
        svg,
        "<line class=\"cut\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"{PLOT}\"/>\
         <text class=\"cut-name\" x=\"{x:.2}%\" dx=\"{dx}\" y=\"12\" text-anchor=\"{anchor}\">lowest selected {}</text>",
        score(cut.into())
    );
}

fn highest(histogram: &Histogram) -> u64 {
    histogram.bins.iter().map(|bin| bin.n_ranked).max().unwrap_or(0).max(1)
}

/// Where on the page a bar of `n` ends.
fn top_of(n: u64, highest: u64) -> f64 {
    PLOT - (PLOT - TOP) * n as f64 / highest as f64
}

#[cfg(test)]
mod tests {
    use super::super::super::Bin;
    use super::*;

    fn scores(counts: [(u64, u64); 4], cut: f32) -> Scores {
        let bins = counts.map(|(n_ranked, n_selected)| Bin { n_ranked, n_selected }).to_vec();
        Scores { cut, quantiles: Vec::new(), histogram: Histogram { low: -0.1, high: 0.3, bins } }
    }

    #[test]
    fn bars_are_as_high_as_their_counts() {
        let svg = histogram(&scores([(10, 0), (0, 0), (5, 2), (1, 1)], 0.15));
        let bars: Vec<&str> = svg.split("<rect ").skip(1).collect();
        let height = |bar: &str| {
            bar.split("height=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
        };
        let bars: Vec<String> =
            bars.iter().map(|bar| format!("{} {}", &bar[7..13], height(bar))).collect();
        // 164 pixels are 10 examples.
        assert_eq!(bars, ["pool-f 164.0", "subset 32.8", "pool-f 49.2", "subset 16.4"]);
    }

    #[test]
    fn scores_without_a_range_still_make_a_chart() {
        let mut flat = scores([(0, 0); 4], 0.0);
        (flat.histogram.low, flat.histogram.high) = (0.0, 0.0);
        let svg = histogram(&flat);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
