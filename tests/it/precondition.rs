//! Target rows with what all of the pool has in common taken down.

use std::ops::Range;

use less_select::gradient::direction::GradientKind;
use less_select::influence::Aggregation;
use less_select::influence::index::TargetIndex;
use less_select::influence::precondition::by_pool;
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

    fn preconditioned(&self) -> TargetIndex {
        let table = heads(&vec!["pool"; self.n_pool]);
        by_pool(&self.index, &self.pool, &table, GradientKind::AdamV, &Silent).unwrap()
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

    /// Positions of the pool's rows, best first, on the better of the subtasks.
    fn ranking(&self, index: &TargetIndex) -> Vec<usize> {
        let checkpoints = [ScoredCheckpoint { pool: &self.pool, index, learning_rate: 1.0 }];
        let settings = ScoreSettings {
            kinds: &[GradientKind::AdamV],
            aggregations: &[Aggregation::MeanOfCosines],
            threads: None,
        };
        let table = heads(&vec!["pool"; self.n_pool]);
        let scores = score(&checkpoints, &table, settings, &Silent).unwrap().remove(0);
        let mut order: Vec<usize> = (0..self.n_pool).collect();
        let score = |row: usize| scores.rows[row].best().unwrap().1;
        order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        order
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The whole matrix, and elimination with pivots.
fn slow(rows: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let (n, d) = (rows.len(), right.len());
    let trace = rows.iter().map(|row| dot(row, row)).sum::<f64>() / n as f64;
    let damping = 0.1 * trace / n.min(d) as f64;
    let entry = |i: usize, j: usize| {
        let mean = rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / n as f64;
        if i == j { mean + damping } else { mean }
    };
    let equation = |i: usize| (0..d).map(|j| entry(i, j)).chain([right[i]]).collect();
    let mut matrix: Vec<Vec<f64>> = (0..d).map(equation).collect();
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
    unit(vec![(0..d).map(|at| matrix[at][d] / matrix[at][at]).collect()]).remove(0)
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
            let found = sides.preconditioned();
            let stored = sides.stored();
            let expected: Vec<_> = target.iter().map(|row| slow(&stored, row)).collect();
            for (found, expected) in found.rows.unit.rows().into_iter().zip(&expected) {
                assert_near(found.to_slice().unwrap(), expected);
            }
            for (subtask, members) in [0..3, 3..5].into_iter().enumerate() {
                let means = found.centroids(Aggregation::MeanOfCosines);
                let of_mean = found.centroids(Aggregation::CosineOfMean);
                let [means, of_mean] = [means, of_mean].map(|rows| rows.row(subtask).to_vec());
                assert_near(&means, &mean(&expected, members.clone()));
                let centroid = unit(vec![mean(&target, members)]).remove(0);
                assert_near(&of_mean, &slow(&stored, &centroid));
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
    let n_skilled = |index: &TargetIndex| {
        let best = sides.ranking(index);
        best[..10].iter().filter(|row| row.is_multiple_of(40)).count()
    };
    assert_eq!(n_skilled(&sides.index), 0);
    assert_eq!(n_skilled(&sides.preconditioned()), 10);
}

#[test]
fn shards_and_threads_change_no_bit() {
    let mut normal = Normal::new("bits");
    let (pool, target) = (normal.rows(700, 64), normal.rows(5, 64));
    let threads = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let [one, other] = [(1, 700), (3, 90)].map(|(n_threads, shard_rows)| {
        let sides = Sides::new(&pool, &target, shard_rows, StoreDtype::I4);
        threads(n_threads).install(|| sides.preconditioned())
    });
    assert_eq!(one.rows.unit, other.rows.unit);
    for aggregation in Aggregation::ALL {
        assert_eq!(one.centroids(aggregation), other.centroids(aggregation));
    }
}
