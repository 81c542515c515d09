//! Rendering and spans against transformers, and properties of spans.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Family>,
}

/// A family of chat templates; made by `scripts/goldens/tokens.py`.
#[derive(Deserialize)]
struct Family {
    name: String,
    plain: String,
    marked: String,
    named: BTreeMap<String, String>,
    special_tokens: Vec<String>,
    conversations: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    messages: Vec<Message>,
    text: Option<String>,
    supervised: Option<Vec<(usize, usize)>>,
    error: Option<String>,
}

fn families() -> Vec<Family> {
    let text = include_str!("../../../tests/goldens/tokens_templates.json");
    serde_json::from_str::<Goldens>(text).unwrap().cases
}

fn family(name: &str) -> Family {
    families().into_iter().find(|family| family.name == name).unwrap()
}

fn turn(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

#[test]
fn templates_of_many_families_render_as_in_transformers() {
    for family in families() {
        for source in [&family.plain, &family.marked] {
            let template = ChatTemplate::new(source, family.named.clone()).unwrap();
            for Golden { messages, text, supervised, error } in &family.conversations {
                let rendered = render(&template, &family.special_tokens, messages);
                let place = format!("{}: {messages:?}", family.name);
                match (rendered, text, supervised) {
                    (Ok(rendered), Some(text), Some(supervised)) => {
                        let found: Vec<_> =
                            rendered.supervised.iter().map(|span| (span.start, span.end)).collect();
                        assert_eq!(&rendered.text, text, "{place}");
                        assert_eq!(&found, supervised, "{place}");
                    }
                    (Err(RejectReason::Template(reason)), None, None) => {
                        assert_eq!(Some(&reason), error.as_ref(), "{place}");
                    }
                    (rendered, ..) => panic!("{place}: {rendered:?}"),
                }
            }
        }
    }
}

#[test]
fn a_template_that_rewrites_answers_is_a_reason_to_reject() {
    let shout = "{% for message in messages %}{{ message.content | upper }}{% endfor %}";
    let template = ChatTemplate::new(shout, BTreeMap::new()).unwrap();
    // Capitals of capitals keep the marks, so this one can be told.
    let loud = [turn("user", "hi"), turn("assistant", "ho")];
    assert_eq!(render(&template, &[], &loud).unwrap().supervised, std::slice::from_ref(&(2..4)));

    let stammer = "{% for message in messages %}{{ message.content * 2 }}{% endfor %}";
    let template = ChatTemplate::new(stammer, BTreeMap::new()).unwrap();
    assert_eq!(render(&template, &[], &loud), Err(RejectReason::Rewritten));
    let forgetful = "{{ messages[0].content }}";
    let template = ChatTemplate::new(forgetful, BTreeMap::new()).unwrap();
    assert_eq!(render(&template, &[], &loud), Err(RejectReason::Rewritten));
}

#[test]
fn a_conversation_without_an_answer_is_a_reason_to_reject() {
    let family = family("qwen-2.5");
    let template = ChatTemplate::new(&family.plain, family.named).unwrap();
    let messages = [turn("system", "Be."), turn("user", "Hi")];
    assert_eq!(render(&template, &[], &messages), Err(RejectReason::NoAssistant));
}

#[test]
fn the_end_of_turn_is_what_the_template_writes_when_it_stops_there() {
    // No end of turn behind the last answer, and a separator between turns.
    let source = "{% for message in messages %}{{ message.content }}\
                  {% if not loop.last %}{{ '<sep>' }}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
    let messages =
        [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")];
    let rendered = render(&template, &["<sep>".to_owned()], &messages).unwrap();
    assert_eq!(rendered.text, "a<sep>b<sep>c<sep>d");
    assert_eq!(rendered.supervised, [6..7, 18..19]);
}

#[test]
fn the_earliest_and_then_longest_special_token_closes_a_turn() {
    let special = ["<|im_end|>", "<|im_end|>x", "</s>"].map(str::to_owned);
    assert_eq!(closing_bytes(" <|im_end|>\n</s>", &special), 11);
    assert_eq!(closing_bytes("<|im_end|>x", &special), 11);
    assert_eq!(closing_bytes(" ###\n\n", &special), 4);
    assert_eq!(closing_bytes("\n", &special), 0);
}

prop_compose! {
    /// Users write capitals and assistants small letters, with blanks and line
    /// ends around both.
    fn alternating()(
        contents in prop::collection::vec(("[A-Z\n ]{0,12}", "[a-z\n ]{0,12}"), 1..4),
    ) -> Vec<Message> {
        contents
            .iter()
            .flat_map(|(user, assistant)| [turn("user", user), turn("assistant", assistant)])
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spans_cover_every_answer_and_nothing_of_the_user(messages in alternating()) {
        for family in families() {
            let template = ChatTemplate::new(&family.plain, family.named).unwrap();
            let Rendered { text, supervised } =
                render(&template, &family.special_tokens, &messages).unwrap();
            let answers: Vec<_> =
                messages.iter().filter(|turn| is_assistant(turn)).map(|turn| &turn.content).collect();
            prop_assert_eq!(supervised.len(), answers.len());
            for (span, answer) in supervised.into_iter().zip(answers) {
                let said = &text[span];
                prop_assert!(said.trim_start().starts_with(answer.trim()), "{said:?} {answer:?}");
                prop_assert!(!said.contains(|char: char| char.is_ascii_uppercase()), "{said:?}");
            }
        }
    }
}
