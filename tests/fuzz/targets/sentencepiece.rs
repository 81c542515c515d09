//! A model's tokenizer.model, where there is no tokenizer.json, under a class of
//! tokenizer that its length decides.
#![no_main]

use less_select::pool::{ChatEncoder, Conversation, EncodingSettings, Turn};
use less_select_fuzz as fuzz;

const CONFIGS: [&[u8]; 3] = [
    br#"{"tokenizer_class": "LlamaTokenizer", "legacy": true}"#,
    br#"{"tokenizer_class": "GemmaTokenizer"}"#,
    br#"{"added_tokens_decoder": {"3": {"content": "<new>", "special": true}}}"#,
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    let turns = vec![
        Turn::new("user", "What\u{3000}is \u{fb01}ve\u{2010}+ 1?<s>"),
        Turn::new("assistant", "caf\u{e9} \u{1f980}<new> 2\n"),
    ];
    let conversation = Conversation { turns, ..Conversation::default() };
    let chat_template = "chatml".parse().expect("it is a name");
    let settings = EncodingSettings { chat_template, ..EncodingSettings::of_model(256) };
    // One of the classes by chance, for a third of the time.
    let config = CONFIGS[bytes.len() % CONFIGS.len()];
    fuzz::file("sentencepiece/tokenizer_config.json", config);
    fuzz::file("sentencepiece/tokenizer.model", bytes);
    let Ok(encoder) = ChatEncoder::load(&fuzz::path("sentencepiece"), &settings) else { return };
    if let Ok(encoded) = encoder.encode(&conversation) {
        assert_eq!(encoded.token_ids.len(), encoded.supervised.len());
        assert!(!encoded.supervised[0] && encoded.supervised.contains(&true));
    }
});
