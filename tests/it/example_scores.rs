//! Cosines with single target examples: those of the rows, one by one, and their
//! means the scores.

use std::path::{Path, PathBuf};

use less_select::gradient::direction::GradientKind;
use less_select::influence::Aggregation;
use less_select::influence::example_scores::{ExampleScores, TargetExamples};
use less_select::influence::example_scores_file::is_cosines;
use less_select::influence::score::{ScoreSettings, score, score_examples};
use less_select::influence::scores::ScoreTable;
use less_select::pool::table::TableRow;
use less_select::progress::Silent;
use less_select::projection::ProjectionKind;
use less_select::store::gradient_store::GradientStore;
use less_select::store::{Split, StoreDtype};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::faulty::{Fault, Faulty};
use crate::influence::{PLAIN, World};
use crate::toy::{self, Setup, Table};

/// The scores of `rows`, a part of `pool`, with the cosines beside them.
fn scored(
    world: &World,
    rows: &[TableRow],
    pool: &Table,
    settings: ScoreSettings<'_>,
) -> (Vec<ScoreTable>, ExampleScores, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let found =
        score_examples(&world.checkpoints(), rows, &pool.rows, dir.path(), settings, &Silent)
            .unwrap();
    let paths = found.cosines.into_iter().map(|(path, _)| path);
    let paths: Vec<PathBuf> = paths.filter(|path| is_cosines(path)).collect();
    (found.tables, ExampleScores::open(&paths).unwrap(), dir)
}

/// The mean over the examples of each subtask of every row.
fn means(scores: &ExampleScores) -> Vec<Vec<f64>> {
    let total = scores.total(0..scores.n_rows());
    let mean = |row: &[f32], subtask: usize| {
        let own = scores.targets.examples.iter().zip(row);
        let own = own.filter(|(example, _)| example.subtask as usize == subtask);
        let own: Vec<f64> = own.map(|(_, cosine)| f64::from(*cosine)).collect();
        own.iter().sum::<f64>() / own.len() as f64
    };
    let row = |row| (0..scores.targets.subtasks.len()).map(|s| mean(row, s)).collect();
    total.chunks_exact(scores.n_targets()).map(row).collect()
}

#[test]
fn the_mean_over_a_subtask_is_its_score() {
    let (pool, target) = (toy::pool(150, 1), toy::target(2));
    for dtype in [StoreDtype::F32, StoreDtype::I4] {
        let setup =
            Setup { projection: ProjectionKind::Sjlt, proj_dim: 512, dtype, ..Setup::default() };
        let world = World::new(&setup, &pool, &target, 2);
        let (tables, examples, _dir) = scored(&world, &pool.rows, &pool, PLAIN);
        assert_eq!(examples.targets, TargetExamples::of_table(&target.rows));
        for (row, means) in tables[0].rows.iter().zip(means(&examples)) {
            for (score, mean) in row.by_subtask.iter().zip(means) {
                approx::assert_abs_diff_eq!(f64::from(*score), mean, epsilon = 1e-6);
            }
        }
    }
}

/// Of the first kind of gradient, at each checkpoint for itself.
#[test]
fn every_cosine_is_that_of_the_two_rows() {
    let (pool, target) = (toy::pool(40, 3), toy::target(4));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    let kinds = &[GradientKind::Adam, GradientKind::Sgd];
    let (_, examples, _dir) = scored(&world, &pool.rows, &pool, ScoreSettings { kinds, ..PLAIN });
    for (at, checkpoint) in examples.checkpoints.iter().enumerate() {
        let (store, index) = (&world.pools[at], &world.indices[at]);
        let cosines: Vec<f32> = checkpoint.slices(0..pool.rows.len()).flatten().copied().collect();
        let places = store.places(pool.rows.iter().map(|row| row.id)).unwrap();
        for (place, cosines) in places.iter().zip(cosines.chunks_exact(9)) {
            let adam = store.shards()[place.shard].kind(GradientKind::Adam).unwrap();
            let row = adam.unit.decode(place.row..place.row + 1);
            for (example, cosine) in examples.targets.examples.iter().zip(cosines) {
                let of = index.rows.ids.iter().position(|id| *id == example.id).unwrap();
                let other = index.rows.unit.row(of);
                let product: f64 =
                    row.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                approx::assert_abs_diff_eq!(f64::from(*cosine), product, epsilon = 1e-6);
            }
        }
    }
}

#[test]
fn scores_are_the_same_to_the_bit_with_and_without_the_cosines() {
    let (pool, target) = (toy::pool(90, 5), toy::target(6));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    let settings = ScoreSettings {
        kinds: &GradientKind::ALL,
        aggregations: &[Aggregation::CosineOfMean, Aggregation::MeanOfCosines],
        threads: None,
    };
    let alone = score(&world.checkpoints(), &pool.rows, settings, &Silent).unwrap();
    assert_eq!(scored(&world, &pool.rows, &pool, settings).0, alone);
}

#[test]
fn rows_that_are_flagged_anywhere_or_left_out_have_no_cosine() {
    let (pool, target) = (toy::pool(20, 12), toy::target(13));
    let mut world = World::new(&Setup::default(), &pool, &target, 2);
    let dir = tempfile::tempdir().unwrap();
    let mut model = Faulty::new(2, [(pool.rows[5].id, Fault::Gradient(0.0))]);
    Setup::default().collect_with(&mut model, &pool, Split::Pool, 2, dir.path(), &Silent).unwrap();
    world.pools[1] = GradientStore::open(dir.path()).unwrap();
    let some: Vec<_> = [0, 2, 5, 6, 19].map(|at: usize| pool.rows[at].clone()).into();
    let (_, examples, _dir) = scored(&world, &some, &pool, PLAIN);
    let (_, whole, _dir) = scored(&world, &pool.rows, &pool, PLAIN);
    for checkpoint in 0..2 {
        for row in 0..20 {
            let of = |scores: &ExampleScores| -> Vec<f32> {
                scores.checkpoints[checkpoint].slices(row..row + 1).flatten().copied().collect()
            };
            let (found, whole) = (of(&examples), of(&whole));
            assert_eq!(whole.iter().all(|cosine| cosine.is_nan()), row == 5);
            if [0, 2, 6, 19].contains(&row) {
                assert_eq!(found, whole);
            } else {
                assert!(found.iter().all(|cosine| cosine.is_nan()), "{row}");
            }
        }
    }
}

#[test]
fn target_examples_that_are_flagged_somewhere_are_no_columns() {
    let (pool, target) = (toy::pool(20, 14), toy::target(15));
    let mut world = World::new(&Setup::default(), &pool, &target, 2);
    let dir = tempfile::tempdir().unwrap();
    let mut model = Faulty::new(2, [(target.rows[3].id, Fault::Gradient(0.0))]);
    Setup::default()
        .collect_with(&mut model, &target, Split::Target, 2, dir.path(), &Silent)
        .unwrap();
    let store = GradientStore::open(dir.path()).unwrap();
    let Ok(index) = less_select::influence::index::TargetIndex::build(&store, &target.rows) else {
        panic!("the row is not alone in its subtask");
    };
    world.indices[1] = index;
    let (_, examples, _dir) = scored(&world, &pool.rows, &pool, PLAIN);
    let mut expected = TargetExamples::of_table(&target.rows);
    expected.examples.remove(3);
    assert_eq!(examples.targets, expected);
}

fn bytes(dir: &Path) -> Vec<Vec<u8>> {
    let names = ["cosines-epoch-1.arrow", "cosines-epoch-1.json", "cosines-epoch-2.arrow"];
    names.map(|name| fs_err::read(dir.join(name)).unwrap()).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn files_depend_on_neither_shards_nor_threads_nor_the_pools_order(
        shard_rows in 1usize..50,
        n_scoring_threads in 1usize..4,
        order in Just((0..75).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let plain = Setup {
            kinds: PLAIN.kinds.to_vec(),
            projection: ProjectionKind::Sjlt,
            proj_dim: 512,
            ..Setup::default()
        };
        let target = toy::target(27);
        let in_order = toy::pool(75, 26);
        let world = World::new(&plain, &in_order, &target, 2);
        let expected = scored(&world, &in_order.rows, &in_order, PLAIN).2;

        let examples = toy::random_examples(75, 26);
        let shuffled = toy::table(order.into_iter().map(|at| (examples[at].clone(), "toy", None)));
        let threads = std::num::NonZeroUsize::new(n_scoring_threads);
        let world = World::new(&Setup { shard_rows, ..plain }, &shuffled, &target, 2);
        let found = scored(&world, &shuffled.rows, &shuffled, ScoreSettings { threads, ..PLAIN }).2;
        prop_assert_eq!(bytes(found.path()), bytes(expected.path()));
    }
}
