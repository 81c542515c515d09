//! A model's config.json.
#![no_main]

use less_select::model::DecoderConfig;
use less_select::model::weights::WeightFiles;
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::model();
    fuzz::file("model/config.json", bytes);
    let Ok(config) = DecoderConfig::read(fuzz::model()) else { return };
    let _ = config.n_parameters();
    let _ = WeightFiles::open(fuzz::model(), &config);
});
