//! Rendering and spans against transformers, and properties of spans.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::goldens::{self, Golden, Goldens};
use super::speech::closing_bytes;
use super::*;

/// Templates of a family; made by `scripts/goldens/tokens.py`.
type Family = goldens::Family<Source, Failure>;

#[derive(Deserialize)]
struct Source {
    plain: String,
    marked: String,
}

#[derive(Deserialize)]
struct Failure {
    error: Option<String>,
}

fn families() -> Vec<Family> {
    let text = include_str!("../../../tests/goldens/tokens_templates.json");
    serde_json::from_str::<Goldens<Source, Failure>>(text).unwrap().cases
}

fn family(name: &str) -> Family {
    families().into_iter().find(|family| family.name == name).unwrap()
}

fn turn(role: &str, content: &str) -> Turn {
    Turn::new(role, content)
}

/// As [`super::render`] does, with loss on every turn of the assistant.
fn render(
    template: &ChatTemplate,
    special_tokens: &[String],
    turns: &[Turn],
) -> Result<Rendered, RejectReason> {
    let conversation = Conversation { turns: turns.to_vec(), ..Conversation::default() };
    super::render(template, special_tokens, &conversation, LossTurns::Assistant)
}

#[test]
fn templates_of_many_families_render_as_in_transformers() {
    for family in families() {
        for source in [&family.source.plain, &family.source.marked] {
            let template = ChatTemplate::new(source, family.named.clone()).unwrap();
            for golden in &family.conversations {
                check(&family, &template, golden);
            }
        }
    }
}

#[track_caller]
fn check(family: &Family, template: &ChatTemplate, golden: &Golden<Failure>) {
    let Golden { messages, text, supervised, more, .. } = golden;
    let conversation = golden.conversation();
    let rendered =
        super::render(template, &family.special_tokens, &conversation, LossTurns::Assistant);
    let place = format!("{}: {messages:?}", family.name);
    match (rendered, text, supervised) {
        (Ok(rendered), Some(text), Some(supervised)) => {
            let found: Vec<_> =
                rendered.supervised.iter().map(|span| (span.start, span.end)).collect();
            assert_eq!(&rendered.text, text, "{place}");
            assert_eq!(&found, supervised, "{place}");
        }
        (Err(RejectReason::Template(reason)), None, None) => {
            assert_eq!(Some(&reason), more.error.as_ref(), "{place}");
        }
        (rendered, ..) => panic!("{place}: {rendered:?}"),
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
    let template = ChatTemplate::new(&family.source.plain, family.named).unwrap();
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

/// Turns as Mistral writes them: tools before the last user turn, calls in place
/// of content, and no answer of a tool that nobody called.
const TOOLS: &str = "{% set ns = namespace(called=false) %}{% for message in messages %}\
    {% if message.role == 'tool' %}\
    {% if not ns.called %}{{ raise_exception('nobody called') }}{% endif %}\
    {{ '<got>' + message.content }}\
    {% elif message.role == 'user' %}\
    {% if tools and not messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list %}\
    {{ '<tools>' + tools | tojson }}{% endif %}{{ '<user>' + message.content }}\
    {% elif message.tool_calls %}{% set ns.called = true %}\
    {{ '<call>' + message.tool_calls | tojson + '<end>' }}\
    {% else %}{{ message.content + '<end>' }}{% endif %}{% endfor %}";

#[test]
fn a_call_of_tools_carries_loss_through_its_end_of_turn() {
    let template = ChatTemplate::new(TOOLS, BTreeMap::new()).unwrap();
    let special = ["<call>", "<end>", "<got>", "<tools>", "<user>"].map(str::to_owned);
    let fields = serde_json::json!({ "role": "assistant", "tool_calls": ["add"] });
    let call = Turn::of_fields(fields.as_object().unwrap().clone());
    let short = [turn("user", "a"), call, turn("tool", "4"), turn("assistant", "b")];
    let long = [&short[..], &[turn("user", "c"), turn("assistant", "d")]].concat();
    for (turns, expected) in [
        (&short[..], &[r#"<call>["add"]<end>"#, "b<end>"][..]),
        // The tools have moved behind the call.
        (&long, &[r#"<call>["add"]<end>"#, "b<end>", "d<end>"]),
    ] {
        let tools = serde_json::json!({ "tools": [1] }).as_object().unwrap().clone();
        let conversation = Conversation { turns: turns.to_vec(), variables: tools };
        let says = |loss| {
            let rendered = super::render(&template, &special, &conversation, loss).unwrap();
            let spans = rendered.supervised.into_iter();
            spans.map(|span| rendered.text[span].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(says(LossTurns::Assistant), expected);
        assert_eq!(says(LossTurns::LastAssistant), expected[expected.len() - 1..]);
        assert_eq!(says(LossTurns::All).len(), 1);
    }
}

#[test]
fn the_last_turn_may_have_several_blocks_of_its_own() {
    let source = "{% for message in messages %}{% if message.role == 'assistant' %}\
                  {% generation %}{{ message.content }}{% endgeneration %}-\
                  {% generation %}!{% endgeneration %}{% endif %}{% endfor %}";
    let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
    let turns = ["a", "b"].map(|content| turn("assistant", content));
    let conversation = Conversation { turns: turns.to_vec(), ..Conversation::default() };
    let rendered = super::render(&template, &[], &conversation, LossTurns::LastAssistant).unwrap();
    assert_eq!(rendered.text, "a-!b-!");
    assert_eq!(rendered.supervised, [3..4, 5..6]);
}

#[test]
fn a_thought_that_a_template_drops_carries_no_loss() {
    let source = "{% for message in messages %}{{ '<' + message.role + '>' }}\
                  {{ message.content.split('</think>')[-1] if not loop.last else message.content }}\
                  {{ '<end>' }}{% endfor %}";
    let template = ChatTemplate::new(source, BTreeMap::new()).unwrap();
    let turns = ["<think>x</think>a", "<think>y</think>b"].map(|said| turn("assistant", said));
    let rendered = render(&template, &["<end>".to_owned()], &turns).unwrap();
    let spans = rendered.supervised.iter().map(|span| &rendered.text[span.clone()]);
    assert_eq!(spans.collect::<Vec<_>>(), ["a<end>", "<think>y</think>b<end>"]);
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
    ) -> Vec<Turn> {
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
            let template = ChatTemplate::new(&family.source.plain, family.named).unwrap();
            let Rendered { text, supervised } =
                render(&template, &family.special_tokens, &messages).unwrap();
            let answers: Vec<_> =
                messages.iter().filter(|turn| turn.is_assistant()).map(Turn::content).collect();
            prop_assert_eq!(supervised.len(), answers.len());
            for (span, answer) in supervised.into_iter().zip(answers) {
                let said = &text[span];
                prop_assert!(said.trim_start().starts_with(answer.trim()), "{said:?} {answer:?}");
                prop_assert!(!said.contains(|char: char| char.is_ascii_uppercase()), "{said:?}");
            }
        }
    }
}
