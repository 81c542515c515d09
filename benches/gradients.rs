//! Per-example gradients: rows a second, forward, backward and hand-over; and
//! their share of the speed of matrix products.
//!
//! On the tiny Llama of the tests, and on SmolLM2-135M where it is in the
//! cache (`scripts/model`). `LESS_SELECT_BENCH_BATCH_TOKENS` sets the size of a
//! batch.

#![expect(clippy::unwrap_used, reason = "a benchmark that panics says so")]
#![expect(clippy::print_stdout, reason = "a benchmark tells its figures")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group};
use less_select::checkpoint::LoraSettings;
use less_select::compute::{ComputeSettings, Dtype};
use less_select::gradient::PerExampleGradients;
use less_select::gradient::speed::{Speed, speed};
use less_select::model::LoraDecoder;
use less_select::pool::{Example, ExampleId};
use less_select::seed::Seed;
use rand_chacha::rand_core::Rng;

/// Tokens of a batch: the default of the `batch-tokens` setting on a processor, or
/// what the environment says.
fn batch_tokens() -> usize {
    let said = std::env::var("LESS_SELECT_BENCH_BATCH_TOKENS");
    said.map_or(1024, |tokens| tokens.parse().unwrap())
}

fn compute(dtype: Dtype) -> ComputeSettings {
    ComputeSettings {
        batch_tokens: NonZeroUsize::new(batch_tokens()),
        ..ComputeSettings::cpu(dtype)
    }
}

fn tiny_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

fn smollm2() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let dir = Path::new(&home).join(".cache/less-select/models/SmolLM2-135M-Instruct");
    dir.is_dir().then_some(dir)
}

/// The model with an adapter of small random weights.
fn load(dir: &Path, rank: usize, dtype: Dtype) -> LoraDecoder {
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj"].map(str::to_owned).to_vec();
    let lora = LoraSettings { rank, alpha: 2.0 * rank as f64, dropout: 0.0, targets };
    let mut model = LoraDecoder::load(dir, &lora, &compute(dtype)).unwrap();
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
    (0..batch_tokens() / n_tokens).map(|_| row()).collect()
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
    bench(&mut group, "tiny-llama/f32", &mut load(&tiny_llama(), 16, Dtype::F32));
    if let Some(dir) = smollm2() {
        bench(&mut group, "smollm2-135m/f32", &mut load(&dir, 16, Dtype::F32));
        if compute(Dtype::Auto).precision() == Dtype::Bf16 {
            bench(&mut group, "smollm2-135m/bf16", &mut load(&dir, 16, Dtype::Bf16));
        }
    }
    group.finish();
}

/// The share of the speed of matrix products, in one process, in turn.
fn share_of_peak(dir: &Path, rank: usize, dtype: Dtype) {
    let Speed { n_tokens, seconds, peak_gflops, share, .. } =
        speed(&mut load(dir, rank, dtype), &compute(dtype), 160).unwrap();
    println!(
        "rank {rank}, {dtype:?}, {n_tokens} tokens: {:.1} ms a row, {:.0} % of {peak_gflops:.0} GFLOP/s",
        1e3 * seconds,
        100.0 * share,
    );
}

fn shares() {
    let Some(dir) = smollm2() else { return };
    for rank in [16, 128] {
        share_of_peak(&dir, rank, Dtype::F32);
        if compute(Dtype::Auto).precision() == Dtype::Bf16 {
            share_of_peak(&dir, rank, Dtype::Bf16);
        }
    }
}

criterion_group!(benches, gradients);

fn main() {
    // Filters are criterion's.
    let filter = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    if filter.as_deref() != Some("share") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
    if filter.is_none_or(|filter| filter == "share") {
        shares();
    }
}
