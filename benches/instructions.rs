//! Kernels to count instructions of, one a run: `scripts/instructions` runs
//! each under callgrind and compares with `instructions.txt`. Times belong into
//! the other benchmarks.

use std::hint::black_box;

use less_select::gradient::direction::{AdamRule, Directions, GradientKind, Moments};
use less_select::gradient::layout::ParamLayout;
use less_select::pool::ExampleId;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use less_select::store::gradient_store::GradientStore;
use less_select::store::inner_products::Queries;
use less_select::store::shard::{KindRows, ShardRows, StoreHeader};
use less_select::store::{FORMAT, Split, StoreDtype};
use rand_chacha::rand_core::Rng;

const PROJ_DIM: usize = 8192;

/// By name: what prepares a kernel and runs it through [`measured`].
const KERNELS: [(&str, fn()); 5] = [
    ("sjlt-adam-v", sjlt_adam_v),
    ("srht", srht),
    ("score-f16", || score(StoreDtype::F16, 1)),
    ("score-i8", || score(StoreDtype::I8, 1)),
    ("score-i8-by-9", || score(StoreDtype::I8, 9)),
];

/// The one function in which callgrind counts.
#[inline(never)]
fn measured(kernel: impl FnOnce()) {
    kernel();
}

/// Four rows of 2^18 coordinates: 2^20 in all.
fn sjlt_adam_v() {
    const GRAD_DIM: usize = 1 << 18;
    const N_ROWS: usize = 4;
    let projection = projection(ProjectionKind::Sjlt, GRAD_DIM);
    let moments = Moments {
        rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 100 },
        exp_avg: uniform(GRAD_DIM, "exp_avg"),
        exp_avg_sq: uniform(GRAD_DIM, "exp_avg_sq"),
    };
    let directions = Directions::new(&[GradientKind::AdamV], Some(&moments));
    let gradients = uniform(N_ROWS * GRAD_DIM, "gradients");
    let mut rows = vec![0.0; N_ROWS * PROJ_DIM];
    measured(|| {
        projection.accumulate(0, &mut rows, |row, range, out| {
            let gradient = &gradients[row * GRAD_DIM..][range.clone()];
            directions.write(GradientKind::AdamV, range, gradient, out);
        });
    });
    black_box(rows);
}

/// One row of 2^18 coordinates.
fn srht() {
    const GRAD_DIM: usize = 1 << 18;
    let projection = projection(ProjectionKind::Srht, GRAD_DIM);
    let gradient = uniform(GRAD_DIM, "gradients");
    let mut row = vec![0.0; PROJ_DIM];
    measured(|| {
        projection.accumulate(0, &mut row, |_, range, out| out.copy_from_slice(&gradient[range]));
    });
    black_box(row);
}

/// Inner products of 64 stored rows of 8192 coordinates with some queries.
fn score(dtype: StoreDtype, n_queries: usize) {
    const N_ROWS: usize = 64;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype,
        format: FORMAT,
        gradient: String::new(),
        kinds: vec![GradientKind::Sgd],
        layout: String::new(),
        proj_dim: PROJ_DIM,
        projection: String::new(),
        split: Split::Pool,
    };
    let rows = ShardRows {
        ids: (0..N_ROWS as u128).map(|row| ExampleId(row.to_be_bytes())).collect(),
        kinds: vec![KindRows {
            unit: uniform(N_ROWS * PROJ_DIM, "rows"),
            norms: vec![1.0; N_ROWS],
        }],
        loss: vec![1.0; N_ROWS],
        n_supervised: vec![1; N_ROWS],
        flags: vec![None; N_ROWS],
    };
    let store = GradientStore::write(dir.path(), &header, [rows]).expect("a temporary folder");
    let unit = store.shards()[0].kind(GradientKind::Sgd).expect("it is stored").unit;
    let queries = uniform(n_queries * PROJ_DIM, "queries");
    let queries = Queries::new(queries.chunks_exact(PROJ_DIM));
    measured(|| {
        black_box(unit.inner_products(0..N_ROWS, &queries));
    });
}

fn projection(kind: ProjectionKind, grad_dim: usize) -> Projection {
    let layout = ParamLayout::new([("gradient".to_owned(), vec![grad_dim])]);
    let settings = ProjectionSettings { kind, proj_dim: PROJ_DIM };
    Projection::new(settings, Seed(0), "epoch-1", &layout).expect("a power of two")
}

fn uniform(n: usize, purpose: &str) -> Vec<f32> {
    let mut rng = Seed(0).stream(&["bench", purpose]);
    (0..n).map(|_| rng.next_u32() as f32 / u32::MAX as f32).collect()
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
    let mut kernels =
        KERNELS.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name));
    let first = kernels.next().unwrap_or_else(|| panic!("no kernel is named {wanted:?}"));
    for (_, kernel) in std::iter::once(first).chain(kernels) {
        threads.install(kernel);
    }
}
