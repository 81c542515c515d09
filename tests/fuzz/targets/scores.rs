//! Tables of scores, and of what the first pass finds.
#![no_main]

use less_select::cascade::Similarities;
use less_select::first_pass::losses::Losses;
use less_select::influence::scores::ScoreTable;
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    let path = fuzz::file("scores.parquet", bytes);
    let _ = ScoreTable::read(&path);
    let _ = Similarities::read(&path);
    let _ = Losses::read(&path);
});
