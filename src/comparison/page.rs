//! `compare.html`: a comparison as one page that needs nothing else.

use std::fmt::Write;

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, context};

use super::text::{
    PAST, PAST_SELECTION, composition, costs, has_past_selection, overlaps, overview, sources,
};
use super::{Comparison, Pair, SideFacts};

/// The page; `.html` in its name turns on escaping.
const TEMPLATE: &str = "compare.html";

/// The style of all pages.
const STYLE: &str = include_str!("../report/page/style.css");

/// Sources that have a color of their own; the others share the last one.
const N_COLORS: usize = 7;

/// Size of a pair's plot, in pixels.
const WIDTH: f64 = 220.0;
const HEIGHT: f64 = 110.0;

/// Renders the page. Whatever a path or a source says is escaped.
///
/// # Errors
///
/// If the template fails.
pub fn page(comparison: &Comparison) -> Result<String, Error> {
    let Comparison { sides, pairs } = comparison;
    let plots: Vec<_> = pairs.iter().filter(|pair| !pair.overlaps.is_empty()).collect();
    let plots = plots.iter().map(|pair| {
        let plot = Value::from_safe_string(plot(pair));
        context! { names => pair.names.join(" · "), plot }
    });
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template(TEMPLATE, include_str!("page.html"))?;
    environment.get_template(TEMPLATE)?.render(context! {
        style => Value::from_safe_string(STYLE.to_owned()),
        version => env!("CARGO_PKG_VERSION"),
        names => sides.iter().map(|side| side.name.clone()).collect::<Vec<_>>(),
        overview => overview(sides),
        overlaps => overlaps(pairs),
        past => has_past_selection(pairs).then(|| format!("{PAST} {PAST_SELECTION}")),
        plots => plots.collect::<Vec<_>>(),
        incomparable => Value::from(Serde(pairs.iter().filter(|pair| pair.n_common == 0).collect::<Vec<_>>())),
        composition => composition(sides),
        bars => bars(sides),
        legend => sources(sides).into_iter().take(N_COLORS).collect::<Vec<_>>(),
        costs => if sides.iter().any(|side| !side.stages.is_empty()) { costs(sides) } else { Vec::new() },
    })
}

/// What both have of the rows that either takes first, against the share of the rows that
/// these are. The broken line is what chance would give; points past a selection are
/// hollow.
fn plot(pair: &Pair) -> String {
    let largest = pair.overlaps.iter().filter_map(|overlap| overlap.budget).fold(0.0, f64::max);
    let x = |budget: f64| WIDTH * budget / largest;
    let y = |shared: f64| HEIGHT * (1.0 - shared);
    let mut points = String::new();
    let mut dots = String::new();
    for overlap in &pair.overlaps {
        let shared = overlap.n_shared as f64 / overlap.n_rows[0].max(1) as f64;
        let (x, y) = (x(overlap.budget.unwrap_or(0.0)), y(shared));
        let _ = write!(points, "{x:.1},{y:.1} ");
        let (class, told) = if overlap.is_past_selection() {
            ("past", format!("; {PAST_SELECTION}"))
        } else {
            ("subset-fill", String::new())
        };
        let _ = write!(
            dots,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{:.0} % of the rows: {:.0} % shared{told}</title></circle>",
            100.0 * overlap.budget.unwrap_or(0.0),
            100.0 * shared,
        );
    }
    format!(
        "<svg role=\"img\" aria-label=\"Shared rows by budget\" width=\"{:.0}\" height=\"{:.0}\" viewBox=\"-34 -8 {:.0} {:.0}\">\
         <line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"0\" y2=\"0\"/>\
         <line class=\"grid\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{half}\" y2=\"{half}\"/>\
         <line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/>\
         <text class=\"tick\" x=\"-6\" y=\"4\" text-anchor=\"end\">100%</text>\
         <text class=\"tick\" x=\"-6\" y=\"{HEIGHT}\" text-anchor=\"end\">0</text>\
         <line class=\"cut\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{:.1}\"/>\
         <polyline class=\"curve\" points=\"{}\"/>{dots}\
         <text class=\"tick\" x=\"0\" y=\"{below}\">budget 0</text>\
         <text class=\"tick\" x=\"{WIDTH}\" y=\"{below}\" text-anchor=\"end\">{:.0}%</text></svg>",
        WIDTH + 44.0,
        HEIGHT + 34.0,
        WIDTH + 44.0,
        HEIGHT + 34.0,
        y(largest),
        points.trim_end(),
        100.0 * largest,
        half = HEIGHT / 2.0,
        below = HEIGHT + 18.0,
    )
}

/// A bar a side, a part a source: class of its color, where it begins and ends in
/// percent, and what to say of it.
fn bars(sides: &[SideFacts]) -> Vec<Value> {
    let names = sources(sides);
    let parts = |side: &SideFacts| {
        let mut start = 0.0;
        let part = |(at, name): (usize, &String)| {
            let share = side.sources.iter().find(|part| part.source == *name)?.share;
            let from = start;
            start += 100.0 * share;
            let title = format!("{name}: {:.1} %", 100.0 * share);
            Some(context! {
                color => at.min(N_COLORS), x => format!("{from:.2}"), title,
                width => format!("{:.2}", 100.0 * share),
            })
        };
        names.iter().enumerate().filter_map(part).collect::<Vec<_>>()
    };
    sides.iter().map(|side| context! { name => side.name.clone(), parts => parts(side) }).collect()
}
