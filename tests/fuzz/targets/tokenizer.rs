//! A model's tokenizer.json.
#![no_main]

use less_select::pool::{ChatEncoder, Conversation, EncodingSettings, Turn};
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    fuzz::model();
    fuzz::file("model/tokenizer.json", bytes);
    let Ok(encoder) = ChatEncoder::load(fuzz::model(), &EncodingSettings::of_model(256)) else {
        return;
    };
    let turns = vec![Turn::new("user", "What is 1 + 1?"), Turn::new("assistant", "caf\u{e9} 2\n")];
    let _ = encoder.encode(&Conversation { turns, ..Conversation::default() });
});
