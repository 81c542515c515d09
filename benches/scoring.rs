//! Scoring a stored pool against a target, from open stores in the page cache:
//! by dtype and number of subtasks beside one sequential reading of the same
//! files, alternating; and beside the product of f32 matrices that it replaces.
//! Then, by size of the pool, opening a store.

#![expect(clippy::print_stdout, reason = "ratios are for people, and criterion has none")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

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
use less_select::store::shard::{KindRows, Shard, ShardRows, StoreHeader, shard_path};
use less_select::store::{FORMAT, Split, StoreDtype};
use memmap2::Mmap;
use ndarray::ArrayView2;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;

const PROJ_DIM: usize = 8192;
const SHARD_ROWS: usize = 512;
const N_SUBTASKS: [usize; 3] = [1, 9, 57];

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
fn store(dir: &Path, table: &[TableRow], split: Split, dtype: StoreDtype) -> GradientStore {
    let mut rng = Seed(0).stream(&["bench", split.name()]);
    let scale = (3.0 / PROJ_DIM as f32).sqrt();
    let mut coordinate = || (rng.next_u32() as f32 / (1u32 << 31) as f32 - 1.0) * scale;
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype,
        format: FORMAT,
        gradient: String::new(),
        kinds: vec![GradientKind::Sgd],
        layout: String::new(),
        proj_dim: PROJ_DIM,
        projection: String::new(),
        split,
    };
    let shards = table.chunks(SHARD_ROWS).map(|heads| {
        let n = heads.len();
        ShardRows {
            ids: heads.iter().map(|head| head.id).collect(),
            kinds: vec![KindRows {
                unit: (0..n * PROJ_DIM).map(|_| coordinate()).collect(),
                norms: vec![1.0; n],
            }],
            loss: vec![1.0; n],
            n_supervised: vec![50; n],
            flags: vec![None; n],
        }
    });
    GradientStore::write(dir, &header, shards).expect("a temporary folder")
}

/// The target of `n_subtasks`, three examples each.
fn target(n_subtasks: usize) -> TargetIndex {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let target = table(3 * n_subtasks, n_subtasks);
    let store = store(dir.path(), &target, Split::Target, StoreDtype::F32);
    TargetIndex::build(&store, &target).expect("usable rows")
}

const SETTINGS: ScoreSettings<'_> = ScoreSettings {
    kinds: &[GradientKind::Sgd],
    aggregations: &[Aggregation::MeanOfCosines],
    threads: None,
};

/// Reads every byte of the store's data files once, from maps of their own.
fn read(maps: &[Mmap]) -> u64 {
    let or = |part: &[u8]| {
        part.as_chunks().0.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word))
    };
    let parts = maps.par_iter().flat_map(|map| map.par_chunks(1 << 18));
    parts.map(or).reduce(|| 0, |a, b| a | b)
}

#[expect(unsafe_code, reason = "memory maps cannot be made safely")]
fn maps(store: &GradientStore) -> Vec<Mmap> {
    let map = |shard: &Shard| {
        let path = shard_path(store.dir(), shard.fingerprint());
        let file = fs_err::File::open(path).expect("just written");
        // SAFETY: nobody else knows the temporary folder.
        unsafe { Mmap::map(&file) }.expect("it can be mapped")
    };
    store.shards().iter().map(map).collect()
}

/// What scoring was before: blocks of rows as f32, multiplied by ndarray.
fn multiply(store: &GradientStore, index: &TargetIndex) -> f32 {
    const BLOCK_ROWS: usize = 256;
    let centroids = index.centroids(Aggregation::MeanOfCosines);
    let product = |(shard, start): (usize, usize)| {
        let columns = store.shards()[shard].kind(GradientKind::Sgd).expect("it is stored");
        let rows = columns.unit.decode(start..start + BLOCK_ROWS);
        let rows = ArrayView2::from_shape((BLOCK_ROWS, PROJ_DIM), &rows).expect("whole rows");
        rows.dot(&centroids.t())[[0, 0]]
    };
    let shards = (0..store.shards().len()).into_par_iter();
    let blocks = shards.flat_map(|shard| [(shard, 0), (shard, BLOCK_ROWS)]);
    blocks.map(product).sum()
}

/// Medians of the times of `cases`, run in turn.
fn race(cases: &[&dyn Fn()]) -> Vec<f64> {
    const N_ROUNDS: usize = 9;
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..N_ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            let begin = Instant::now();
            case();
            times.push(begin.elapsed().as_secs_f64());
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}

fn ratios(_: &mut Criterion) {
    const N_POOL: usize = 1 << 14;
    let pool = table(N_POOL, 1);
    let indices = N_SUBTASKS.map(target);
    println!("{N_POOL} rows of {PROJ_DIM}: GB/s, as a share of reading's; and against ndarray");
    for dtype in StoreDtype::ALL {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = store(dir.path(), &pool, Split::Pool, dtype);
        let maps = maps(&store);
        let n_bytes: usize = maps.iter().map(|map| map.len()).sum();
        let read = || {
            black_box(read(&maps));
        };
        let scores = indices.each_ref().map(|index| {
            let checkpoint =
                ScoredCheckpoint { pool: &store, index, lengths: None, learning_rate: 1.0 };
            let pool = &pool;
            move || drop(black_box(score(&[checkpoint], pool, SETTINGS, &Silent)))
        });
        let store = &store;
        let products = indices.each_ref().map(|index| {
            move || {
                black_box(multiply(store, index));
            }
        });
        let mut cases: Vec<&dyn Fn()> = vec![&read];
        cases.extend(scores.iter().map(|case| case as &dyn Fn()));
        cases.extend(products.iter().map(|case| case as &dyn Fn()));
        let times = race(&cases);
        let rate = |time: f64| n_bytes as f64 / time / 1e9;
        println!("{dtype:<4} reading {:>19.1} GB/s", rate(times[0]));
        for (at, n_subtasks) in N_SUBTASKS.iter().enumerate() {
            let (scored, multiplied) = (times[1 + at], times[1 + N_SUBTASKS.len() + at]);
            println!(
                "     {n_subtasks:>2} subtasks {:>14.1} GB/s {:>5.2} {:>10.0} rows/s {:>6.2} times ndarray's",
                rate(scored),
                times[0] / scored,
                N_POOL as f64 / scored,
                multiplied / scored,
            );
        }
    }
}

fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("opening a store of rows of 8192 f16");
    group.sample_size(10);
    for n_pool in [1_000, 4_000] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        store(dir.path(), &table(n_pool, 1), Split::Pool, StoreDtype::F16);
        group.throughput(Throughput::Elements(n_pool as u64));
        group.bench_function(BenchmarkId::from_parameter(n_pool), |bencher| {
            bencher.iter(|| GradientStore::open(dir.path()));
        });
    }
    group.finish();
}

criterion_group!(benches, ratios, opening);
criterion_main!(benches);
