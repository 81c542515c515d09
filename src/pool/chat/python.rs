//! The Jinja environment that `transformers` gives to chat templates:
//! `trim_blocks`, `lstrip_blocks`, loop controls, Python's methods of strings,
//! lists and dictionaries, and three helpers of its own.

use jiff::civil::Date;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, filters};

/// The day that `strftime_now` tells: the one that the templates of Llama 3.x
/// print when they are given no date. Today's would make another text, and
/// another gradient, of every row each day.
const TODAY: Date = jiff::civil::date(2024, 7, 26);

/// What a rendering may cost: this many steps, or 64 bytes of text for each. A
/// conversation of the largest size takes a tenth. A template that never ends,
/// or doubles a text until memory does, is stopped within a second.
const FUEL: u64 = 4_000_000;

/// Blanks before a line that `tojson` writes, a level: its result is paid for
/// only when it is there.
const MAX_INDENT: usize = 64;
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

fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > MAX_FORMAT {
        let reason = format!("`strftime_now` takes a format of {MAX_FORMAT} bytes at most");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    jiff::fmt::strtime::format(format, TODAY)
        .map_err(|err| Error::new(ErrorKind::InvalidOperation, err.to_string()))
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False, indent=indent)`
/// writes it. minijinja's own filter escapes four characters for HTML.
fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        let reason = "`tojson(ensure_ascii=True)` is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let n_blanks = indent.as_ref().or(options.get("indent")?).map(|n| usize::try_from(n.clone()));
    if n_blanks.is_some_and(|n| n.is_ok_and(|n| n > MAX_INDENT)) {
        let reason = format!("`tojson` indents by {MAX_INDENT} at most");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let json = filters::tojson(value, indent, options)?.to_string();
    Ok(without_html_escapes(&json))
}

fn without_html_escapes(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at..];
        let html = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')]
            .into_iter()
            .find(|(code, _)| escape.starts_with(code));
        if let Some((code, character)) = html {
            plain.push(character);
            rest = &escape[code.len()..];
        } else {
            // The escaped character too: it may be a backslash.
            let n_bytes = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
            plain.push_str(&escape[..n_bytes]);
            rest = &escape[n_bytes..];
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        assert_eq!(environment().render_str(template, ()).unwrap(), expected);
    }

    #[test]
    fn tojson_writes_what_python_does() {
        check(
            r#"{{ {"b": "<a> & 'é' \\u003c \"", "a": [1, none, true, 0.5]} | tojson }}"#,
            r#"{"b": "<a> & 'é' \\u003c \"", "a": [1, null, true, 0.5]}"#,
        );
        check(
            r#"{{ {"a": [1, {}]} | tojson(indent=4, ensure_ascii=False) }}"#,
            "{\n    \"a\": [\n        1,\n        {}\n    ]\n}",
        );
    }

    #[test]
    fn the_calendar_changes_no_row() {
        check("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024");
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
