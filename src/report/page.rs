//! `report.html`: one page that needs nothing else.

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, HtmlEscape, UndefinedBehavior, context};

use super::quote::one_line;
use super::{Summary, chart, numbers};

/// The page; `.html` in its name turns on escaping.
const TEMPLATE: &str = "report.html";

/// Characters of a name, a setting or a sentence that the page shows.
const LINE_CHARS: usize = 400;

/// Renders the page. Everything a row, a source or a setting says is escaped.
pub(super) fn render(summary: &Summary) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    add_filters(&mut environment);
    environment.add_template(TEMPLATE, include_str!("page.html"))?;
    environment.get_template(TEMPLATE)?.render(context! {
        summary => Value::from(Serde(summary)),
        method_chooses => summary.run.method.chooses(),
        method_source => summary.run.method.source(),
        method_score => summary.run.method.score(),
        settings => settings(&summary.run.settings),
        largest_source => largest(summary.sources.iter().flat_map(|source| [source.pool_share, source.subset_share])),
        largest_subtask => largest(summary.subtasks.iter().flat_map(|subtask| [subtask.ranked_share, subtask.subset_share])),
        histogram => Value::from_safe_string(chart::histogram(&summary.scores)),
    })
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
    environment.add_function("pair", |kwargs: Kwargs| -> Result<Value, Error> {
        let pair = chart::pair(kwargs.get("pool")?, kwargs.get("subset")?, kwargs.get("largest")?);
        kwargs.assert_all_used()?;
        Ok(Value::from_safe_string(pair))
    });
}

/// `name`, escaped, that may end a line after `/` and `_`.
fn breakable(name: &str) -> String {
    name.split_inclusive(['/', '_'])
        .map(|part| HtmlEscape(part).to_string())
        .collect::<Vec<_>>()
        .join("<wbr>")
}

/// The share that fills a bar of a table.
fn largest(shares: impl Iterator<Item = f64>) -> f64 {
    shares.fold(0.0, f64::max)
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
