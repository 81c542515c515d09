//! A GGUF file, and the model in it.
#![no_main]

use less_select::gguf::Gguf;
use less_select::model::DecoderConfig;
use less_select::model::weights::WeightFiles;
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = fuzz::file("x.gguf", bytes);
    let Ok(file) = Gguf::open(&path) else { return };
    for tensor in file.tensors().values() {
        let values = file.unpack(tensor);
        assert_eq!(values.len(), tensor.shape.iter().product::<usize>());
    }
    let Ok(config) = DecoderConfig::read(&path) else { return };
    let Ok(weights) = WeightFiles::open(&path, &config) else { return };
    for (name, shape) in config.weights() {
        assert_eq!(weights.tensor(&name).0.data.bytes().len(), 4 * shape.iter().product::<usize>());
    }
});
