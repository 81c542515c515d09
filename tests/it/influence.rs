//! Index and scores: the slow LESS, whatever the shards, threads and order.

use less_select::gradient::direction::GradientKind;
use less_select::influence::index::{Subtask, TargetIndex};
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::influence::{Aggregation, InfluenceError};
use less_select::pool::{Example, ExampleId};
use less_select::progress::{Event, Observer, Silent};
use less_select::projection::ProjectionKind;
use less_select::store::gradient_store::GradientStore;
use less_select::store::{Split, StoreDtype};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::faulty::{Fault, Faulty};
use crate::slow_less;
use crate::toy::{self, Setup, Table};

const AGGREGATIONS: [Aggregation; 2] = [Aggregation::MeanOfCosines, Aggregation::CosineOfMean];
pub(crate) const LEARNING_RATES: [f64; 2] = [2e-5, 5e-6];

/// The stores and indices of a pool and a target at a few checkpoints.
pub(crate) struct World {
    pub(crate) pools: Vec<GradientStore>,
    pub(crate) indices: Vec<TargetIndex>,
    _dir: TempDir,
}

impl World {
    pub(crate) fn new(setup: &Setup, pool: &Table, target: &Table, n_checkpoints: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let targets = Setup { kinds: vec![GradientKind::Sgd], ..setup.clone() };
        let (pools, indices) = (1..=n_checkpoints)
            .map(|epoch| {
                let [pool_dir, target_dir] =
                    ["pool", "target"].map(|split| dir.path().join(format!("{epoch}/{split}")));
                setup.collect(pool, Split::Pool, epoch, &pool_dir);
                targets.collect(target, Split::Target, epoch, &target_dir);
                let target_store = GradientStore::open(&target_dir).unwrap();
                let index = TargetIndex::build(&target_store, &target.rows).unwrap();
                (GradientStore::open(&pool_dir).unwrap(), index)
            })
            .unzip();
        Self { pools, indices, _dir: dir }
    }

    pub(crate) fn checkpoints(&self) -> Vec<ScoredCheckpoint<'_>> {
        let sides = self.pools.iter().zip(&self.indices);
        sides
            .zip(LEARNING_RATES)
            .map(|((pool, index), learning_rate)| ScoredCheckpoint {
                pool,
                index,
                lengths: None,
                learning_rate,
            })
            .collect()
    }

    /// The first table.
    pub(crate) fn score(&self, pool: &Table, settings: ScoreSettings<'_>) -> ScoreTable {
        score(&self.checkpoints(), &pool.rows, settings, &Silent).unwrap().remove(0)
    }

    pub(crate) fn score_as(
        &self,
        pool: &Table,
        kind: GradientKind,
        aggregation: Aggregation,
    ) -> ScoreTable {
        let (kinds, aggregations) = (&[kind], &[aggregation]);
        let threads = std::num::NonZeroUsize::new(1);
        self.score(pool, ScoreSettings { kinds, aggregations, threads })
    }
}

pub(crate) const PLAIN: ScoreSettings<'_> = ScoreSettings {
    kinds: &[GradientKind::AdamV],
    aggregations: &[Aggregation::MeanOfCosines],
    threads: None,
};

#[test]
fn exact_scores_are_those_of_the_slow_less() {
    let (pool, target) = (toy::pool(60, 1), toy::target(2));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    for kind in GradientKind::ALL {
        for aggregation in AGGREGATIONS {
            let found = world.score_as(&pool, kind, aggregation);
            assert_eq!(found.subtasks, ["essay", "quiz/a", "quiz/b"]);
            let expected = slow_less::influence(&pool, &target, &LEARNING_RATES, kind, aggregation);
            for (row, expected) in found.rows.iter().zip(&expected) {
                assert_eq!(row.by_subtask.len(), 3);
                for (found, expected) in row.by_subtask.iter().zip(expected) {
                    approx::assert_abs_diff_eq!(f64::from(*found), *expected, epsilon = 1e-5);
                }
            }
        }
    }
}

#[test]
fn projected_scores_rank_as_the_exact_ones() {
    let target = toy::target(2);
    let pool = toy::pool_like(&target, 1);
    for dtype in [StoreDtype::F32, StoreDtype::F16, StoreDtype::I8] {
        let setup =
            Setup { projection: ProjectionKind::Sjlt, proj_dim: 8192, dtype, ..Setup::default() };
        let world = World::new(&setup, &pool, &target, 2);
        for kind in GradientKind::ALL {
            let found = world.score_as(&pool, kind, Aggregation::MeanOfCosines);
            let exact = slow_less::influence(
                &pool,
                &target,
                &LEARNING_RATES,
                kind,
                Aggregation::MeanOfCosines,
            );
            let best = |row: &Vec<f64>| row.iter().copied().fold(f64::MIN, f64::max);
            let exact: Vec<f64> = exact.iter().map(best).collect();
            let found: Vec<f64> =
                found.rows.iter().map(|row| f64::from(row.best().unwrap().1)).collect();
            let correlation = slow_less::rank_correlation(&found, &exact);
            assert!(correlation >= 0.999, "{kind}, {dtype:?}: {correlation}");
        }
    }
}

/// With a dense projection, whose rows are like those of a model: the toy's
/// gradients are sparse, and an `sjlt` would keep them so. A bit cannot tell a
/// zero from a large coordinate.
#[test]
fn scores_in_every_dtype_rank_as_in_f32() {
    let target = toy::target(2);
    let pool = toy::pool_like(&target, 1);
    let score = |dtype| {
        let setup = Setup {
            kinds: PLAIN.kinds.to_vec(),
            projection: ProjectionKind::Rademacher,
            proj_dim: 1024,
            dtype,
            ..Setup::default()
        };
        let found = World::new(&setup, &pool, &target, 2).score(&pool, PLAIN);
        found.rows.iter().map(|row| f64::from(row.best().unwrap().1)).collect::<Vec<_>>()
    };
    let expected = score(StoreDtype::F32);
    for (dtype, least) in [
        (StoreDtype::F16, 0.9999),
        (StoreDtype::I8, 0.9999),
        (StoreDtype::I4, 0.998),
        (StoreDtype::I1, 0.9),
    ] {
        let correlation = slow_less::rank_correlation(&score(dtype), &expected);
        assert!(correlation >= least, "{dtype}: {correlation}");
    }
}

#[test]
fn several_kinds_and_aggregations_are_scored_in_one_pass_as_one_by_one() {
    let (pool, target) = (toy::pool(40, 33), toy::target(34));
    let setup = Setup { dtype: StoreDtype::I8, ..Setup::default() };
    let world = World::new(&setup, &pool, &target, 2);
    let settings =
        ScoreSettings { kinds: &GradientKind::ALL, aggregations: &AGGREGATIONS, threads: None };
    let together = score(&world.checkpoints(), &pool.rows, settings, &Silent).unwrap();
    let kinds = GradientKind::ALL.into_iter();
    let one_by_one = kinds.flat_map(|kind| AGGREGATIONS.map(|a| world.score_as(&pool, kind, a)));
    assert_eq!(together, one_by_one.collect::<Vec<_>>());
}

#[test]
fn what_else_is_known_of_a_row_is_averaged_by_weight() {
    let (pool, target) = (toy::pool(20, 3), toy::target(4));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    let found = world.score(&pool, PLAIN);
    let mean = |of: &dyn Fn(&GradientStore) -> f32| {
        0.8 * f64::from(of(&world.pools[0])) + 0.2 * f64::from(of(&world.pools[1]))
    };
    for (at, (row, head)) in found.rows.iter().zip(&pool.rows).enumerate() {
        assert_eq!((row.id, &row.source), (head.id, &head.source));
        assert_eq!((row.n_tokens, row.n_supervised), (head.n_tokens, head.n_supervised));
        let (shard, at) = (at / 16, at % 16);
        let loss = mean(&|store| store.shards()[shard].loss()[at]);
        let norm = mean(&|store| store.shards()[shard].kind(PLAIN.kinds[0]).unwrap().norms[at]);
        approx::assert_relative_eq!(f64::from(row.loss), loss, max_relative = 1e-6);
        approx::assert_relative_eq!(f64::from(row.norm), norm, max_relative = 1e-6);
    }
}

/// Examples that differ only in the order of their prompt are one example to a
/// bag of tokens.
#[test]
fn duplicates_get_equal_scores() {
    let mut rng = toy::random_examples(30, 5);
    rng.retain(|example| example.token_ids.len() > 4 && !example.supervised[3]);
    let twins = rng.iter().map(|example| {
        let mut token_ids = example.token_ids.clone();
        token_ids[..3].rotate_left(1);
        toy::example(&token_ids, &example.supervised)
    });
    let pairs: Vec<(Example, Example)> = rng.iter().cloned().zip(twins).collect();
    let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| a.id != b.id).collect();
    assert!(pairs.len() >= 5);
    let pool = toy::table(
        pairs.iter().flat_map(|(a, b)| [(a.clone(), "toy", None), (b.clone(), "toy", None)]),
    );
    let target = toy::target(6);
    for projection in [ProjectionKind::None, ProjectionKind::Sjlt, ProjectionKind::Rademacher] {
        let setup = Setup { projection, shard_rows: 7, ..Setup::default() };
        let found = World::new(&setup, &pool, &target, 2).score(&pool, PLAIN);
        let by_id = |id: ExampleId| {
            let row = found.rows.iter().find(|row| row.id == id).unwrap();
            row.by_subtask.iter().map(|score| score.to_bits()).collect::<Vec<_>>()
        };
        for (a, b) in &pairs {
            assert_eq!(by_id(a.id), by_id(b.id));
        }
    }
}

#[test]
fn a_copy_of_a_lone_target_example_scores_one_and_ranks_first() {
    let target = toy::target(7);
    let lone = target.rows.iter().position(|row| row.source == "essay").unwrap();
    let copy = target.examples[lone].clone();
    let others = toy::random_examples(40, 8).into_iter();
    let pool = toy::table(others.chain([copy.clone()]).map(|example| (example, "toy", None)));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    for aggregation in AGGREGATIONS {
        let found = world.score_as(&pool, GradientKind::Sgd, aggregation);
        let best =
            found.rows.iter().max_by(|a, b| a.best().unwrap().1.total_cmp(&b.best().unwrap().1));
        let best = best.unwrap();
        assert_eq!(best.id, copy.id);
        let (subtask, score) = best.best().unwrap();
        assert_eq!(found.subtasks[subtask], "essay");
        approx::assert_abs_diff_eq!(score, 1.0, epsilon = 1e-6);
    }
}

#[test]
fn an_example_may_serve_two_subtasks() {
    let shared = toy::random_examples(1, 30).remove(0);
    let target = toy::table([
        (shared.clone(), "quiz", Some("a")),
        (shared, "essay", None),
        (toy::random_examples(1, 31).remove(0), "quiz", Some("quiz")),
    ]);
    let pool = toy::pool(10, 32);
    let world = World::new(&Setup { shard_rows: 1, ..Setup::default() }, &pool, &target, 1);
    let found = world.score(&pool, PLAIN);
    assert_eq!(found.subtasks, ["essay", "quiz", "quiz/a"]);
    for row in &found.rows {
        assert_eq!(row.by_subtask[0].to_bits(), row.by_subtask[2].to_bits());
    }
}

#[test]
fn an_index_read_back_is_the_one_written() {
    let target = toy::target(9);
    let world = World::new(&Setup::default(), &toy::pool(5, 9), &target, 1);
    let index = &world.indices[0];
    let subtask =
        |name: &str, n_examples| Subtask { name: name.to_owned(), n_examples, n_flagged: 0 };
    assert_eq!(index.subtasks, [subtask("essay", 1), subtask("quiz/a", 5), subtask("quiz/b", 3)]);
    let dir = tempfile::tempdir().unwrap();
    index.write(dir.path()).unwrap();
    assert_eq!(&TargetIndex::open(dir.path(), "epoch-1").unwrap(), index);

    for name in ["epoch-1.arrow", "epoch-1-rows.arrow"] {
        let path = dir.path().join(name);
        let whole = fs_err::read(&path).unwrap();
        let mut altered = whole.clone();
        altered[whole.len() / 2] ^= 1;
        fs_err::write(&path, altered).unwrap();
        assert!(TargetIndex::open(dir.path(), "epoch-1").is_err());
        fs_err::write(&path, whole).unwrap();
    }
    assert!(TargetIndex::open(dir.path(), "epoch-2").is_err());
}

#[test]
fn the_files_of_two_indices_do_not_mix() {
    let setup = Setup::default();
    let one = World::new(&setup, &toy::pool(5, 9), &toy::target(9), 1);
    let other = World::new(&setup, &toy::pool(5, 9), &toy::target(10), 1);
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    one.indices[0].write(dir.path()).unwrap();
    other.indices[0].write(other_dir.path()).unwrap();
    for extension in ["arrow", "json"] {
        let name = format!("epoch-1-rows.{extension}");
        fs_err::copy(other_dir.path().join(&name), dir.path().join(&name)).unwrap();
    }
    let error = TargetIndex::open(dir.path(), "epoch-1").unwrap_err();
    insta::assert_snapshot!(error.kind, @"does not belong to the subtasks beside it");
}

#[test]
fn flagged_target_rows_are_left_out_and_counted() {
    let target = toy::target(11);
    let rows = |source: &str, subtask: Option<&str>| -> Vec<ExampleId> {
        let of = |row: &&less_select::pool::table::TableRow| {
            row.source == source && row.subtask.as_deref() == subtask
        };
        target.rows.iter().filter(of).map(|row| row.id).collect()
    };
    let build = |silenced: &[ExampleId]| {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Faulty::new(1, silenced.iter().map(|id| (*id, Fault::Gradient(0.0))));
        Setup::default()
            .collect_with(&mut model, &target, Split::Target, 1, dir.path(), &Silent)
            .unwrap();
        TargetIndex::build(&GradientStore::open(dir.path()).unwrap(), &target.rows)
    };
    let index = build(&rows("quiz", Some("b"))[..2]).unwrap();
    let counts: Vec<_> =
        index.subtasks.iter().map(|subtask| (subtask.n_examples, subtask.n_flagged)).collect();
    assert_eq!(counts, [(1, 0), (5, 0), (1, 2)]);
    assert_eq!(index.rows.ids.len(), 7);

    let error = build(&rows("quiz", Some("b"))).unwrap_err();
    insta::assert_snapshot!(error, @"subtask `quiz/b` has no usable gradient at `epoch-1`: all of its 3 examples are flagged");
}

#[test]
fn flagged_pool_rows_have_no_score() {
    let (pool, target) = (toy::pool(20, 12), toy::target(13));
    let mut world = World::new(&Setup::default(), &pool, &target, 2);
    let flagged = pool.rows[5].id;
    let dir = tempfile::tempdir().unwrap();
    let mut model = Faulty::new(2, [(flagged, Fault::Gradient(0.0))]);
    Setup::default().collect_with(&mut model, &pool, Split::Pool, 2, dir.path(), &Silent).unwrap();
    world.pools[1] = GradientStore::open(dir.path()).unwrap();
    let found = world.score(&pool, PLAIN);
    for (at, row) in found.rows.iter().enumerate() {
        assert_eq!(row.flag.as_deref(), (at == 5).then_some("zero gradient"));
        assert_eq!(row.best().is_none(), at == 5);
    }
}

#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T, InfluenceError>) -> String {
    let error = result.unwrap_err();
    match &error {
        InfluenceError::Store(store) => store.kind.to_string(),
        _ => error.to_string(),
    }
}

#[test]
fn gradients_that_do_not_belong_together_refuse_to_meet() {
    let (pool, target) = (toy::pool(20, 14), toy::target(15));
    let setup = |projection| Setup { projection, ..Setup::default() };
    let world = World::new(&setup(ProjectionKind::Sjlt), &pool, &target, 2);
    let dense = World::new(&setup(ProjectionKind::Rademacher), &pool, &target, 1);
    let meet = |pool_store, index| {
        let checkpoint =
            ScoredCheckpoint { pool: pool_store, index, lengths: None, learning_rate: 1.0 };
        message(score(&[checkpoint], &pool.rows, PLAIN, &Silent))
    };
    insta::assert_snapshot!(meet(&world.pools[0], &world.indices[1]), @"checkpoint is `epoch-1`, but `epoch-2` in the target's index");
    insta::assert_snapshot!(meet(&world.pools[0], &dense.indices[0]), @"projection fingerprint is `1024143fe2d3d94afb80a2d6d9cb174a`, but `e089ef58a7a82af85a9317c7ddc480a6` in the target's index");

    let other = World::new(&setup(ProjectionKind::Sjlt), &pool, &toy::pool(5, 16), 2);
    let mut mixed = world.checkpoints();
    mixed[1].index = &other.indices[1];
    insta::assert_snapshot!(message(score(&mixed, &pool.rows, PLAIN, &Silent)), @"the target's subtasks at `epoch-2` are not those at `epoch-1`");
}

#[test]
fn a_row_without_a_gradient_is_named() {
    let (pool, target) = (toy::pool(20, 17), toy::target(18));
    let world = World::new(&Setup::default(), &pool, &target, 1);
    let mut longer = pool;
    let new = toy::pool(1, 19).rows.remove(0);
    let id = new.id;
    longer.rows.push(new);
    let found = score(&world.checkpoints(), &longer.rows, PLAIN, &Silent);
    let text = message(found).replace(&id.to_string(), "NEW");
    insta::assert_snapshot!(text, @"example NEW of the pool has no gradient at `epoch-1`");
}

/// Stored in several goes, with rows that have left since.
#[test]
fn a_pool_that_changed_scores_as_one_that_was_so_from_the_start() {
    let (first, second) = (toy::random_examples(30, 40), toy::random_examples(40, 41));
    let in_a_table = |examples: &[Example]| {
        toy::table(examples.iter().cloned().map(|example| (example, "toy", None)))
    };
    let target = toy::target(42);
    let setup = Setup { projection: ProjectionKind::Sjlt, ..Setup::default() };
    let now = in_a_table(&[&first[..22], &second[..]].concat());
    let expected = World::new(&setup, &now, &target, 1).score(&now, PLAIN);

    let mut world = World::new(&setup, &now, &target, 1);
    let dir = tempfile::tempdir().unwrap();
    for earlier in [&first[..], &[&first[..25], &second[..7]].concat(), &second[3..20]] {
        setup.collect(&in_a_table(earlier), Split::Pool, 1, dir.path());
    }
    setup.collect(&now, Split::Pool, 1, dir.path());
    world.pools[0] = GradientStore::open(dir.path()).unwrap();
    assert!(world.pools[0].n_rows() > now.rows.len(), "rows that left are still stored");
    assert_eq!(bits(&world.score(&now, PLAIN)), bits(&expected));
}

#[test]
fn what_is_not_stored_cannot_be_scored() {
    let (pool, target) = (toy::pool(20, 20), toy::target(21));
    let setup = Setup { kinds: vec![GradientKind::Sgd], ..Setup::default() };
    let world = World::new(&setup, &pool, &target, 1);
    let found = score(&world.checkpoints(), &pool.rows, PLAIN, &Silent);
    insta::assert_snapshot!(message(found), @"holds no `adam-v` gradients");
}

#[test]
fn learning_rates_must_be_weights() {
    let (pool, target) = (toy::pool(5, 22), toy::target(23));
    let world = World::new(&Setup::default(), &pool, &target, 2);
    for rates in [[0.0, 0.0], [1.0, -1.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
        let mut checkpoints = world.checkpoints();
        for (checkpoint, rate) in checkpoints.iter_mut().zip(rates) {
            checkpoint.learning_rate = rate;
        }
        let found = score(&checkpoints, &pool.rows, PLAIN, &Silent);
        assert!(matches!(found, Err(InfluenceError::Weights(_))), "{rates:?}");
    }
    assert!(matches!(score(&[], &[], PLAIN, &Silent), Err(InfluenceError::Weights(_))));
}

#[test]
fn scoring_stops_when_asked() {
    struct Interrupted;
    impl Observer for Interrupted {
        fn notify(&self, _event: Event) {}
        fn is_interrupted(&self) -> bool {
            true
        }
    }
    let (pool, target) = (toy::pool(5, 24), toy::target(25));
    let world = World::new(&Setup::default(), &pool, &target, 1);
    let found = score(&world.checkpoints(), &pool.rows, PLAIN, &Interrupted);
    assert!(matches!(found, Err(InfluenceError::Interrupted)));
}

fn bits(table: &ScoreTable) -> Vec<(ExampleId, Vec<u32>)> {
    let bits = |row: &ScoreRow| row.by_subtask.iter().map(|score| score.to_bits()).collect();
    table.rows.iter().map(|row| (row.id, bits(row))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn scores_depend_on_neither_shards_nor_threads_nor_the_pools_order(
        shard_rows in 1usize..50,
        batch_tokens in 20usize..300,
        n_threads in 1usize..4,
        n_scoring_threads in 1usize..4,
        order in Just((0..45).collect::<Vec<usize>>()).prop_shuffle(),
        projection in prop::sample::select(vec![ProjectionKind::Sjlt, ProjectionKind::Rademacher]),
    ) {
        let kinds = PLAIN.kinds.to_vec();
        let plain = Setup { kinds, projection, proj_dim: 512, ..Setup::default() };
        let target = toy::target(27);
        let in_order = toy::pool(45, 26);
        let expected = World::new(&plain, &in_order, &target, 2).score(&in_order, PLAIN);

        let other = Setup { shard_rows, batch_tokens, n_threads, ..plain };
        let examples = toy::random_examples(45, 26);
        let shuffled = toy::table(order.into_iter().map(|at| (examples[at].clone(), "toy", None)));
        let threads = std::num::NonZeroUsize::new(n_scoring_threads);
        let found = World::new(&other, &shuffled, &target, 2)
            .score(&shuffled, ScoreSettings { threads, ..PLAIN });
        prop_assert_eq!(bits(&found), bits(&expected));
    }

    #[test]
    fn scaling_gradients_changes_no_cosine(exponent in -20i32..20) {
        let (pool, target) = (toy::pool(20, 28), toy::target(29));
        let setup = Setup { projection: ProjectionKind::Sjlt, ..Setup::default() };
        let mut world = World::new(&setup, &pool, &target, 1);
        let expected = world.score_as(&pool, GradientKind::Sgd, Aggregation::MeanOfCosines);
        let dir = tempfile::tempdir().unwrap();
        let times = Fault::Times(2f32.powi(exponent));
        let mut model = Faulty::new(1, pool.rows.iter().map(|row| (row.id, times)));
        setup.collect_with(&mut model, &pool, Split::Pool, 1, dir.path(), &Silent).unwrap();
        world.pools[0] = GradientStore::open(dir.path()).unwrap();
        let found = world.score_as(&pool, GradientKind::Sgd, Aggregation::MeanOfCosines);
        prop_assert_eq!(bits(&found), bits(&expected));
    }
}
