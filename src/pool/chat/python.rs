//! The Jinja environment that `transformers` gives to chat templates:
//! `trim_blocks`, `lstrip_blocks`, loop controls, Python's methods of strings,
//! lists and dictionaries, and helpers of its own. Where minijinja's
//! filters and tests differ from Jinja's, these are Jinja's.

use jiff::civil::Date;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::json::{indentation, tojson};

/// The day that `strftime_now` tells: the one that the templates of Llama 3.x
/// print when they are given no date. Today's would make another text, and
/// another gradient, of every row each day.
const TODAY: Date = jiff::civil::date(2024, 7, 26);

/// What a rendering may cost: this many steps, or 64 bytes of text for each. A
/// conversation of the largest size takes a tenth. A template that never ends,
/// or doubles a text until memory does, is stopped within a second.
const FUEL: u64 = 4_000_000;

/// Longest format of `strftime_now`, whose directives may ask for width.
const MAX_FORMAT: usize = 256;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .expect("the standard delimiters are valid");
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_filter("indent", indent);
    environment.add_test("iterable", is_iterable);
    environment
}

/// What `err` says, without where in the template: for errors that a template
/// raises itself, its own words.
pub(super) fn message(err: &Error) -> String {
    if err.kind() == ErrorKind::OutOfFuel {
        return format!("it does not end within {FUEL} steps");
    }
    err.detail().map_or_else(|| err.to_string(), str::to_owned)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// None is not iterable in Python, what is undefined is; minijinja finds no item
/// in either.
fn is_iterable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Undefined
            | ValueKind::String
            | ValueKind::Seq
            | ValueKind::Iterable
            | ValueKind::Map
    )
}

/// Jinja's `indent`, which keeps the line end that a text ends with.
#[expect(clippy::needless_pass_by_value, reason = "the form of a filter")]
fn indent(
    state: &State<'_, '_>,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.or(options.get("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let blanks = indentation(&width)?;
    // Paid before it is there: it may be as many times as long.
    let n_lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    state.consume_fuel((n_lines * blanks.len() / 64) as u64)?;
    let mut indented = String::with_capacity(text.len());
    for (line_idx, line) in text.split('\n').enumerate() {
        if line_idx > 0 {
            indented.push('\n');
        }
        let is_indented = if line_idx == 0 { first } else { blank || !line.is_empty() };
        if is_indented {
            indented.push_str(&blanks);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > MAX_FORMAT {
        let reason = format!("`strftime_now` takes a format of {MAX_FORMAT} bytes at most");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    jiff::fmt::strtime::format(format, TODAY)
        .map_err(|err| Error::new(ErrorKind::InvalidOperation, err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        assert_eq!(environment().render_str(template, ()).unwrap(), expected);
    }

    #[test]
    fn the_calendar_changes_no_row() {
        check("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024");
    }

    #[test]
    fn filters_and_tests_are_those_of_jinja() {
        check(r"{{ 'a\n\nb\n' | indent(2, first=true) }}|", "  a\n\n  b\n|");
        check(r"{{ 'a\nb' | indent('> ', true, blank=true) }}", "> a\n> b");
        check(
            "{{ none is iterable }} {{ x is iterable }} {{ 'a' is iterable }} {{ [] is iterable }}",
            "False True True True",
        );
    }

    #[test]
    fn a_raised_exception_speaks_for_itself() {
        let err = environment()
            .render_str("{{ raise_exception('roles must alternate') }}", ())
            .unwrap_err();
        assert_eq!(message(&err), "roles must alternate");
    }

    #[test]
    fn blocks_leave_no_blanks_and_strings_have_python_methods() {
        check("a\n  {% if true %}\n b{{ ' x '.strip() }}\n  {% endif %}\nc", "a\n bx\nc");
        check(
            "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "01",
        );
        check("{{ 'a</think>b'.split('</think>')[-1] }}", "b");
    }
}
