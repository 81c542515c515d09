//! A checkpoint from elsewhere. The first byte says which of its files the rest
//! replaces.
#![no_main]

use less_select::checkpoint::{Checkpoint, checkpoints_in};
use less_select::model::DecoderConfig;
use less_select_fuzz as fuzz;

const FILES: [&str; 4] = [
    "adapter_config.json",
    "trainer_state.json",
    "adapter_model.safetensors",
    "optimizer.safetensors",
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    for name in FILES {
        let good = fuzz::repository("tests/fixtures/tiny-checkpoints/epoch-1").join(name);
        let content = fs_err::read(good).expect("a checkpoint");
        let is_replaced = FILES[usize::from(which) % FILES.len()] == name;
        fuzz::file(&format!("trained/epoch-1/{name}"), if is_replaced { bytes } else { &content });
    }
    let Ok(checkpoints) = checkpoints_in(&fuzz::path("trained")) else { return };
    checkpoints.iter().for_each(read);
});

fn read(checkpoint: &Checkpoint) {
    let _ = (checkpoint.learning_rate(), checkpoint.step(), checkpoint.loss(), checkpoint.files());
    let config = DecoderConfig::read(fuzz::model()).expect("the model's configuration");
    // What the pipeline does before it reads weights: plan how much there is.
    if checkpoint.lora().rank > 1 << 10 {
        return;
    }
    let Ok(layout) = config.lora_layout(checkpoint.lora()) else { return };
    let _ = checkpoint.adapter(&layout);
    let _ = checkpoint.moments(&layout);
}
