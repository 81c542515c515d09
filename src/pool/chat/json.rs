//! JSON as Python writes it.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// Bytes before a line, a level: the text is paid for only when it is there.
const MAX_INDENT: usize = 64;
/// Levels that are written; Python stops at its own recursion limit.
const MAX_DEPTH: usize = 128;

/// The `tojson` filter of `transformers`: what `json.dumps` writes, without the
/// escapes for HTML that Jinja's own filter adds.
#[expect(clippy::needless_pass_by_value, reason = "the form of a filter")]
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let option = |position: Option<Value>, name| match position {
        Some(value) => Ok(value),
        None => options.get::<Option<Value>>(name).map(Option::unwrap_or_default),
    };
    let (indent, separators) = (option(indent, "indent")?, option(None, "separators")?);
    let style = Style {
        ensure_ascii: option(ensure_ascii, "ensure_ascii")?.is_true(),
        sort_keys: option(None, "sort_keys")?.is_true(),
        ..Style::new(&indent, &separators)?
    };
    options.assert_all_used()?;
    let mut writer = Writer { state, style, json: String::new(), n_paid: 0 };
    writer.write(value, 0)?;
    Ok(writer.json)
}

/// The arguments of `json.dumps`.
struct Style {
    ensure_ascii: bool,
    sort_keys: bool,
    /// What begins a line, a level; `None` writes one line.
    indent: Option<String>,
    between_items: String,
    between_key_and_value: String,
}

impl Style {
    fn new(indent: &Value, separators: &Value) -> Result<Self, Error> {
        let indent = match indent.kind() {
            ValueKind::Undefined | ValueKind::None => None,
            _ => Some(indentation(indent)?),
        };
        let (between_items, between_key_and_value) = match separators.kind() {
            ValueKind::Undefined | ValueKind::None => {
                (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
            }
            _ => {
                let pair: Vec<_> = separators.try_iter()?.collect();
                let [items, keys] = &pair[..] else {
                    return Err(invalid("`separators` of `tojson` are two texts".to_owned()));
                };
                (items.to_string(), keys.to_string())
            }
        };
        Ok(Self {
            ensure_ascii: false,
            sort_keys: false,
            indent,
            between_items,
            between_key_and_value,
        })
    }
}

/// A text in the making.
struct Writer<'a> {
    state: &'a State<'a, 'a>,
    style: Style,
    json: String,
    /// Bytes of it that fuel was taken for: it may become much longer than what
    /// it is made of.
    n_paid: usize,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("`tojson` writes {MAX_DEPTH} levels at most")));
        }
        match value.kind() {
            ValueKind::None => self.json.push_str("null"),
            ValueKind::Bool => self.json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.json.push_str(&number(value)),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| (None, item));
                self.write_all(('[', ']'), items, depth)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<_> = value.try_iter()?.collect();
                if self.style.sort_keys {
                    keys.sort();
                }
                let member = |key: Value| {
                    let member = value.get_item(&key).unwrap_or_default();
                    (Some(key), member)
                };
                self.write_all(('{', '}'), keys.into_iter().map(member), depth)?;
            }
            other => return Err(invalid(format!("`tojson` has no words for {other}"))),
        }
        self.pay()
    }

    /// Takes fuel for what is new, 64 bytes for one as elsewhere.
    fn pay(&mut self) -> Result<(), Error> {
        let n_steps = (self.json.len() - self.n_paid) / 64;
        self.n_paid += 64 * n_steps;
        self.state.consume_fuel(n_steps as u64)
    }

    /// Items, each with its key if it has one, between `brackets`.
    fn write_all(
        &mut self,
        brackets: (char, char),
        items: impl Iterator<Item = (Option<Value>, Value)>,
        depth: usize,
    ) -> Result<(), Error> {
        self.json.push(brackets.0);
        let mut is_empty = true;
        for (key, item) in items {
            if !is_empty {
                self.json.push_str(&self.style.between_items);
            }
            is_empty = false;
            self.begin_line(depth + 1);
            if let Some(key) = key {
                self.write_key(&key)?;
                self.json.push_str(&self.style.between_key_and_value);
            }
            self.write(&item, depth + 1)?;
        }
        if !is_empty {
            self.begin_line(depth);
        }
        self.json.push(brackets.1);
        Ok(())
    }

    fn begin_line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.json.push('\n');
            (0..depth).for_each(|_| self.json.push_str(indent));
        }
    }

    /// A key; one that is no text as the text of its JSON.
    fn write_key(&mut self, key: &Value) -> Result<(), Error> {
        if let Some(key) = key.as_str() {
            self.write_text(key);
            return Ok(());
        }
        let start = self.json.len();
        self.write(key, MAX_DEPTH)?;
        let text = self.json.split_off(start);
        self.n_paid = self.n_paid.min(start);
        self.write_text(&text);
        Ok(())
    }

    fn write_text(&mut self, text: &str) {
        let json = &mut self.json;
        json.push('"');
        for char in text.chars() {
            match char {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                '\0'..='\u{1f}' => escape(json, char),
                '\u{7f}'.. if self.style.ensure_ascii && !char.is_ascii() => escape(json, char),
                _ => json.push(char),
            }
        }
        json.push('"');
    }
}

/// `char` as the hexadecimal digits of its UTF-16 units.
fn escape(json: &mut String, char: char) {
    let written: fmt::Result =
        char.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(json, "\\u{unit:04x}"));
    written.expect("a string takes every text");
}

/// A number as Python's `repr` has it.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => python_float(float),
        _ => value.to_string(),
    }
}

/// The shortest digits that read back as `float`; an exponent below 1e-4 and
/// from 1e16 on.
fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = float.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{float:?}");
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes one");
    let exponent: i32 = exponent.parse().expect("it is a number");
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// What begins an indented line: a text, or a number of blanks.
pub(super) fn indentation(width: &Value) -> Result<String, Error> {
    let blanks = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(width.clone()).unwrap_or(0).min(MAX_INDENT + 1)),
    };
    if blanks.len() > MAX_INDENT {
        return Err(invalid(format!("lines are indented by {MAX_INDENT} at most")));
    }
    Ok(blanks)
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let mut environment = Environment::new();
        environment.add_filter("tojson", tojson);
        assert_eq!(environment.render_str(template, ()).unwrap(), expected);
    }

    #[test]
    fn values_are_written_as_json_dumps_does() {
        check(
            r#"{{ {"b": "<a> & 'é' \\u003c \"", "a": [1, none, true, 0.5]} | tojson }}"#,
            r#"{"b": "<a> & 'é' \\u003c \"", "a": [1, null, true, 0.5]}"#,
        );
        check(
            "{{ [[], {}, -0.0, 1e16, 12345678.5, 1.5e-7] | tojson }}",
            "[[], {}, -0.0, 1e+16, 12345678.5, 1.5e-07]",
        );
        check(r#"{{ {1: "\u0001\t\u007f"} | tojson }}"#, "{\"1\": \"\\u0001\\t\u{7f}\"}");
    }

    #[test]
    fn its_arguments_are_those_of_json_dumps() {
        check(
            r#"{{ {"a": [1, {}]} | tojson(indent=4, ensure_ascii=False) }}"#,
            "{\n    \"a\": [\n        1,\n        {}\n    ]\n}",
        );
        check(
            r#"{{ {"b": 1, "a": "🦀é"} | tojson(true, sort_keys=true) }}"#,
            r#"{"a": "\ud83e\udd80\u00e9", "b": 1}"#,
        );
        check(r#"{{ {"a": [1, 2]} | tojson(separators=(",", ":")) }}"#, r#"{"a":[1,2]}"#);
        check(r#"{{ [1] | tojson(indent="--") }}"#, "[\n--1\n]");
    }
}
