//! The index of a model's weights in several files.
#![no_main]

use less_select::model::DecoderConfig;
use less_select::model::weights::WeightFiles;
use less_select_fuzz as fuzz;

const SHARDED: &str = "tests/fixtures/tiny-llama-biased";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let folder = fuzz::path("sharded");
    if !folder.exists() {
        for entry in fs_err::read_dir(fuzz::repository(SHARDED)).expect("a model") {
            let path = entry.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            fuzz::file(&format!("sharded/{name}"), &fs_err::read(&path).expect("a file"));
        }
    }
    fuzz::file("sharded/model.safetensors.index.json", bytes);
    let config = DecoderConfig::read(&folder).expect("the model's configuration");
    let _ = WeightFiles::open(&folder, &config);
});
