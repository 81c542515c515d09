//! A pool of JSON: a row a line, or an array of rows.
#![no_main]

use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = fuzz::read_pool(&fuzz::file("pool.jsonl", bytes), &[]);
});
