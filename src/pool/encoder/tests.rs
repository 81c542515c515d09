//! Token ids and label masks against transformers.

use proptest::prelude::*;
use serde::Deserialize;

use std::path::PathBuf;

use fs_err as fs;

use super::templates::TEMPLATE;
use super::*;
use crate::pool::{Message, Turn};

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Golden>,
}

/// A conversation; made by `scripts/goldens/tokens.py`.
#[derive(Deserialize)]
struct Golden {
    messages: Vec<Message>,
    token_ids: Vec<u32>,
    /// A `0` or `1` a token.
    supervised: String,
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

fn smollm2() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("LESS_SELECT_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("less-select")))
        .or_else(|| Some(variable("HOME")?.join(".cache/less-select")));
    cache.unwrap().join("models/SmolLM2-135M-Instruct")
}

fn turn(role: &str, content: &str) -> Turn {
    Turn::new(role, content)
}

fn conversation(turns: impl Into<Vec<Turn>>) -> Conversation {
    Conversation { turns: turns.into(), ..Conversation::default() }
}

#[track_caller]
fn check_goldens(model_dir: &Path, goldens: &str) {
    let encoder = ChatEncoder::load(model_dir, &EncodingSettings::of_model(usize::MAX)).unwrap();
    let goldens: Goldens = serde_json::from_str(goldens).unwrap();
    assert!(goldens.cases.len() >= 30);
    for Golden { messages, token_ids, supervised } in goldens.cases {
        let encoded = encoder.encode(&Conversation::from(&messages[..])).unwrap();
        let mask: String =
            encoded.supervised.iter().map(|set| if *set { '1' } else { '0' }).collect();
        assert_eq!(encoded.token_ids, token_ids, "{messages:?}");
        assert_eq!(mask, supervised, "{messages:?}");
    }
}

#[test]
fn token_ids_and_masks_are_those_of_transformers() {
    check_goldens(&tiny(), include_str!("../../../tests/goldens/tokens.json"));
}

#[test]
fn token_ids_and_masks_of_a_gguf_file_are_those_of_transformers() {
    let file = tiny().with_file_name("gguf/tokenizer-bpe.gguf");
    check_goldens(&file, include_str!("../../../tests/goldens/tokens.json"));
}

#[test]
#[ignore = "slow: needs SmolLM2 in the cache"]
fn slow_token_ids_and_masks_of_smollm2_are_those_of_transformers() {
    check_goldens(&smollm2(), include_str!("../../../tests/goldens/tokens_smollm2.json"));
}

#[test]
fn a_cut_keeps_answers_or_rejects_the_row() {
    let messages = conversation([
        turn("user", "2+2?"),
        turn("assistant", "4"),
        turn("user", "3?"),
        turn("assistant", "3"),
    ]);
    let whole = ChatEncoder::load(&tiny(), &EncodingSettings::of_model(1000))
        .unwrap()
        .encode(&messages)
        .unwrap();
    assert!(!whole.truncated);
    let first = whole.supervised.iter().position(|set| *set).unwrap();
    let cut = ChatEncoder::load(&tiny(), &EncodingSettings::of_model(first + 1))
        .unwrap()
        .encode(&messages)
        .unwrap();
    assert!(cut.truncated);
    assert_eq!(cut.token_ids, whole.token_ids[..=first]);
    assert_eq!(cut.supervised, whole.supervised[..=first]);
    let nothing = ChatEncoder::load(&tiny(), &EncodingSettings::of_model(first))
        .unwrap()
        .encode(&messages)
        .unwrap_err();
    assert_eq!(
        nothing.to_string(),
        format!(
            "the assistant's tokens begin after the first {first} of {}",
            whole.token_ids.len()
        )
    );
}

#[test]
fn the_first_token_never_carries_loss() {
    let dir = model_with("{{ messages[0].content }}");
    let encoder = ChatEncoder::load(dir.path(), &EncodingSettings::of_model(1000)).unwrap();
    let encoded = encoder.encode(&conversation([turn("assistant", "12")])).unwrap();
    assert_eq!(encoded.supervised, [false, true]);
    assert_eq!(
        encoder.encode(&conversation([turn("assistant", "1")])),
        Err(RejectReason::NoTokens)
    );
}

/// A copy of the tiny model's tokenizer with a chat template in a file of its
/// own.
fn model_with(template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in [TOKENIZER, CONFIG] {
        fs::copy(tiny().join(name), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join(TEMPLATE), template).unwrap();
    dir
}

#[test]
fn a_template_file_wins_over_the_configuration() {
    let dir = model_with("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}");
    let encoded = ChatEncoder::load(dir.path(), &EncodingSettings::of_model(99))
        .unwrap()
        .encode(&conversation([turn("assistant", "1")]))
        .unwrap();
    assert_eq!(encoded.token_ids.first(), Some(&1));
    assert_eq!(encoded.token_ids.last(), Some(&2));
    assert_eq!(encoded.supervised, [false, true, true]);
}

#[test]
fn named_templates_and_special_tokens_may_be_objects() {
    let dir = model_with("");
    fs::remove_file(dir.path().join(TEMPLATE)).unwrap();
    let config = serde_json::json!({
        "eos_token": { "content": "<|im_end|>", "special": true },
        "chat_template": [
            { "name": "tool_use", "template": "{{ raise_exception('not me') }}" },
            { "name": "default", "template": "{{ bos_token + messages[0].content + eos_token }}" },
        ],
    });
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    fs::write(dir.path().join(SPECIAL_TOKENS), r#"{"bos_token": "<|im_start|>"}"#).unwrap();
    let encoded = ChatEncoder::load(dir.path(), &EncodingSettings::of_model(99))
        .unwrap()
        .encode(&conversation([turn("assistant", "1")]))
        .unwrap();
    assert_eq!(encoded.token_ids, [1, 19, 2]);
}

#[test]
fn a_model_folder_that_lacks_something_says_what() {
    let problem = |dir: &Path| {
        let err = ChatEncoder::load(dir, &EncodingSettings::of_model(99)).unwrap_err();
        let text = format!("{err}: {}", std::error::Error::source(&err).unwrap());
        text.replace(&dir.display().to_string(), "MODEL")
    };
    let dir = model_with("{% if %}");
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/chat_template.jinja`: the chat template does not parse");
    fs::remove_file(dir.path().join(TEMPLATE)).unwrap();
    fs::write(dir.path().join(CONFIG), "{}").unwrap();
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/tokenizer_config.json`: has no `chat_template`, and there is no chat_template.jinja beside it");
    fs::write(dir.path().join(CONFIG), "{").unwrap();
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/tokenizer_config.json`: not a valid file of its kind");
    fs::remove_file(dir.path().join(CONFIG)).unwrap();
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/tokenizer_config.json`: missing; `AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)` of the Python package `transformers` writes it");
    fs::write(dir.path().join(CONFIG), "{}").unwrap();
    fs::write(dir.path().join(TOKENIZER), "{}").unwrap();
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/tokenizer.json`: the tokenizer does not load");
    fs::remove_file(dir.path().join(TOKENIZER)).unwrap();
    insta::assert_snapshot!(problem(dir.path()), @"tokenizer file `MODEL/tokenizer.json`: missing; `AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)` of the Python package `transformers` writes it");
}

#[test]
fn a_model_has_templates_of_its_own_for_tools() {
    let dir = model_with("default");
    let template = "{{ tools[0] }}{% for message in messages %}{{ message.content }}{% endfor %}";
    fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    fs::write(dir.path().join("additional_chat_templates/tool_use.jinja"), template).unwrap();
    let encoder = ChatEncoder::load(dir.path(), &EncodingSettings::of_model(99)).unwrap();
    let mut conversation = conversation([turn("user", "2"), turn("assistant", "1")]);
    conversation.variables.insert("tools".to_owned(), serde_json::json!([3]));
    let encoded = encoder.encode(&conversation).unwrap();
    assert_eq!(encoded.supervised, [false, false, true]);
    conversation.variables.clear();
    assert_eq!(encoder.encode(&conversation), Err(RejectReason::Rewritten));

    fs::remove_file(dir.path().join(TEMPLATE)).unwrap();
    let err = ChatEncoder::load(dir.path(), &EncodingSettings::of_model(99)).unwrap_err();
    let cause = std::error::Error::source(&err).unwrap();
    insta::assert_snapshot!(cause, @"has no template by the name of `default`, and there is no chat_template.jinja");
}

/// Ids and mask of a conversation under the template `name`, with a model that
/// has none and whose tokenizer puts `<|im_start|>` (1) first.
fn encoded_by(name: &str, loss_turns: LossTurns, turns: &[Turn]) -> (String, String) {
    let dir = model_with("");
    fs::remove_file(dir.path().join(TEMPLATE)).unwrap();
    let config = serde_json::json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": true,
    });
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    let chat_template = name.parse().unwrap();
    let settings = EncodingSettings { chat_template, loss_turns, max_tokens: 999 };
    let encoder = ChatEncoder::load(dir.path(), &settings).unwrap();
    let Encoded { token_ids, supervised, .. } = encoder.encode(&conversation(turns)).unwrap();
    let decode = |said: bool| {
        let ids = token_ids.iter().zip(&supervised).filter(|(_, set)| !said || **set);
        let ids: Vec<u32> = ids.map(|(id, _)| *id).collect();
        encoder.tokenizer.decode(&ids, false).unwrap()
    };
    (decode(false), decode(true))
}

#[test]
fn a_template_by_name_begins_as_the_tokenizer_does() {
    let turns = [turn("system", "S"), turn("user", "U"), turn("assistant", "A")];
    let turns = [&turns[..], &[turn("user", "V"), turn("assistant", "B")]].concat();
    let check = |name: &str, text: &str, said: &str| {
        let expected = (text.to_owned(), said.to_owned());
        assert_eq!(encoded_by(name, LossTurns::Assistant, &turns), expected, "{name}");
    };
    let eos = "<|im_end|>";
    check(
        "chatml",
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n\
         <|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n\
         <|im_start|>assistant\nB<|im_end|>\n",
        "A<|im_end|>B<|im_end|>",
    );
    check(
        "llama-2",
        &format!(
            "<|im_start|>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A {eos}<|im_start|>\
             [INST] V [/INST] B {eos}"
        ),
        " A <|im_end|> B <|im_end|>",
    );
    check(
        "tulu",
        &format!(
            "<|im_start|><|system|>\nS\n<|user|>\nU\n<|assistant|>\nA{eos}\n\
             <|user|>\nV\n<|assistant|>\nB{eos}"
        ),
        "A<|im_end|>B<|im_end|>",
    );
    check(
        "alpaca",
        &format!(
            "<|im_start|>S\n\n### Instruction:\nU\n\n### Response:\nA{eos}\n\n\
             ### Instruction:\nV\n\n### Response:\nB{eos}"
        ),
        "A<|im_end|>B<|im_end|>",
    );
    check("none", "<|im_start|>SUAVB<|im_end|>", "AB<|im_end|>");
}

#[test]
fn loss_turns_say_which_tokens_carry_loss() {
    let turns =
        [turn("user", "U"), turn("assistant", "A"), turn("user", "V"), turn("assistant", "B")];
    let said = |loss_turns| encoded_by("tulu", loss_turns, &turns).1;
    assert_eq!(said(LossTurns::Assistant), "A<|im_end|>B<|im_end|>");
    assert_eq!(said(LossTurns::LastAssistant), "B<|im_end|>");
    let (text, said) = encoded_by("tulu", LossTurns::All, &turns);
    // The token that the tokenizer puts first is never predicted.
    assert_eq!(text.strip_prefix("<|im_start|>"), Some(said.as_str()));
    // A text that is nothing but itself.
    let (text, said) = encoded_by("none", LossTurns::Assistant, &[turn("assistant", "Once")]);
    assert_eq!((text.as_str(), said.as_str()), ("<|im_start|>Once<|im_end|>", "Once<|im_end|>"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_encoded_and_masked(
        user in "\\PC{0,40}", answer in "\\PC{0,40}", max_tokens in 1..60_usize,
    ) {
        let encoder = ChatEncoder::load(&tiny(), &EncodingSettings::of_model(max_tokens)).unwrap();
        match encoder.encode(&conversation([turn("user", &user), turn("assistant", &answer)])) {
            Ok(encoded) => {
                prop_assert!(encoded.token_ids.len() <= max_tokens);
                prop_assert_eq!(encoded.token_ids.len(), encoded.supervised.len());
                prop_assert!(encoded.supervised.contains(&true));
                prop_assert!(!encoded.supervised[0]);
            }
            Err(reason) => {
                let is_too_long = matches!(reason, RejectReason::TooLong { .. });
                prop_assert!(is_too_long, "{reason}");
            }
        }
    }
}
