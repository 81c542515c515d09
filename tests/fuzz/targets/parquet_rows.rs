//! A pool in Parquet.
#![no_main]

use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    let _ = fuzz::read_pool(&fuzz::file("pool.parquet", bytes), &[]);
});
