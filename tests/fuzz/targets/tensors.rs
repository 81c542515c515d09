//! A safetensors file.
#![no_main]

use less_select::tensor_file::{TensorFile, to_f32};
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = TensorFile::open(&fuzz::file("x.safetensors", bytes)) else { return };
    for name in file.names() {
        let tensor = file.tensor(&name).expect("a tensor that is listed is there");
        if let Some(values) = to_f32(&tensor) {
            assert_eq!(values.len(), tensor.shape().iter().product::<usize>());
        }
    }
    let _ = file.metadata("adam");
});
