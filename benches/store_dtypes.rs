//! What a store's dtype and length do to a ranking, on the gradients of a real
//! model. It takes a run that stored them whole,
//!
//! ```text
//! less-select --projection none --store-dtype f16 --epochs 1 --shard-rows 32 --run RUN …
//! cargo bench --no-default-features --bench store_dtypes -- RUN
//! ```
//!
//! projects them under several seeds, stores the rows in every dtype, scores them,
//! and compares with the scores of the whole gradients: the rank correlation
//! (Spearman) of the scores, and the share of the best 5 % that are the same, of
//! the score and of the subtasks one by one. The last two columns compare the
//! score with that of the f32 rows of 8192 coordinates under the same seed.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::collections::BTreeMap;
use std::path::Path;

use less_select::gradient::direction::GradientKind;
use less_select::gradient::layout::ParamLayout;
use less_select::influence::Aggregation;
use less_select::influence::index::TargetIndex;
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::influence::scores::ScoreTable;
use less_select::pool::table::{ExampleTable, TableRow};
use less_select::progress::Silent;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::report::spearman;
use less_select::run_dir::RunDir;
use less_select::seed::Seed;
use less_select::store::gradient_store::GradientStore;
use less_select::store::shard::{KindRows, Shard, ShardRows, StoreHeader};
use less_select::store::{Split, StoreDtype};
use rayon::prelude::*;

/// The default first: the others are compared with its f32 rows.
const PROJ_DIMS: [usize; 5] = [8192, 32_768, 16_384, 4096, 2048];
const N_SEEDS: u64 = 10;
/// The best one in so many is what is compared: 5 %.
const ONE_IN: usize = 20;

/// The two tables of a run and their gradients at its first checkpoint.
struct Side {
    table: Vec<TableRow>,
    store: GradientStore,
}

impl Side {
    fn open(run: &RunDir, checkpoint: &str, split: Split) -> Self {
        let table = ExampleTable::open(&run.table(split)).expect("a run's table");
        let store = GradientStore::open(&run.store(checkpoint, split)).expect("a run's store");
        let n_flagged: usize = store.shards().iter().map(Shard::n_flagged).sum();
        assert_eq!(n_flagged, 0, "rows without a gradient have no rank");
        Self { table: table.rows().to_vec(), store }
    }

    /// The rows of the store, projected.
    fn project(&self, projection: &Projection) -> ShardRows {
        let n_rows = self.store.n_rows();
        let kinds = self.store.header().kinds.iter();
        ShardRows {
            ids: self.store.ids().collect(),
            kinds: kinds.map(|kind| self.project_kind(*kind, projection)).collect(),
            loss: vec![1.0; n_rows],
            n_supervised: vec![1; n_rows],
            flags: vec![None; n_rows],
        }
    }

    fn project_kind(&self, kind: GradientKind, projection: &Projection) -> KindRows {
        let shards = self.store.shards().iter();
        let columns = shards.map(|shard| (shard.n_rows(), shard.kind(kind).expect("it is stored")));
        let places: Vec<_> =
            columns.flat_map(|(n, columns)| (0..n).map(move |row| (columns, row))).collect();
        let rows = places.par_iter().map(|(columns, row)| {
            let gradient = columns.unit.decode(*row..row + 1);
            let mut sums = vec![0.0; projection.proj_dim()];
            projection.accumulate(0, &mut sums, |_, range, out| {
                out.copy_from_slice(&gradient[range]);
            });
            let norm = sums.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            (sums.iter().map(|x| (f64::from(*x) / norm) as f32).collect::<Vec<_>>(), norm as f32)
        });
        let (unit, norms): (Vec<_>, Vec<_>) = rows.collect::<Vec<_>>().into_iter().unzip();
        KindRows { unit: unit.concat(), norms }
    }

    /// A store of one shard.
    fn written(
        &self,
        rows: ShardRows,
        dtype: StoreDtype,
        projection: &Projection,
    ) -> GradientStore {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let header = StoreHeader {
            dtype,
            proj_dim: projection.proj_dim(),
            projection: projection.fingerprint().to_owned(),
            ..self.store.header().clone()
        };
        // The maps outlive the folder.
        GradientStore::write(dir.path(), &header, [rows]).expect("a temporary folder")
    }
}

/// The scores of one kind; the score itself and then the subtasks.
fn columns(scores: &ScoreTable) -> Vec<Vec<f64>> {
    let best = scores.rows.iter().map(|row| f64::from(row.best().expect("no flags").1)).collect();
    let subtasks = (0..scores.subtasks.len())
        .map(|at| scores.rows.iter().map(|row| f64::from(row.by_subtask[at])).collect());
    std::iter::once(best).chain(subtasks).collect()
}

/// By kind.
fn scores(pool: &GradientStore, table: &[TableRow], target: &TargetIndex) -> Vec<Vec<Vec<f64>>> {
    let checkpoint = ScoredCheckpoint { pool, index: target, lengths: None, learning_rate: 1.0 };
    let settings = ScoreSettings {
        kinds: &pool.header().kinds,
        aggregations: &[Aggregation::MeanOfCosines],
        threads: None,
    };
    let tables = score(&[checkpoint], table, settings, &Silent).expect("they belong together");
    tables.iter().map(columns).collect()
}

/// Positions of the best rows, ascending.
fn best(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(scores.len() / ONE_IN);
    order.sort_unstable();
    order
}

fn overlap(found: &[f64], expected: &[f64]) -> f64 {
    let (found, expected) = (best(found), best(expected));
    let n_same = found.iter().filter(|row| expected.binary_search(row).is_ok()).count();
    n_same as f64 / expected.len() as f64
}

/// What is measured of the scores of one seed, in the order of the columns.
fn agreement(found: &[Vec<f64>], exact: &[Vec<f64>], usual: &[Vec<f64>]) -> [f64; 5] {
    let correlation = |a: &[f64], b: &[f64]| spearman(a, b).expect("scores differ");
    let by_subtask = found[1..].iter().zip(&exact[1..]).map(|(a, b)| overlap(a, b));
    [
        correlation(&found[0], &exact[0]),
        overlap(&found[0], &exact[0]),
        by_subtask.sum::<f64>() / (found.len() - 1) as f64,
        correlation(&found[0], &usual[0]),
        overlap(&found[0], &usual[0]),
    ]
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0)).sqrt())
}

/// Measured agreements by kind, length and dtype, one a seed.
type Agreements = BTreeMap<(GradientKind, usize, usize), Vec<[f64; 5]>>;

fn measure(pool: &Side, target: &Side) -> Agreements {
    let exact_index = TargetIndex::build(&target.store, &target.table).expect("usable rows");
    let exact = scores(&pool.store, &pool.table, &exact_index);
    let layout = ParamLayout::new([("gradient".to_owned(), vec![pool.store.header().proj_dim])]);
    let mut agreements = Agreements::new();
    for seed in 0..N_SEEDS {
        let mut usual = None;
        for proj_dim in PROJ_DIMS {
            let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim };
            let projection =
                Projection::new(settings, Seed(seed), "epoch-1", &layout).expect("a power of two");
            let queries = target.project(&projection);
            let queries = target.written(queries, StoreDtype::F32, &projection);
            let index = TargetIndex::build(&queries, &target.table).expect("usable rows");
            let rows = pool.project(&projection);
            for (dtype_idx, dtype) in StoreDtype::ALL.into_iter().enumerate() {
                let store = pool.written(rows.clone(), dtype, &projection);
                let found = scores(&store, &pool.table, &index);
                let usual: &Vec<Vec<Vec<f64>>> = usual.get_or_insert_with(|| found.clone());
                for (at, kind) in store.header().kinds.iter().enumerate() {
                    let agreement = agreement(&found[at], &exact[at], &usual[at]);
                    agreements.entry((*kind, dtype_idx, proj_dim)).or_default().push(agreement);
                }
            }
        }
    }
    agreements
}

fn print(agreements: &Agreements) {
    println!("means over {N_SEEDS} seeds of the projection, and standard deviations");
    println!(
        "{:<7} {:<5} {:>5} {:>6}  {:^15} {:^15} {:^15}  {:^15} {:^15}",
        "kind",
        "dtype",
        "dims",
        "bytes",
        "exact: spearman",
        "top 5 %",
        "of a subtask",
        "usual: spearman",
        "top 5 %",
    );
    for ((kind, dtype_idx, proj_dim), agreements) in agreements {
        let dtype = StoreDtype::ALL[*dtype_idx];
        let cell = |column: usize| {
            let values: Vec<f64> = agreements.iter().map(|row| row[column]).collect();
            let (mean, deviation) = mean_and_deviation(&values);
            format!("{mean:.4} ± {deviation:.3}")
        };
        let cells: Vec<_> = (0..5).map(cell).collect();
        println!(
            "{:<7} {dtype:<5} {proj_dim:>5} {:>6}  {:^15} {:^15} {:^15}  {:^15} {:^15}",
            kind.name(),
            dtype.row_bytes(*proj_dim),
            cells[0],
            cells[1],
            cells[2],
            cells[3],
            cells[4],
        );
    }
}

fn main() {
    let Some(run) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) else {
        println!(
            "give the folder of a run that stored whole gradients: see benches/store_dtypes.rs"
        );
        return;
    };
    let run = RunDir::new(Path::new(&run));
    let [pool, target] = Split::ALL.map(|split| Side::open(&run, "epoch-1", split));
    let header = pool.store.header();
    println!("{} rows, gradients of {} coordinates", pool.table.len(), header.proj_dim);
    print(&measure(&pool, &target));
}
