//! A model's tokenizer.json.
#![no_main]

use less_select::pool::{ChatEncoder, Message};
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    fuzz::model();
    fuzz::file("model/tokenizer.json", bytes);
    let Ok(encoder) = ChatEncoder::load(fuzz::model(), 256) else { return };
    let turn =
        |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let _ = encoder.encode(&[turn("user", "What is 1 + 1?"), turn("assistant", "caf\u{e9} 2\n")]);
});
