//! Per-example gradients: rows a second, forward, backward and hand-over.
//!
//! On the tiny Llama of the tests, and on SmolLM2-135M where it is in the
//! cache (`scripts/model`).

#![expect(clippy::unwrap_used, reason = "a benchmark that panics says so")]

use std::path::{Path, PathBuf};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use less_select::checkpoint::LoraSettings;
use less_select::compute::{ComputeSettings, Device, Dtype};
use less_select::gradient::PerExampleGradients;
use less_select::model::LoraDecoder;
use less_select::pool::{Example, ExampleId};
use less_select::seed::Seed;
use rand_chacha::rand_core::Rng;

/// Tokens of a batch, the default of the `batch-tokens` setting.
const BATCH_TOKENS: usize = 1024;

fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

fn smollm2() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let dir = Path::new(&home).join(".cache/less-select/models/SmolLM2-135M-Instruct");
    dir.is_dir().then_some(dir)
}

/// The model with an adapter of small random weights.
fn load(dir: &Path, dtype: Dtype) -> LoraDecoder {
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj"].map(str::to_owned).to_vec();
    let lora = LoraSettings { rank: 16, alpha: 32.0, dropout: 0.0, targets };
    let compute =
        ComputeSettings { device: Device::Cpu, dtype, threads: None, batch_tokens: BATCH_TOKENS };
    let mut model = LoraDecoder::load(dir, &lora, &compute).unwrap();
    let mut rng = Seed(0).stream(&["bench", "adapter"]);
    let mut weight = || (f64::from(rng.next_u32()) / 2_f64.powi(32) - 0.5) as f32 * 0.02;
    let weights: Vec<f32> = (0..model.layout().grad_dim()).map(|_| weight()).collect();
    model.set_adapter(&weights);
    model
}

/// A full batch of rows of `n_tokens` random tokens, the second half supervised.
fn batch(n_tokens: usize, vocab_size: usize) -> Vec<Example> {
    let mut rng = Seed(0).stream(&["bench", "rows"]);
    let mut row = || {
        let token_ids: Vec<u32> =
            (0..n_tokens).map(|_| rng.next_u32() % vocab_size as u32).collect();
        let supervised: Vec<bool> = (0..n_tokens).map(|at| at >= n_tokens / 2).collect();
        Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
    };
    (0..BATCH_TOKENS / n_tokens).map(|_| row()).collect()
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, model: &mut LoraDecoder) {
    for n_tokens in [100, 160] {
        let rows = batch(n_tokens, model.config().vocab_size);
        let rows: Vec<&Example> = rows.iter().collect();
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(format!("{name}/{n_tokens}-tokens"), |bencher| {
            bencher.iter(|| {
                let mut sum = 0.0;
                model.backward(&rows, &mut |_, values| sum += values[0]).unwrap();
                sum
            });
        });
    }
}

fn gradients(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gradients");
    group.sample_size(10);
    bench(&mut group, "tiny-llama/f32", &mut load(&tiny_llama(), Dtype::F32));
    if let Some(dir) = smollm2() {
        bench(&mut group, "smollm2-135m/f32", &mut load(&dir, Dtype::F32));
        bench(&mut group, "smollm2-135m/bf16", &mut load(&dir, Dtype::Bf16));
    }
    group.finish();
}

criterion_group!(benches, gradients);
criterion_main!(benches);
