//! The families of decoders against transformers and peft, by the numbers that
//! `scripts/goldens/families.py` made: logits, losses and LoRA gradients of tiny
//! models, past the window and with scaled rotary positions.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use fs_err as fs;
use less_select::checkpoint::{self, BaseWeight, LogEntry, LoraSettings, TrainerState};
use less_select::compute::Dtype;
use less_select::gradient::direction::{AdamRule, Moments};
use less_select::merge::merge;
use less_select::model::base_weights::Vocabulary;
use less_select::model::weights::WeightFiles;
use less_select::model::{DecoderConfig, LoraDecoder, Prompt};
use less_select::pool::Example;
use less_select::tensor_file::{TensorFile, serialize, to_f32};
use serde::Deserialize;
use serde_json::Value;

use crate::goldens::{fixture, golden, json, load};
use crate::parity::{TOLERANCE, assert_close, assert_gradients_close, gradients};
use crate::toy::example;

const LENGTHS: [usize; 3] = [2, 23, 40];

#[derive(Deserialize)]
struct Goldens {
    families: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    name: String,
    config: Value,
    losses: Vec<f64>,
}

/// Within ±1/2, of a hash of the name and the place.
fn numbers(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let seed = name
        .bytes()
        .fold(0x811c_9dc5_u32, |seed, byte| (seed ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..n as u32).map(move |at| {
        let mut x = at.wrapping_mul(0x9e37_79b1).wrapping_add(seed);
        for (shift, factor) in [(16, 0x7feb_352d), (15, 0x846c_a68b), (16, 1)] {
            x = (x ^ (x >> shift)).wrapping_mul(factor);
        }
        (x >> 8) as f32 / (1 << 24) as f32 - 0.5
    })
}

fn weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let is_norm = shape.len() == 1 && (name.contains("norm") || name.contains(".ln_"));
    let middle = if is_norm { 1.0 } else { 0.0 };
    numbers(name, shape.iter().product()).map(|number| middle + 0.5 * number).collect()
}

#[expect(clippy::cast_sign_loss, reason = "nothing is below zero")]
pub(crate) fn rows() -> Vec<Example> {
    let row = |n: usize| {
        let token_ids: Vec<u32> = numbers(&format!("row of {n}"), n)
            .map(|number| (96.0 * (number + 0.5)) as u32)
            .collect();
        let supervised: Vec<bool> = (0..n).map(|at| at >= (n / 3).max(1)).collect();
        example(&token_ids, &supervised)
    };
    LENGTHS.map(row).to_vec()
}

fn model(dir: &Path, config: &Value) -> LoraDecoder {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let weights_of = DecoderConfig::read(dir).unwrap().weights();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = weights_of
        .into_iter()
        .map(|(name, shape)| {
            let values = weights(&name, &shape);
            (name, shape, values)
        })
        .collect();
    let borrowed =
        tensors.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    fs::write(dir.join("model.safetensors"), serialize(borrowed, "format", "pt")).unwrap();
    let mut model = load_plain(dir);
    let adapter = adapter(&model);
    model.set_adapter(&adapter);
    model
}

/// The model in a folder, its adapter zero.
fn load_plain(dir: &Path) -> LoraDecoder {
    let targets = vec!["all-linear".to_owned()];
    let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.0, targets };
    load(dir, &lora, Dtype::F32, Some(NonZeroUsize::MIN))
}

fn adapter(model: &LoraDecoder) -> Vec<f32> {
    model.layout().params().iter().flat_map(|param| weights(&param.name, &param.shape)).collect()
}

/// The adapter as a checkpoint in the folder `dir`.
fn write_checkpoint(dir: &Path, model: &LoraDecoder) {
    let zeros = vec![0.0; model.layout().grad_dim()];
    let rule = AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 1 };
    let entry =
        LogEntry { epoch: Some(1.0), learning_rate: Some(1e-4), step: 1, ..LogEntry::default() };
    let content = checkpoint::Content {
        base_model: "model",
        lora: model.lora(),
        layout: model.layout(),
        adapter: &adapter(model),
        moments: &Moments { rule, exp_avg: zeros.clone(), exp_avg_sq: zeros },
        state: &TrainerState {
            epoch: 1.0,
            global_step: 1,
            log_history: vec![entry],
            ..TrainerState::default()
        },
    };
    checkpoint::write(dir, &content).unwrap();
}

#[test]
fn families_compute_what_transformers_does() {
    let file = TensorFile::open(&golden("families.safetensors")).unwrap();
    let expected = |name: String| to_f32(&file.tensor(&name).unwrap()).unwrap();
    let rows = rows();
    for Family { name, config, losses } in json::<Goldens>("families.json").families {
        let dir = tempfile::tempdir().unwrap();
        let mut model = model(dir.path(), &config);
        let logits = model.logits(&rows[2].token_ids).concat();
        assert_close(&format!("{name}: logits"), &logits, &expected(format!("{name}.logits")));
        for batch_size in [1, 3] {
            let (found, of_rows) = gradients(&mut model, &rows, batch_size);
            for (found, expected) in found.iter().zip(&losses) {
                approx::assert_relative_eq!(found, expected, max_relative = TOLERANCE);
            }
            let expected = expected(format!("{name}.gradients"));
            assert_gradients_close(&name, model.layout(), &of_rows, &expected);
        }
    }
}

/// The likeliest tokens behind `text`, which is computed anew for each.
fn continued_slowly(model: &LoraDecoder, text: &[u32], n_tokens: usize) -> Vec<u32> {
    let mut text = text.to_vec();
    for _ in 0..n_tokens {
        let logits = model.logits(&text).pop().unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        text.push(best as u32);
    }
    text.split_off(text.len() - n_tokens)
}

#[test]
fn families_continue_texts_as_if_each_token_were_computed_anew() {
    let rows = rows();
    for Family { name, config, .. } in json::<Goldens>("families.json").families {
        let dir = tempfile::tempdir().unwrap();
        let model = model(dir.path(), &config);
        let prompts: Vec<Prompt<'_>> =
            rows.iter().map(|row| Prompt { token_ids: &row.token_ids, end: u32::MAX }).collect();
        let found = model.generate(&prompts, 5).unwrap();
        for (row, found) in rows.iter().zip(found) {
            assert_eq!(found, continued_slowly(&model, &row.token_ids, 5), "{name}");
        }
    }
}

#[test]
fn a_merged_model_computes_what_its_adapter_did() {
    let rows = rows();
    for Family { name, config, .. } in json::<Goldens>("families.json").families {
        let dir = tempfile::tempdir().unwrap();
        let [base, checkpoint, out] =
            ["base", "epoch-1", "merged"].map(|name| dir.path().join(name));
        fs::create_dir(&base).unwrap();
        let model = model(&base, &config);
        write_checkpoint(&checkpoint, &model);
        let merged = merge(&base, &checkpoint, &out).unwrap();
        assert_eq!(merged.n_merged, model.layout().params().len() / 2);
        let merged = load_plain(&out);
        let [expected, found] =
            [&model, &merged].map(|model| model.logits(&rows[2].token_ids).concat());
        assert_close(&format!("{name}: logits"), &found, &expected);
    }
}

/// Tokens that a tokenizer got before the training.
const N_NEW: usize = 5;

/// A small model of `vocab_size` tokens.
fn of_tokens(vocab_size: usize, is_tied: bool) -> Value {
    serde_json::json!({
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "tie_word_embeddings": is_tied,
    })
}

/// The vocabulary of a model with the new tokens.
fn resized(is_tied: bool) -> Vocabulary {
    let matrix = |name: &str| {
        let shape = vec![96 + N_NEW, 32];
        Some(BaseWeight { values: weights(name, &shape), shape })
    };
    let head = if is_tied { EMBEDDINGS } else { HEAD };
    Vocabulary { embeddings: matrix(EMBEDDINGS), head: matrix(head) }
}

const EMBEDDINGS: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

#[test]
fn resized_embeddings_of_a_checkpoint_are_computed_with() {
    let token_ids = [3, 96 + N_NEW as u32 - 1, 7, 96];
    for is_tied in [false, true] {
        let [small, large] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut found = model(small.path(), &of_tokens(96, is_tied));
        let expected = model(large.path(), &of_tokens(96 + N_NEW, is_tied));
        found.set_vocabulary(&resized(is_tied)).unwrap();
        assert_eq!(found.logits(&token_ids), expected.logits(&token_ids));
        found.set_vocabulary(&Vocabulary::default()).unwrap();
        assert_eq!(found.logits(&[3])[0].len(), 96);
    }
}

/// Adds weights of the base model to an adapter's file, as peft names them.
fn save_along(checkpoint: &Path, saved: &[(&str, &BaseWeight)]) {
    let path = checkpoint.join("adapter_model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let own = file.names().into_iter().map(|name| {
        let tensor = file.tensor(&name).unwrap();
        (name, tensor.shape().to_vec(), to_f32(&tensor).unwrap())
    });
    let more = saved.iter().map(|(name, weight)| {
        (format!("base_model.model.{name}"), weight.shape.clone(), weight.values.clone())
    });
    let all: Vec<_> = own.chain(more).collect();
    let borrowed = all.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
    fs::write(&path, serialize(borrowed, "format", "pt")).unwrap();
}

/// A model, its checkpoint with resized embeddings, and where it is merged to.
fn resized_checkpoint(dir: &Path, is_tied: bool, saved: &[&str]) -> (LoraDecoder, [PathBuf; 3]) {
    let paths = ["base", "epoch-1", "merged"].map(|name| dir.join(name));
    fs::create_dir(&paths[0]).unwrap();
    let mut model = model(&paths[0], &of_tokens(96, is_tied));
    write_checkpoint(&paths[1], &model);
    let vocabulary = resized(is_tied);
    let all = [(EMBEDDINGS, &vocabulary.embeddings), (HEAD, &vocabulary.head)];
    let all = all.into_iter().filter(|(name, _)| saved.contains(name));
    let all: Vec<_> = all.map(|(name, weight)| (name, weight.as_ref().unwrap())).collect();
    save_along(&paths[1], &all);
    model.set_vocabulary(&vocabulary).unwrap();
    (model, paths)
}

#[test]
fn a_merged_model_has_the_vocabulary_of_its_checkpoint() {
    let token_ids = [3, 96 + N_NEW as u32 - 1, 7, 96];
    for (is_tied, saved) in
        [(false, &[EMBEDDINGS, HEAD][..]), (true, &[EMBEDDINGS]), (true, &[HEAD])]
    {
        let dir = tempfile::tempdir().unwrap();
        let (model, [base, checkpoint, out]) = resized_checkpoint(dir.path(), is_tied, saved);
        for (folder, name) in [(&base, "tokenizer.json"), (&base, "added_tokens.json")] {
            fs::write(folder.join(name), "{\"whose\": \"the model's\"}").unwrap();
        }
        let merged = merge(&base, &checkpoint, &out).unwrap();
        let n_vocabulary = if is_tied { 1 } else { 2 };
        assert_eq!(merged.n_merged, model.layout().params().len() / 2 + n_vocabulary);
        assert_eq!(DecoderConfig::read(&out).unwrap().vocab_size, 96 + N_NEW);
        let found = load_plain(&out).logits(&token_ids).concat();
        assert_close("logits", &found, &model.logits(&token_ids).concat());
        assert!(out.join("added_tokens.json").exists());

        fs::write(checkpoint.join("tokenizer.json"), "{\"whose\": \"the checkpoint's\"}").unwrap();
        fs::remove_dir_all(&out).unwrap();
        merge(&base, &checkpoint, &out).unwrap();
        let tokenizer = fs::read_to_string(out.join("tokenizer.json")).unwrap();
        assert!(tokenizer.contains("the checkpoint's") && !out.join("added_tokens.json").exists());
    }
}

#[test]
fn embeddings_of_other_tokens_than_the_output_projection_are_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (_, [base, checkpoint, out]) = resized_checkpoint(dir.path(), false, &[EMBEDDINGS]);
    let error = merge(&base, &checkpoint, &out).unwrap_err();
    insta::assert_snapshot!(error, @"of `epoch-1` the embeddings are of 101 tokens, the output projection of 96");
    assert!(!out.exists());
}

#[test]
fn a_model_in_files_of_torch_save_is_merged_into_as_one_in_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let [torch, sharded, checkpoint] =
        ["torch", "sharded", "epoch-1"].map(|name| dir.path().join(name));
    let biased = fixture("tiny-llama-biased");
    let config = DecoderConfig::read(&biased).unwrap();
    let file = fixture("torch-files/pytorch_model.bin");
    for (folder, name) in
        [(&torch, "pytorch_model.bin"), (&sharded, "pytorch_model-00001-of-00001.bin")]
    {
        fs::create_dir(folder).unwrap();
        fs::copy(biased.join("config.json"), folder.join("config.json")).unwrap();
        fs::copy(&file, folder.join(name)).unwrap();
    }
    let names = config.weights().into_iter();
    let shard = names.map(|(name, _)| (name, "pytorch_model-00001-of-00001.bin"));
    let index = serde_json::json!({ "weight_map": shard.collect::<BTreeMap<_, _>>() });
    fs::write(sharded.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();

    write_checkpoint(&checkpoint, &load_plain(&biased));
    let expected = dir.path().join("expected");
    merge(&biased, &checkpoint, &expected).unwrap();
    for base in [&torch, &sharded] {
        let out = base.with_extension("merged");
        merge(base, &checkpoint, &out).unwrap();
        let [found, expected] =
            [&out, &expected].map(|folder| WeightFiles::open(folder, &config).unwrap());
        for (name, _) in config.weights() {
            let [found, expected] = [&found, &expected].map(|files| files.tensor(&name).0);
            assert_eq!((found.dtype, &found.shape), (expected.dtype, &expected.shape), "{name}");
            assert!(found.data.bytes() == expected.data.bytes(), "{name}");
        }
        let names = less_select::fs::entries(&out).unwrap();
        assert!(names.iter().all(|path| path.extension().is_some_and(|kind| kind != "bin")));
    }
}
