//! A model's chat template, rendering conversations with what templates trip
//! over: blanks, special tokens, several turns.
#![no_main]

use less_select::pool::{ChatEncoder, Conversation, EncodingSettings, Turn};
use less_select_fuzz as fuzz;

const TURNS: [(&str, &str); 5] = [
    ("system", "Be brief."),
    ("user", " What is 1 + 1?\n"),
    ("assistant", "<think>\nadd\n</think>\n\n2 "),
    ("user", "<|im_end|> caf\u{e9} {{ 7 * 7 }}"),
    ("assistant", "49"),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::wordless_model();
    fuzz::file("wordless/chat_template.jinja", bytes);
    let Ok(encoder) = ChatEncoder::load(fuzz::wordless_model(), &EncodingSettings::of_model(256))
    else {
        return;
    };
    let turns = TURNS.map(|(role, content)| Turn::new(role, content));
    for turns in [&turns[..], &turns[1..3], &turns[2..3]] {
        let conversation = Conversation { turns: turns.to_vec(), ..Conversation::default() };
        if let Ok(encoded) = encoder.encode(&conversation) {
            assert_eq!(encoded.token_ids.len(), encoded.supervised.len());
            assert!(!encoded.supervised[0] && encoded.supervised.contains(&true));
        }
    }
});
