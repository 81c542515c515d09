//! A checkpoint from elsewhere: one of ours, or one of a trainer. The first byte
//! says which of its files the rest replaces.
#![no_main]

use less_select::checkpoint::{Checkpoint, checkpoints_in};
use less_select::model::DecoderConfig;
use less_select_fuzz as fuzz;

const OURS: &str = "tests/fixtures/tiny-checkpoints/epoch-1";
const TRAINERS: &str = "tests/fixtures/trainers/sft/checkpoint-3";

/// The files that are replaced, and the folder that the others are from.
const FILES: [(&str, &str); 7] = [
    (OURS, "adapter_config.json"),
    (OURS, "trainer_state.json"),
    (OURS, "adapter_model.safetensors"),
    (OURS, "optimizer.safetensors"),
    (TRAINERS, "adapter_config.json"),
    (TRAINERS, "adapter_model.safetensors"),
    (TRAINERS, "optimizer.pt"),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&which, bytes)) = bytes.split_first() else { return };
    let (folder, replaced) = FILES[usize::from(which) % FILES.len()];
    let trained = if folder == OURS { "ours" } else { "theirs" };
    for entry in fs_err::read_dir(fuzz::repository(folder)).expect("a checkpoint") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let content = fs_err::read(path).expect("a file");
        let content = if name == replaced { bytes } else { &content[..] };
        fuzz::file(&format!("{trained}/epoch-1/{name}"), content);
    }
    let Ok(checkpoints) = checkpoints_in(&fuzz::path(trained)) else { return };
    checkpoints.iter().for_each(read);
});

fn read(checkpoint: &Checkpoint) {
    let _ = (checkpoint.learning_rate(), checkpoint.step(), checkpoint.loss(), checkpoint.files());
    let _ = checkpoint.base_weights();
    let config = DecoderConfig::read(fuzz::model()).expect("the model's configuration");
    // What the pipeline does before it reads weights: plan how much there is.
    if checkpoint.lora().rank > 1 << 10 {
        return;
    }
    let Ok(layout) = config.lora_layout(checkpoint.lora()) else { return };
    let _ = checkpoint.adapter(&layout);
    let _ = checkpoint.moments(&layout);
}
