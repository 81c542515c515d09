//! Inner products that weigh directions.

use std::ops::Range;

use less_select::gradient::direction::GradientKind;
use less_select::influence::Aggregation;
use less_select::influence::index::TargetIndex;
use less_select::influence::precondition::{Precondition, Preconditioned};
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::progress::Silent;
use less_select::store::gradient_store::GradientStore;
use less_select::store::{Split, StoreDtype};
use tempfile::TempDir;

use crate::diagnostics::{Normal, heads, store, unit};

/// A pool and a target of two subtasks, three examples and two.
struct Sides {
    pool: GradientStore,
    index: TargetIndex,
    n_pool: usize,
    _dirs: [TempDir; 2],
}

impl Sides {
    fn new(pool: &[Vec<f64>], target: &[Vec<f64>], shard_rows: usize, dtype: StoreDtype) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let kinds = [GradientKind::AdamV, GradientKind::Sgd];
        let pool_store = store(dirs[0].path(), Split::Pool, kinds[0], dtype, shard_rows, pool);
        let target_dir = dirs[1].path();
        let target = store(target_dir, Split::Target, kinds[1], StoreDtype::F32, 100, target);
        let index = TargetIndex::build(&target, &heads(&["a", "a", "a", "b", "b"])).unwrap();
        Self { pool: pool_store, index, n_pool: pool.len(), _dirs: dirs }
    }

    fn preconditioned(&self, by: Precondition) -> Preconditioned {
        let table = heads(&vec!["pool"; self.n_pool]);
        by.apply(self.index.clone(), &self.pool, &table, GradientKind::AdamV, &Silent).unwrap()
    }

    /// The rows as they are stored.
    fn stored(&self) -> Vec<Vec<f64>> {
        let rows = |shard: &less_select::store::shard::Shard| -> Vec<Vec<f64>> {
            let unit = shard.kind(GradientKind::AdamV).unwrap().unit;
            let row = |row| unit.decode(row..row + 1).into_iter().map(f64::from).collect();
            (0..shard.n_rows()).map(row).collect()
        };
        self.pool.shards().iter().flat_map(rows).collect()
    }

    /// Every row of the pool's scores on both subtasks.
    fn scores(&self, target: &Preconditioned, aggregation: Aggregation) -> Vec<Vec<f32>> {
        let lengths = target.lengths.as_deref();
        let (pool, index) = (&self.pool, &target.index);
        let checkpoints = [ScoredCheckpoint { pool, index, lengths, learning_rate: 1.0 }];
        let settings = ScoreSettings {
            kinds: &[GradientKind::AdamV],
            aggregations: &[aggregation],
            threads: None,
        };
        let table = heads(&vec!["pool"; self.n_pool]);
        let scores = score(&checkpoints, &table, settings, &Silent).unwrap().remove(0);
        scores.rows.into_iter().map(|row| row.by_subtask).collect()
    }

    /// Positions of the pool's rows, best first, on the better of the subtasks.
    fn ranking(&self, target: &Preconditioned) -> Vec<usize> {
        let scores = self.scores(target, Aggregation::MeanOfCosines);
        let best = |row: usize| scores[row].iter().copied().fold(f32::MIN, f32::max);
        let mut order: Vec<usize> = (0..self.n_pool).collect();
        order.sort_by(|a, b| best(*b).total_cmp(&best(*a)));
        order
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The whole matrix R + λI of the pool's rows.
fn moment(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, d) = (rows.len(), rows[0].len());
    let trace = rows.iter().map(|row| dot(row, row)).sum::<f64>() / n as f64;
    let damping = 0.1 * trace / n.min(d) as f64;
    let entry = |i: usize, j: usize| {
        let mean = rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / n as f64;
        if i == j { mean + damping } else { mean }
    };
    (0..d).map(|i| (0..d).map(|j| entry(i, j)).collect()).collect()
}

/// Elimination with pivots.
fn solve(matrix: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let d = right.len();
    let equation = |(row, right): (&Vec<f64>, &f64)| [&row[..], &[*right]].concat();
    let mut matrix: Vec<Vec<f64>> = matrix.iter().zip(right).map(equation).collect();
    for at in 0..d {
        let size = |row: &usize| matrix[*row][at].abs();
        let pivot = (at..d).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap();
        matrix.swap(at, pivot);
        let pivot = matrix[at].clone();
        for (_, row) in matrix.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            let times = row[at] / pivot[at];
            row.iter_mut().zip(&pivot).for_each(|(value, pivot)| *value -= times * pivot);
        }
    }
    (0..d).map(|at| matrix[at][d] / matrix[at][at]).collect()
}

fn assert_near(found: &[f32], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        // What is left of the equation, 1e-6, times how unlike its eigenvalues are.
        approx::assert_abs_diff_eq!(f64::from(*found), *expected, epsilon = 1e-4);
    }
}

fn mean(rows: &[Vec<f64>], range: Range<usize>) -> Vec<f64> {
    let n = range.len() as f64;
    let sum = |at: usize| rows[range.clone()].iter().map(|row| row[at]).sum::<f64>();
    (0..rows[0].len()).map(|at| sum(at) / n).collect()
}

#[test]
fn rows_are_those_of_the_whole_matrix_inverted() {
    let mut normal = Normal::new("precondition");
    // Fewer rows than coordinates, and more.
    for n_pool in [20, 150] {
        for dtype in [StoreDtype::F32, StoreDtype::I4] {
            let mut pool = normal.rows(n_pool, 64);
            for value in pool.iter_mut().flat_map(|row| &mut row[..4]) {
                *value += 3.0;
            }
            let target = unit(normal.rows(5, 64));
            let sides = Sides::new(&pool, &target, 7, dtype);
            let found = sides.preconditioned(Precondition::Pool).index;
            let moment = moment(&sides.stored());
            let slow = |row: &[f64]| unit(vec![solve(&moment, row)]).remove(0);
            let expected: Vec<_> = target.iter().map(|row| slow(row)).collect();
            for (found, expected) in found.rows.unit.rows().into_iter().zip(&expected) {
                assert_near(found.to_slice().unwrap(), expected);
            }
            for (subtask, members) in [0..3, 3..5].into_iter().enumerate() {
                let means = found.centroids(Aggregation::MeanOfCosines);
                let of_mean = found.centroids(Aggregation::CosineOfMean);
                let [means, of_mean] = [means, of_mean].map(|rows| rows.row(subtask).to_vec());
                assert_near(&means, &mean(&expected, members.clone()));
                let centroid = unit(vec![mean(&target, members)]).remove(0);
                assert_near(&of_mean, &slow(&centroid));
            }
        }
    }
}

#[test]
fn what_all_rows_have_in_common_decides_nothing() {
    let mut normal = Normal::new("common direction");
    let [common, skill] = [0, 1].map(|_| normal.rows(1, 128).remove(0));
    // Rows with more or less of what is common; one in forty has some of the skill.
    // A skill that much of the pool has would be taken down, too.
    let mut pool = normal.rows(400, 128);
    for (at, row) in pool.iter_mut().enumerate() {
        let (loud, skilled) = if at % 40 == 0 { (2.0, 1.0) } else { (4.0, 0.0) };
        let parts = common.iter().zip(&skill);
        row.iter_mut().zip(parts).for_each(|(x, (c, s))| *x += loud * c + skilled * s);
    }
    let mut target = normal.rows(5, 128);
    for row in &mut target {
        let parts = common.iter().zip(&skill);
        row.iter_mut().zip(parts).for_each(|(x, (c, s))| *x += 8.0 * c + 2.0 * s);
    }
    let sides = Sides::new(&pool, &target, 100, StoreDtype::I4);
    let n_skilled = |by: Precondition| {
        let best = sides.ranking(&sides.preconditioned(by));
        best[..10].iter().filter(|row| row.is_multiple_of(40)).count()
    };
    assert_eq!(n_skilled(Precondition::None), 0);
    assert_eq!(n_skilled(Precondition::Pool), 10);
    #[cfg(feature = "linalg")]
    assert_eq!(n_skilled(Precondition::Whiten), 10);
}

#[test]
fn shards_and_threads_change_no_bit() {
    let mut normal = Normal::new("bits");
    let (pool, target) = (normal.rows(700, 128), normal.rows(5, 128));
    let threads = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for by in ALL.into_iter().filter(|by| by.is_built_in()) {
        let [one, other] = [(1, 700), (3, 90)].map(|(n_threads, shard_rows)| {
            let sides = Sides::new(&pool, &target, shard_rows, StoreDtype::I4);
            threads(n_threads).install(|| sides.preconditioned(by))
        });
        assert_eq!(one.lengths, other.lengths);
        assert_eq!(one.index.rows.unit, other.index.rows.unit);
        for aggregation in Aggregation::ALL {
            assert_eq!(one.index.centroids(aggregation), other.index.centroids(aggregation));
        }
    }
}

const ALL: [Precondition; 3] = [Precondition::Pool, Precondition::Whiten, Precondition::Target];

/// Those that need LAPACK.
#[cfg(feature = "linalg")]
mod linalg {
    use super::*;

    /// Checks the scores of all rows against cosines by `form`, the inner product written
    /// out.
    fn assert_cosines(sides: &Sides, target: &[Vec<f64>], by: Precondition, form: &Form<'_>) {
        let preconditioned = sides.preconditioned(by);
        let cosine = |x: &[f64], q: &[f64]| form(x, q) / (form(x, x) * form(q, q)).sqrt();
        for aggregation in Aggregation::ALL {
            let found = sides.scores(&preconditioned, aggregation);
            for (row, found) in sides.stored().iter().zip(found) {
                for (found, members) in found.into_iter().zip([0..3, 3..5]) {
                    let members = &target[members];
                    let cosines = members.iter().map(|q| cosine(row, q));
                    let expected = match aggregation {
                        Aggregation::MeanOfCosines => cosines.sum::<f64>() / members.len() as f64,
                        Aggregation::CosineOfMean => cosine(row, &mean(members, 0..members.len())),
                    };
                    approx::assert_abs_diff_eq!(f64::from(found), expected, epsilon = 1e-5);
                }
            }
        }
    }

    fn axis(at: usize, dim: usize) -> Vec<f64> {
        (0..dim).map(|other| f64::from(u8::from(other == at))).collect()
    }

    type Form<'a> = dyn Fn(&[f64], &[f64]) -> f64 + 'a;

    #[test]
    fn white_cosines_are_those_of_the_whole_matrix_inverted() {
        let mut normal = Normal::new("whiten");
        // Fewer rows than coordinates, and more; more coordinates than a stripe has.
        for (n_pool, dim) in [(20, 64), (150, 64), (40, 128)] {
            for dtype in [StoreDtype::F32, StoreDtype::I4] {
                let pool = normal.rows(n_pool, dim);
                let target = unit(normal.rows(5, dim));
                let sides = Sides::new(&pool, &target, 7, dtype);
                let moment = moment(&sides.stored());
                // Symmetric, so that rows are columns.
                let inverse: Vec<Vec<f64>> =
                    (0..dim).map(|at| solve(&moment, &axis(at, dim))).collect();
                let times = |q: &[f64]| inverse.iter().map(|row| dot(row, q)).collect::<Vec<_>>();
                let form = |x: &[f64], q: &[f64]| dot(x, &times(q));
                assert_cosines(&sides, &target, Precondition::Whiten, &form);
            }
        }
    }

    #[test]
    fn cosines_in_the_targets_subspace_are_those_of_what_lies_along_its_rows() {
        let mut normal = Normal::new("target");
        let (pool, target) = (normal.rows(30, 64), unit(normal.rows(5, 64)));
        let sides = Sides::new(&pool, &target, 7, StoreDtype::F32);
        // By the normal equations: x ↦ Qᵀ(QQᵀ)⁻¹Qx.
        let gram: Vec<Vec<f64>> =
            target.iter().map(|a| target.iter().map(|b| dot(a, b)).collect()).collect();
        let along = |x: &[f64]| target.iter().map(|q| dot(q, x)).collect::<Vec<_>>();
        let form = |x: &[f64], q: &[f64]| dot(&along(x), &solve(&gram, &along(q)));
        assert_cosines(&sides, &target, Precondition::Target, &form);
    }

    #[test]
    fn a_twentieth_of_the_targets_energy_is_no_direction() {
        let mut normal = Normal::new("energy");
        let skill = unit(normal.rows(1, 64)).remove(0);
        let mut target = unit(normal.rows(5, 64));
        for row in &mut target {
            row.iter_mut().zip(&skill).for_each(|(value, skill)| *value = skill + 0.1 * *value);
        }
        let sides = Sides::new(&normal.rows(30, 64), &unit(target), 7, StoreDtype::F32);
        let found = sides.preconditioned(Precondition::Target);
        // On a line every cosine is 1 or -1.
        for score in sides.scores(&found, Aggregation::MeanOfCosines).concat() {
            approx::assert_abs_diff_eq!(score.abs(), 1.0, epsilon = 1e-5);
        }
    }

    #[test]
    fn a_row_at_right_angles_to_the_target_scores_zero() {
        let target: Vec<_> = (0..5).map(|at| axis(at, 64)).collect();
        let sides = Sides::new(&[axis(0, 64), axis(9, 64)], &target, 7, StoreDtype::F32);
        let found = sides.preconditioned(Precondition::Target);
        let scores = sides.scores(&found, Aggregation::CosineOfMean);
        assert_eq!(scores[1], [0.0, 0.0]);
        approx::assert_abs_diff_eq!(f64::from(scores[0][0]), 1.0 / 3_f64.sqrt(), epsilon = 1e-5);
    }

    #[test]
    fn whitening_says_which_rows_are_too_long() {
        let pool = vec![vec![1.0; 1 << 15]];
        let target = vec![vec![1.0; 1 << 15]; 5];
        let sides = Sides::new(&pool, &target, 7, StoreDtype::I1);
        let table = heads(&["pool"]);
        let found = Precondition::Whiten.apply(
            sides.index.clone(),
            &sides.pool,
            &table,
            GradientKind::AdamV,
            &Silent,
        );
        assert_eq!(
            found.unwrap_err().to_string(),
            "rows of 32768 coordinates are too long for `whiten`, which squares that: at most 16384; \
             `pool` does without"
        );
    }
    /// Through the command line, on the gradients of the tiny model.
    #[cfg(feature = "torch")]
    mod runs {
        use less_select::influence::example_scores::ExampleScores;
        use less_select::influence::example_scores_file::cosines_path;
        use less_select::influence::index::subtask_name;
        use less_select::influence::scores::ScoreTable;
        use less_select::pool::table::ExampleTable;
        use less_select::selection::SelectionFile;

        use super::*;
        use crate::support::{TestRun, pool_row};

        const CHECKPOINTS: [&str; 2] = ["epoch-1", "epoch-2"];

        /// What makes cosines of the pool's rows and the target's.
        type Cosines<'a> = dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<Vec<f64>> + 'a;

        /// Short rows, so that the matrix can be written out, and the order by score.
        fn succeeds(run: &TestRun, precondition: &str) {
            let args = ["--proj-dim", "64", "--selector", "top", "--precondition", precondition];
            let said = run.run(&args);
            assert_eq!(said.code, 0, "{}", said.stderr);
        }

        /// The stored rows of a side at a checkpoint, in order of its table.
        fn rows(run: &TestRun, checkpoint: &str, split: Split) -> Vec<Vec<f64>> {
            let table =
                ExampleTable::open(&run.path(&format!("run/pool/{split}.parquet"))).unwrap();
            let store = run.path(&format!("run/gradients/{checkpoint}/{split}"));
            let store = GradientStore::open(&store).unwrap();
            let kind = match split {
                Split::Pool => GradientKind::AdamV,
                Split::Target => GradientKind::Sgd,
            };
            let places = store.places(table.rows().iter().map(|row| row.id)).unwrap();
            let row = |place: &less_select::store::gradient_store::RowPlace| {
                let unit = store.shards()[place.shard].kind(kind).unwrap().unit;
                unit.decode(place.row..place.row + 1).into_iter().map(f64::from).collect()
            };
            places.iter().map(row).collect()
        }

        /// Cosines of `pool` with `target` by an inner product.
        fn cosines(pool: &[Vec<f64>], target: &[Vec<f64>], form: &Form<'_>) -> Vec<Vec<f64>> {
            let cosine = |x: &[f64], q: &[f64]| form(x, q) / (form(x, x) * form(q, q)).sqrt();
            let with_all = |x: &Vec<f64>| target.iter().map(|q| cosine(x, q)).collect();
            pool.iter().map(with_all).collect()
        }

        /// The scores of the pool's rows on each subtask: the mean over its examples, and
        /// that over the checkpoints by weight.
        fn slow_scores(run: &TestRun, subtasks: &[String], by: &Cosines<'_>) -> Vec<Vec<f64>> {
            let target = ExampleTable::open(&run.path("run/pool/target.parquet")).unwrap();
            let paths = CHECKPOINTS.map(|name| cosines_path(&run.path("run/cosines"), name));
            let examples = ExampleScores::open(&paths).unwrap();
            let mut scores = vec![vec![0.0; subtasks.len()]; 24];
            for (checkpoint, file) in CHECKPOINTS.iter().zip(&examples.checkpoints) {
                let sides = [Split::Pool, Split::Target].map(|of| rows(run, checkpoint, of));
                for (scores, cosines) in scores.iter_mut().zip(by(&sides[0], &sides[1])) {
                    for (score, subtask) in scores.iter_mut().zip(subtasks) {
                        let own = target.rows().iter().zip(&cosines);
                        let own = own.filter(|(row, _)| subtask_name(row) == *subtask);
                        let own: Vec<f64> = own.map(|(_, cosine)| *cosine).collect();
                        let mean = own.iter().sum::<f64>() / own.len() as f64;
                        *score += file.header().weight * mean;
                    }
                }
            }
            scores
        }

        /// Checks the scores of a run against those made of cosines, and the selection
        /// against the best of these.
        #[track_caller]
        fn assert_selects_by(run: &TestRun, by: &Cosines<'_>) {
            let found = ScoreTable::read(&run.path("run/scores.parquet")).unwrap();
            let expected = slow_scores(run, &found.subtasks, by);
            for (found, expected) in found.rows.iter().zip(&expected) {
                for (found, expected) in found.by_subtask.iter().zip(expected) {
                    approx::assert_abs_diff_eq!(f64::from(*found), *expected, epsilon = 1e-5);
                }
            }
            let best = |row: usize| expected[row].iter().copied().fold(f64::MIN, f64::max);
            let mut order: Vec<usize> = (0..24).collect();
            order.sort_by(|a, b| best(*b).total_cmp(&best(*a)));
            let order: Vec<_> = order.into_iter().map(|row| found.rows[row].id).collect();
            let selected = SelectionFile::read(&run.path("run/selection.json")).unwrap().selected;
            let selected: Vec<_> = selected.into_iter().map(|row| row.id).collect();
            assert_eq!(selected, order[..6]);
        }

        #[test]
        fn a_run_with_whiten_selects_by_cosines_of_the_whole_matrix_inverted() {
            let run = TestRun::new(24);
            succeeds(&run, "none");
            let gradients = run.checksums("gradients");
            // Stored rows are quantized, and their inner products are the cosines.
            assert_selects_by(&run, &|pool, target| {
                pool.iter().map(|x| target.iter().map(|q| dot(x, q)).collect()).collect()
            });
            succeeds(&run, "whiten");
            assert_eq!(run.checksums("gradients"), gradients);
            assert_selects_by(&run, &|pool, target| {
                let (moment, dim) = (moment(pool), pool[0].len());
                // Symmetric, so that rows are columns.
                let inverse: Vec<Vec<f64>> =
                    (0..dim).map(|at| solve(&moment, &axis(at, dim))).collect();
                let times = |q: &[f64]| inverse.iter().map(|row| dot(row, q)).collect::<Vec<_>>();
                cosines(pool, target, &|x, q| dot(x, &times(q)))
            });
            assert_eq!(run.say(&["fsck"]).code, 0);
        }

        #[test]
        fn a_run_with_target_selects_by_cosines_of_what_lies_along_the_targets_rows() {
            let run = TestRun::new(24);
            // A sum and a spelling.
            run.write("target.jsonl", &format!("{}\n{}\n", pool_row(33), pool_row(34)));
            succeeds(&run, "target");
            assert_selects_by(&run, &|pool, target| {
                // The squared singular values of two unit rows are 1 ± their cosine.
                let cosine = dot(&target[0], &target[1]);
                assert!(1.0 - cosine.abs() > 0.1, "a twentieth is no direction: {cosine}");
                let gram: Vec<Vec<f64>> =
                    target.iter().map(|a| target.iter().map(|b| dot(a, b)).collect()).collect();
                let along = |x: &[f64]| target.iter().map(|q| dot(q, x)).collect::<Vec<_>>();
                cosines(pool, target, &|x, q| dot(&along(x), &solve(&gram, &along(q))))
            });
            assert_eq!(run.say(&["fsck"]).code, 0);
        }
    }
}
