//! `report.html`: one page that needs nothing else.

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, HtmlEscape, UndefinedBehavior, context};
use serde::Serialize;

use super::quote::one_line;
use super::{Quote, Summary, chart, heat, numbers};

/// The page, and what it is put together from.
const TEMPLATE: &str = "page.html";
const PARTS: [(&str, &str); 10] = [
    (TEMPLATE, include_str!("page/page.html")),
    ("style.css", include_str!("page/style.css")),
    ("composition.html", include_str!("page/composition.html")),
    ("scores.html", include_str!("page/scores.html")),
    ("subtasks.html", include_str!("page/subtasks.html")),
    ("length.html", include_str!("page/length.html")),
    ("diagnostics.html", include_str!("page/diagnostics.html")),
    ("rows.html", include_str!("page/rows.html")),
    ("rows.js", include_str!("page/rows.js")),
    ("run.html", include_str!("page/run.html")),
];

/// Characters of a name, a setting or a sentence that the page shows.
const LINE_CHARS: usize = 400;

/// Examples of each list that are on the page without its script.
const N_STATIC: usize = 10;

/// An example as the page shows it.
#[derive(Clone, Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    quote: &'a Quote,
    /// Its numbers in words.
    facts: Vec<String>,
}

/// Renders the page. Everything a row, a source or a setting says is escaped.
pub(super) fn render(summary: &Summary) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    add_filters(&mut environment);
    add_charts(&mut environment);
    for (name, part) in PARTS {
        environment.add_template(name, part)?;
    }
    let Summary { best, last_in, below_cut, .. } = summary;
    let all = || best.iter().chain(last_in).chain(below_cut);
    let listed: Vec<Listed<'_>> = all().map(Listed::of).collect();
    let few = |quotes: &[Quote]| -> Value {
        let few: Vec<_> = quotes.iter().take(N_STATIC).map(Listed::of).collect();
        Value::from(Serde(few))
    };
    let sources = summary.sources.iter().flat_map(|share| [share.pool_share, share.subset_share]);
    let subtasks =
        summary.subtasks.iter().flat_map(|share| [share.ranked_share, share.subset_share]);
    environment.get_template(TEMPLATE)?.render(context! {
        summary => Value::from(Serde(summary)),
        method_chooses => summary.run.method.chooses(),
        method_source => summary.run.method.source(),
        method_score => summary.run.method.score(),
        settings => settings(&summary.run.settings),
        largest_source => largest(sources),
        largest_subtask => largest(subtasks),
        slowest => largest(summary.run.stages.iter().map(|stage| stage.seconds)),
        histogram => Value::from_safe_string(chart::histogram(&summary.scores)),
        length_chart => Value::from_safe_string(chart::lengths(&summary.length_grid, summary.scores.cut)),
        length_axis => Value::from_safe_string(chart::lengths_axis(&summary.length_grid)),
        n_listed => listed.len(),
        listed_json => Value::from_safe_string(script_json(&listed)),
        best => few(best),
        below_cut => few(below_cut),
    })
}

impl<'a> Listed<'a> {
    fn of(quote: &'a Quote) -> Self {
        let Quote { score, source, subtask, n_tokens, n_supervised, loss, norm, .. } = quote;
        let fixed =
            |value: f32| numbers::fixed(Some(value.into()).filter(|v: &f64| v.is_finite()), 2);
        let facts = vec![
            format!("score {}", numbers::score(f64::from(*score))),
            source.clone(),
            subtask.clone(),
            format!(
                "{} of {} tokens supervised",
                numbers::count((*n_supervised).into()),
                numbers::count((*n_tokens).into())
            ),
            format!("loss {}", fixed(*loss)),
            format!("norm {}", fixed(*norm)),
        ];
        Self { quote, facts }
    }
}

/// JSON that may stand in a `script` element: nothing in it ends that or begins a
/// comment.
fn script_json(rows: &[Listed<'_>]) -> String {
    let json = serde_json::to_string(rows).expect("plain JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn add_filters(environment: &mut Environment<'_>) {
    environment.add_filter("count", |n: u64| numbers::count(n));
    environment.add_filter("percent", numbers::percent);
    environment.add_filter("score", numbers::score);
    environment.add_filter("signed", numbers::signed);
    environment.add_filter("lift", numbers::lift);
    environment.add_filter("seconds", numbers::seconds);
    environment.add_filter("fixed", numbers::fixed);
    environment.add_filter("line", |text: &str| one_line(text, LINE_CHARS));
    environment.add_filter("name", |name: &str| Value::from_safe_string(breakable(name)));
}

fn add_charts(environment: &mut Environment<'_>) {
    environment.add_function("pair", |kwargs: Kwargs| -> Result<Value, Error> {
        let pair = chart::pair(kwargs.get("pool")?, kwargs.get("subset")?, kwargs.get("largest")?);
        kwargs.assert_all_used()?;
        Ok(Value::from_safe_string(pair))
    });
    environment.add_function("bar", |kwargs: Kwargs| -> Result<Value, Error> {
        let bar = chart::bar(kwargs.get("value")?, kwargs.get("largest")?);
        kwargs.assert_all_used()?;
        Ok(Value::from_safe_string(bar))
    });
    environment.add_function("overlap", |kwargs: Kwargs| -> Result<Value, Error> {
        let (low, mean, high) = (kwargs.get("low")?, kwargs.get("mean")?, kwargs.get("high")?);
        let svg = chart::overlap(low, mean, high, kwargs.get("chance")?);
        kwargs.assert_all_used()?;
        Ok(Value::from_safe_string(svg))
    });
    environment.add_function("heat", |kwargs: Kwargs| -> Result<Value, Error> {
        let cell = heat::cell(
            kwargs.get("n_ranked")?,
            kwargs.get("mean")?,
            kwargs.get("n_selected")?,
            kwargs.get("largest")?,
        );
        kwargs.assert_all_used()?;
        Ok(Value::from_safe_string(cell))
    });
}

/// `name`, escaped, that may end a line after `/` and `_`.
fn breakable(name: &str) -> String {
    name.split_inclusive(['/', '_'])
        .map(|part| HtmlEscape(part).to_string())
        .collect::<Vec<_>>()
        .join("<wbr>")
}

/// What fills a bar of a table.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// Settings as lines of a table: `lora.rank` and its value.
fn settings(table: &serde_json::Map<String, serde_json::Value>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (name, value) in table {
        match value {
            serde_json::Value::Object(inner) => lines.extend(
                settings(inner).into_iter().map(|(rest, value)| (format!("{name}.{rest}"), value)),
            ),
            serde_json::Value::String(text) => lines.push((name.clone(), text.clone())),
            other => lines.push((name.clone(), other.to_string())),
        }
    }
    lines
}
