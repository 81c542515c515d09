//! Parity with transformers, peft and torch, against the numbers that
//! `scripts/goldens/model.py` made.

use std::num::NonZeroUsize;
use std::path::Path;

use less_select::checkpoint::{Checkpoint, LoraSettings};
use less_select::compute::Dtype;
use less_select::gradient::PerExampleGradients;
use less_select::gradient::layout::{Param, ParamLayout};
use less_select::model::LoraDecoder;
use less_select::pool::Example;
use serde::Deserialize;

use crate::goldens::{RawExample, examples, fixture, json, load, values};
use crate::toy::example;

/// Both sides sum in f32 and in another order; the bound.
pub(crate) const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Goldens {
    losses: Vec<f64>,
    params: Vec<(String, Vec<usize>)>,
    biased: Biased,
}

#[derive(Deserialize)]
struct Biased {
    example: RawExample,
    loss: f64,
}

/// The first seven rows of the pool: mixed lengths, one of two tokens.
fn pool_batch() -> Vec<Example> {
    examples().pool[..7].iter().map(RawExample::example).collect()
}

/// The tiny Llama with the adapter of the second checkpoint that peft wrote.
fn tiny_llama(dtype: Dtype) -> LoraDecoder {
    let checkpoint = Checkpoint::open(&fixture("tiny-checkpoints/epoch-2")).unwrap();
    let mut model = load(&fixture("tiny-llama"), checkpoint.lora(), dtype, Some(NonZeroUsize::MIN));
    let adapter = checkpoint.adapter(model.layout()).unwrap();
    model.set_adapter(&adapter);
    model
}

/// One loss and one whole gradient an example, in batches of `batch_size`.
pub(crate) fn gradients(
    model: &mut LoraDecoder,
    examples: &[Example],
    batch_size: usize,
) -> (Vec<f64>, Vec<Vec<f32>>) {
    let layout = model.layout().clone();
    let (mut losses, mut whole) = (Vec::new(), Vec::new());
    for batch in examples.chunks(batch_size) {
        let batch: Vec<&Example> = batch.iter().collect();
        let mut rows = vec![vec![f32::NAN; layout.grad_dim()]; batch.len()];
        let found = model
            .backward(&batch, &mut |param, values| {
                let param = &layout.params()[param];
                for (row, own) in rows.iter_mut().zip(values.chunks_exact(param.n_coordinates())) {
                    row[param.offset..][..own.len()].copy_from_slice(own);
                }
            })
            .unwrap();
        losses.extend(found.iter().map(|found| f64::from(found.loss)));
        whole.extend(rows);
    }
    (losses, whole)
}

/// Every value within the tolerance of the largest.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_close_at(largest(expected), what, found, expected);
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[track_caller]
fn assert_close_at(scale: f32, what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = f64::from((found - expected).abs() / scale);
        assert!(error <= TOLERANCE, "{what}[{at}]: {found} against {expected}");
    }
}

/// Every parameter's gradient by itself. One that is zero but for rounding (the
/// query's, where there is one token to attend to) is judged by the others.
#[track_caller]
pub(crate) fn assert_gradients_close(
    model: &str,
    layout: &ParamLayout,
    found: &[Vec<f32>],
    expected: &[f32],
) {
    let expected = expected.chunks_exact(layout.grad_dim());
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        for param in layout.params() {
            let own = param.offset..param.offset + param.n_coordinates();
            let scale = largest(&expected[own.clone()]).max(1e-3 * largest(expected));
            let what = format!("{model}: example {row}, {}", param.name);
            assert_close_at(scale, &what, &found[own.clone()], &expected[own]);
        }
    }
}

#[test]
fn lora_parameters_have_the_names_and_shapes_of_peft() {
    let expected = ParamLayout::new(json::<Goldens>("model.json").params);
    assert_eq!(tiny_llama(Dtype::F32).layout(), &expected);
}

#[test]
fn logits_with_an_adapter_equal_those_of_peft() {
    let model = tiny_llama(Dtype::F32);
    let examples = pool_batch();
    for row in [0, 2, 6] {
        let logits = model.logits(&examples[row].token_ids).concat();
        let name = format!("logits.{row}");
        assert_close(&name, &logits, &values(&name));
    }
}

#[test]
fn losses_and_gradients_equal_those_of_single_examples_in_torch() {
    let mut model = tiny_llama(Dtype::F32);
    let (examples, expected) = (pool_batch(), values("gradients"));
    for batch_size in [1, 7] {
        let (losses, found) = gradients(&mut model, &examples, batch_size);
        for (found, expected) in losses.iter().zip(json::<Goldens>("model.json").losses) {
            approx::assert_relative_eq!(*found, expected, max_relative = TOLERANCE);
        }
        assert_gradients_close("tiny-llama", model.layout(), &found, &expected);
    }
}

#[test]
fn bf16_gradients_point_the_same_way() {
    let examples = pool_batch();
    let [exact, rounded] = [Dtype::F32, Dtype::Bf16]
        .map(|dtype| gradients(&mut tiny_llama(dtype), &examples, examples.len()).1);
    for (row, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        let cosine = cosine(exact, rounded);

        assert!(cosine > 0.995, "example {row}: cosine {cosine}");
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn biases_untied_embeddings_and_bf16_shards_are_settings_of_the_same_decoder() {
    let lora =
        LoraSettings { rank: 1, alpha: 1.0, dropout: 0.0, targets: vec!["q_proj".to_owned()] };
    let mut model = load(&fixture("tiny-llama-biased"), &lora, Dtype::F32, Some(NonZeroUsize::MIN));
    let Biased { example, loss } = json::<Goldens>("model.json").biased;
    let logits = model.logits(&example.token_ids).concat();
    assert_close("biased.logits", &logits, &values("biased.logits"));
    let (losses, _) = gradients(&mut model, &[example.example()], 1);
    approx::assert_relative_eq!(losses[0], loss, max_relative = TOLERANCE);
}

/// `scripts/goldens/model.py smollm2`: one entry an example.
#[derive(Deserialize)]
struct RealGoldens {
    examples: Vec<RealGolden>,
}

#[derive(Deserialize)]
struct RealGolden {
    token_ids: Vec<u32>,
    supervised: Vec<bool>,
    loss: f64,
    last_logits: Vec<f32>,
    logit_norms: Vec<f32>,
    /// Norm and first two coordinates, by parameter.
    gradients: Vec<[f32; 3]>,
}

/// SmolLM2 with the adapter that the script made up: murmur3's finalizer of
/// the coordinate's number, spread over ±0.01.
fn smollm2(dtype: Dtype) -> LoraDecoder {
    smollm2_with(dtype, 16, &["q_proj", "k_proj", "v_proj", "o_proj"])
}

pub(crate) fn smollm2_with(dtype: Dtype, rank: usize, targets: &[&str]) -> LoraDecoder {
    let home = std::env::var("HOME").unwrap();
    let dir = Path::new(&home).join(".cache/less-select/models/SmolLM2-135M-Instruct");
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    let lora = LoraSettings { rank, alpha: 32.0, dropout: 0.0, targets };
    let mut model = load(&dir, &lora, dtype, None);
    let hashed = |n: usize| {
        let x = n as u32;
        let x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
        let x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
        ((f64::from(x ^ (x >> 16)) / 2_f64.powi(32) - 0.5) * 0.02) as f32
    };
    let weights: Vec<f32> = (0..model.layout().grad_dim()).map(hashed).collect();
    model.set_adapter(&weights);
    model
}

#[test]
#[ignore = "slow: needs SmolLM2 in the cache"]
fn slow_smollm2_computes_what_transformers_computes() {
    let mut model = smollm2(Dtype::F32);
    let goldens = json::<RealGoldens>("smollm2.json").examples;
    let examples: Vec<Example> =
        goldens.iter().map(|golden| example(&golden.token_ids, &golden.supervised)).collect();
    let (losses, gradients) = gradients(&mut model, &examples, examples.len());
    for (row, golden) in goldens.iter().enumerate() {
        let logits = model.logits(&golden.token_ids);
        let last = logits.last().unwrap();
        assert_close(&format!("logits {row}"), &last[..16], &golden.last_logits);
        let norms: Vec<f32> = logits.iter().map(|row| norm(row)).collect();
        assert_close(&format!("logit norms {row}"), &norms, &golden.logit_norms);
        approx::assert_relative_eq!(losses[row], golden.loss, max_relative = TOLERANCE);
        for (param, expected) in model.layout().params().iter().zip(&golden.gradients) {
            let own = &gradients[row][param.offset..][..param.n_coordinates()];
            let found = [norm(own), own[0], own[1]];
            assert_close(&format!("example {row}, {}", param.name), &found, expected);
        }
    }
}

#[test]
#[ignore = "slow: needs SmolLM2 in the cache"]
fn slow_smollm2_bf16_gradients_point_the_same_way() {
    let examples = pool_batch();
    let [exact, rounded] = [Dtype::F32, Dtype::Bf16]
        .map(|dtype| gradients(&mut smollm2(dtype), &examples, examples.len()).1);
    for (row, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
        let cosine = cosine(exact, rounded);
        assert!(cosine > 0.99, "example {row}: cosine {cosine}");
    }
}

fn norm(values: &[f32]) -> f32 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32
}

/// What an adapter from elsewhere on some of the modules rests on.
#[test]
fn an_adapter_of_zero_is_as_good_as_none() {
    let checkpoint = Checkpoint::open(&fixture("tiny-checkpoints/epoch-2")).unwrap();
    let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    let few = LoraSettings { targets, ..checkpoint.lora().clone() };
    let one = Some(NonZeroUsize::MIN);
    let mut smaller = load(&fixture("tiny-llama"), &few, Dtype::F32, one);
    let mut padded = tiny_llama(Dtype::F32);
    let (small, large) = (smaller.layout().clone(), padded.layout().clone());
    let whole = checkpoint.adapter(&large).unwrap();
    let (mut weights, mut with_zeros) = (Vec::new(), vec![0.0; large.grad_dim()]);
    let is_small = |param: &&Param| small.params().iter().any(|own| own.name == param.name);
    let shared: Vec<_> = large.params().iter().filter(is_small).collect();
    for param in &shared {
        let own = param.offset..param.offset + param.n_coordinates();
        weights.extend_from_slice(&whole[own.clone()]);
        with_zeros[own.clone()].copy_from_slice(&whole[own]);
    }
    smaller.set_adapter(&weights);
    padded.set_adapter(&with_zeros);
    let batch = pool_batch();
    let (_, expected) = gradients(&mut smaller, &batch, 7);
    let (_, found) = gradients(&mut padded, &batch, 7);
    for (found, expected) in found.iter().zip(&expected) {
        let own = shared.iter().flat_map(|param| &found[param.offset..][..param.n_coordinates()]);
        let own: Vec<f32> = own.copied().collect();
        assert_close("q_proj and v_proj", &own, expected);
        let n_others = found.iter().filter(|value| **value != 0.0).count();
        assert!(n_others <= own.len(), "the others are zero");
    }
}
