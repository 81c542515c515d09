//! A canonical table of examples, as ingest writes it.
#![no_main]

use less_select::pool::table::ExampleTable;
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::let_panics_be_caught();
    let Ok(table) = ExampleTable::open(&fuzz::file("pool.parquet", bytes)) else { return };
    let n_rows = table.rows().len();
    let _ = table.examples(0..n_rows);
    let _ = table.examples(n_rows / 2..n_rows);
    let _ = table.records(&(0..n_rows).collect::<Vec<_>>());
});
