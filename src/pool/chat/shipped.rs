//! Templates as model families ship them, against `transformers`.

use serde::Deserialize;

use super::goldens::{self, Golden, Goldens};
use super::*;

/// A template; written by `scripts/crosscheck/templates.py`.
type Family = goldens::Family<Source, More>;

#[derive(Deserialize)]
struct Source {
    source: String,
}

/// Of a conversation. Some variants of templates for training count markup in that the
/// template writes around the assistant's words.
#[derive(Deserialize)]
struct More {
    name: String,
    /// The assistant's words.
    said: Vec<String>,
    /// Whether the template leaves them out.
    is_lost: bool,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    /// Whether the template raised it itself.
    raised: bool,
    message: String,
}

/// What is known to differ, by template and conversation, none of it in the text.
const KNOWN: [(&str, &str); 5] = [
    // Content beside a call of tools is a thought when the conversation stops there, and
    // left out when it goes on: the row is rejected.
    ("trl/gptoss", "says and calls"),
    // What the tools answered is written into the turn that called them, the token that
    // opens it by the model, and what the turn says beside the call behind it.
    ("trl/diffusion_gemma", "says and calls"),
    ("trl/diffusion_gemma", "tools"),
    ("trl/diffusion_gemma", "tools without list"),
    ("trl/diffusion_gemma", "two calls"),
];

#[test]
#[ignore = "needs what scripts/crosscheck/templates.py writes"]
fn crosscheck_templates_as_shipped_render_as_in_transformers() {
    let path = std::env::var_os("LESS_SELECT_TEMPLATES").expect("LESS_SELECT_TEMPLATES is set");
    let goldens: Goldens<Source, More> =
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    let mut differences = Vec::new();
    for family in &goldens.cases {
        let template = ChatTemplate::new(&family.source.source, family.named.clone());
        for golden in &family.conversations {
            let found = match &template {
                Ok(template) => compare(family, template, golden),
                Err(_) if golden.more.error.is_some() => None,
                Err(err) => Some(format!("does not parse: {err}")),
            };
            let is_known = KNOWN.contains(&(&*family.name, &*golden.more.name));
            if let Some(difference) = found.filter(|_| !is_known) {
                differences.push(format!("{}, {}: {difference}", family.name, golden.more.name));
            }
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// What is not as in transformers.
fn compare(family: &Family, template: &ChatTemplate, golden: &Golden<More>) -> Option<String> {
    let conversation = golden.conversation();
    let rendered = render(template, &family.special_tokens, &conversation, LossTurns::Assistant);
    match (rendered, &golden.text, &golden.more.error) {
        (Ok(rendered), Some(text), _) if rendered.text != *text => {
            Some(format!("text\n  {:?}\n  {text:?}", rendered.text))
        }
        (Ok(rendered), Some(text), _) => {
            let markup = beyond(text, golden.supervised.as_ref()?, &rendered.supervised);
            let said = |word: &str| golden.more.said.iter().any(|said| said == word);
            let is_markup = !markup.split(|char: char| !char.is_alphanumeric()).any(said);
            (!is_markup)
                .then(|| format!("says\n  {:?}\n  {:?}", rendered.supervised, golden.supervised))
        }
        (Err(RejectReason::Template(reason)), None, Some(failure)) => (failure.raised
            && reason != failure.message)
            .then(|| format!("fails with {reason:?}, not {:?}", failure.message)),
        (Err(RejectReason::Rewritten), Some(_), _) if golden.more.is_lost => None,
        (Err(reason), Some(text), _) => Some(format!("fails with `{reason}`\n  {text:?}")),
        (rendered, _, failure) => {
            let message = failure.as_ref().map(|failure| &failure.message);
            Some(format!("is {rendered:?} where there is {message:?}"))
        }
    }
}

/// What of `text` is in `expected` and not in `found`, all else blank. All of it
/// where `found` has more than blanks beyond.
fn beyond(text: &str, expected: &[(usize, usize)], found: &[Range<usize>]) -> String {
    let expected: Vec<_> = expected.iter().map(|(start, end)| *start..*end).collect();
    let has = |spans: &[Range<usize>], at: usize| spans.iter().any(|span| span.contains(&at));
    let has_more =
        |(at, char): (usize, char)| has(found, at) && !has(&expected, at) && !char.is_whitespace();
    if text.char_indices().any(has_more) {
        return text.to_owned();
    }
    let missed = |(at, char)| if has(&expected, at) && !has(found, at) { char } else { ' ' };
    text.char_indices().map(missed).collect()
}
