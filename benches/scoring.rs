//! Scoring a stored pool against a target, on all cores: rows per second by
//! size of the pool and number of subtasks, from open stores in the page cache.

use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use less_select::gradient::direction::GradientKind;
use less_select::influence::Aggregation;
use less_select::influence::index::TargetIndex;
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::pool::ExampleId;
use less_select::pool::table::TableRow;
use less_select::progress::Silent;
use less_select::seed::Seed;
use less_select::store::gradient_store::GradientStore;
use less_select::store::shard::{KindRows, ShardRows, StoreHeader, write_shard};
use less_select::store::{FORMAT, Split, StoreDtype};
use rand_chacha::rand_core::Rng;

const PROJ_DIM: usize = 8192;
const SHARD_ROWS: usize = 512;

/// `n` rows of `n_subtasks` subtasks, in order of id.
fn table(n: usize, n_subtasks: usize) -> Vec<TableRow> {
    (0..n)
        .map(|row| TableRow {
            id: ExampleId((row as u128).to_be_bytes()),
            source: "bench".to_owned(),
            subtask: Some(format!("{:02}", row % n_subtasks)),
            n_tokens: 100,
            n_supervised: 50,
            truncated: false,
        })
        .collect()
}

/// A store of random rows of about unit length for `table`.
fn store(dir: &Path, table: &[TableRow], split: Split) -> GradientStore {
    let mut rng = Seed(0).stream(&["bench", split.name()]);
    let scale = (3.0 / PROJ_DIM as f32).sqrt();
    let mut coordinate = || (rng.next_u32() as f32 / (1u32 << 31) as f32 - 1.0) * scale;
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype: StoreDtype::F16,
        format: FORMAT,
        gradient: String::new(),
        kinds: vec![GradientKind::Sgd],
        layout: String::new(),
        n_shards: table.len().div_ceil(SHARD_ROWS),
        proj_dim: PROJ_DIM,
        projection: String::new(),
        split,
    };
    for (shard_idx, heads) in table.chunks(SHARD_ROWS).enumerate() {
        let n = heads.len();
        let rows = ShardRows {
            ids: heads.iter().map(|head| head.id).collect(),
            kinds: vec![KindRows {
                unit: (0..n * PROJ_DIM).map(|_| coordinate()).collect(),
                norms: vec![1.0; n],
            }],
            loss: vec![1.0; n],
            n_supervised: vec![50; n],
            flags: vec![None; n],
        };
        write_shard(dir, shard_idx, &header, "bench", rows).expect("a temporary folder");
    }
    GradientStore::open(dir).expect("just written")
}

fn scores(criterion: &mut Criterion) {
    let settings = ScoreSettings {
        kind: GradientKind::Sgd,
        aggregation: Aggregation::MeanOfCosines,
        threads: None,
    };
    let mut group = criterion.benchmark_group("scoring rows of 8192 f16");
    group.sample_size(10);
    for n_pool in [1_000, 4_000] {
        let pool_dir = tempfile::tempdir().expect("a temporary folder");
        let pool = table(n_pool, 1);
        let pool_store = store(pool_dir.path(), &pool, Split::Pool);
        for n_subtasks in [1, 9, 57] {
            let target_dir = tempfile::tempdir().expect("a temporary folder");
            let target = table(3 * n_subtasks, n_subtasks);
            let target_store = store(target_dir.path(), &target, Split::Target);
            let index = TargetIndex::build(&target_store, &target).expect("usable rows");
            let checkpoint =
                ScoredCheckpoint { pool: &pool_store, index: &index, learning_rate: 1.0 };
            group.throughput(Throughput::Elements(n_pool as u64));
            let id = BenchmarkId::new(format!("{n_subtasks} subtasks"), n_pool);
            group.bench_function(id, |bencher| {
                bencher.iter(|| score(&[checkpoint], &pool, settings, &Silent));
            });
        }
        group.throughput(Throughput::Elements(n_pool as u64));
        group.bench_function(BenchmarkId::new("opening", n_pool), |bencher| {
            bencher.iter(|| GradientStore::open(pool_dir.path()));
        });
    }
    group.finish();
}

criterion_group!(benches, scores);
criterion_main!(benches);
