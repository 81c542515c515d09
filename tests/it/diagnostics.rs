//! How steady a selection is: what halves of the target and of the stored rows, and
//! rankings without a checkpoint, have in common.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use less_select::diagnostics::sketch::{SketchHalves, sketch_halves};
use less_select::diagnostics::target::{TargetHalves, target_halves, without_checkpoints};
use less_select::diagnostics::{Diagnostics, N_SAMPLE, NOISE, Sample, beyond_chance};
use less_select::gradient::direction::GradientKind;
use less_select::gradient::layout::ParamLayout;
use less_select::influence::Aggregation;
use less_select::influence::example_scores::{
    CosinesHeader, ExampleScores, TargetExample, TargetExamples,
};
use less_select::influence::example_scores_file::{cosines_path, write_cosines};
use less_select::influence::index::TargetIndex;
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::pool::ExampleId;
use less_select::pool::table::TableRow;
use less_select::progress::Silent;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use less_select::selection::selector::TargetCosines;
use less_select::selection::{
    Normalize, Open, SelectFrom, Selected, SelectionSettings, Selector, SourceLimits, select, top,
};
use less_select::store::gradient_store::GradientStore;
use less_select::store::shard::{KindRows, ShardRows, StoreHeader};
use less_select::store::{FORMAT, Split, StoreDtype, StoreError};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Standard normal numbers, by Box and Muller.
pub(crate) struct Normal(ChaCha8Rng);

impl Normal {
    pub(crate) fn new(purpose: &str) -> Self {
        Self(Seed(7).stream(&[purpose]))
    }

    fn next(&mut self) -> f64 {
        let mut uniform = || (f64::from(self.0.next_u32()) + 0.5) / 2_f64.powi(32);
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }

    pub(crate) fn rows(&mut self, n: usize, length: usize) -> Vec<Vec<f64>> {
        (0..n).map(|_| (0..length).map(|_| self.next()).collect()).collect()
    }
}

fn id(n: usize) -> ExampleId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    ExampleId(bytes)
}

/// Rows with a score each on one subtask.
fn table(scores: impl IntoIterator<Item = f32>) -> ScoreTable {
    let row = |(n, score)| ScoreRow {
        id: id(n),
        source: "pool".to_owned(),
        n_tokens: 10,
        n_supervised: 5,
        loss: 1.0,
        norm: 1.0,
        flag: None,
        by_subtask: vec![score],
    };
    let rows = scores.into_iter().enumerate().map(row).collect();
    ScoreTable { subtasks: vec!["skill".to_owned()], rows }
}

/// The settings of a selector, and nothing else.
pub(crate) fn selecting(selector: Selector) -> SelectionSettings {
    SelectionSettings {
        selector,
        normalize: Normalize::None,
        neighbors: "20".parse().unwrap(),
        redundancy_penalty: 0.5,
        limits: SourceLimits::default(),
        near_duplicates: None,
        target_budgets: BTreeMap::new(),
        subset_per_target: false,
        decontaminate_target: false,
        decontaminate: Vec::new(),
    }
}

/// Every subtask a target of its own.
fn from<'a>(scores: &'a ScoreTable, examples: Option<&'a dyn TargetCosines>) -> SelectFrom<'a> {
    SelectFrom { scores, target_sources: &scores.subtasks, examples, rows: None }
}

/// A sample of which the highest scores are selected.
fn sample<'a>(scores: &'a ScoreTable, budget: &str) -> Sample<'a> {
    let best = top(scores, budget.parse().unwrap());
    Sample::of(from(scores, None), &selecting(Selector::Top), &best).unwrap()
}

/// The cosines of `n` rows with the examples of `subtasks`, at checkpoints of these
/// weights.
fn cosines(
    dir: &Path,
    n: usize,
    subtasks: &[u32],
    weights: &[f64],
    mut cosine: impl FnMut(usize, usize, usize) -> f64,
) -> ExampleScores {
    let examples = subtasks.iter().enumerate();
    let targets = TargetExamples {
        subtasks: (0..=*subtasks.iter().max().unwrap()).map(|of| format!("skill/{of}")).collect(),
        examples: examples.map(|(at, of)| TargetExample { id: id(at), subtask: *of }).collect(),
    };
    let ids: Vec<_> = (0..n).map(id).collect();
    let mut paths = Vec::new();
    for (checkpoint, weight) in weights.iter().enumerate() {
        let name = format!("epoch-{}", checkpoint + 1);
        let header =
            CosinesHeader { checkpoint: name.clone(), weight: *weight, targets: targets.clone() };
        let width = subtasks.len();
        write_cosines(dir, header, &ids, |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
                for (column, out) in out.iter_mut().enumerate() {
                    *out = cosine(checkpoint, row, column) as f32;
                }
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
        paths.push(cosines_path(dir, &name));
    }
    ExampleScores::open(&paths).unwrap()
}

/// A pool of which one row in 20 is of the skill, its cosines with 16 target examples
/// higher by `shift` standard deviations of the mean over all of them.
fn planted(n: usize, shift: f64, selector: Selector) -> (Diagnostics, f64) {
    let dir = tempfile::tempdir().unwrap();
    let mut noise = Normal::new("planted");
    let (is_of_skill, n_examples) = (|row: usize| row.is_multiple_of(20), 16.0_f64);
    let mut means = vec![0.0; n];
    let examples = cosines(dir.path(), n, &[0; 16], &[1.0], |_, row, _| {
        let shift = if is_of_skill(row) { shift / n_examples.sqrt() } else { 0.0 };
        let cosine = 0.01 * (noise.next() + shift);
        means[row] += cosine;
        cosine
    });
    let scores = table(means.iter().map(|mean| (*mean / n_examples) as f32));
    let (from, settings) = (from(&scores, Some(&examples)), selecting(selector));
    let best = select(from, &settings, "5%".parse().unwrap(), &mut Open).unwrap().rows;
    let n_found = best.iter().filter(|place| is_of_skill(place.position)).count();
    let sample = Sample::of(from, &settings, &best).unwrap();
    let mut found = Diagnostics::of(&sample);
    found.target = target_halves(&examples, &sample, Seed(0));
    (found, n_found as f64 / best.len() as f64)
}

#[test]
fn a_planted_skill_is_steady_and_noise_is_not() {
    let (skill, found) = planted(2000, 40.0, Selector::Top);
    assert!(found > 0.999, "{found}");
    let TargetHalves { mean, low, high, n_examples, n_single_subtasks, n_draws } =
        skill.target.unwrap();
    assert_eq!((n_examples, n_single_subtasks, n_draws), (16, 0, 20));
    assert!(mean > 0.999 && low > 0.999 && high > 0.999, "{mean} {low} {high}");
    assert_eq!(skill.is_noise_of_target(), Some(false));

    let (noise, _) = planted(2000, 0.0, Selector::Top);
    assert_eq!((noise.n_rows, noise.n_selected), (2000, 100));
    let TargetHalves { mean, low, high, .. } = noise.target.unwrap();
    // 100 rows, 20 draws: 0.05 with a standard error of 0.005.
    approx::assert_abs_diff_eq!(mean, noise.chance, epsilon = 0.02);
    assert!(low <= mean && mean <= high && low < high, "{low} {mean} {high}");
    assert_eq!(noise.is_noise_of_target(), Some(true));
}

/// What [`NOISE`] stands between.
#[test]
fn the_threshold_is_where_half_of_the_selection_is_noise() {
    let beyond = |found: &Diagnostics| beyond_chance(found.target.unwrap().mean, found.chance);
    let (half, found) = planted(20_000, 1.94, Selector::Top);
    approx::assert_abs_diff_eq!(found, 0.5, epsilon = 0.04);
    approx::assert_abs_diff_eq!(beyond(&half), 0.085, epsilon = 0.015);
    assert!(beyond(&half) < NOISE);
    let (most, found) = planted(20_000, 3.86, Selector::Top);
    approx::assert_abs_diff_eq!(found, 0.9, epsilon = 0.03);
    assert!(beyond(&most) > 4.0 * NOISE, "{}", beyond(&most));

    let (some, found) = planted(6000, 4.0, Selector::RoundRobin);
    approx::assert_abs_diff_eq!(found, 0.4, epsilon = 0.06);
    approx::assert_abs_diff_eq!(beyond(&some), NOISE, epsilon = 0.03);
    let (most, found) = planted(6000, 10.0, Selector::RoundRobin);
    approx::assert_abs_diff_eq!(found, 0.93, epsilon = 0.03);
    assert!(beyond(&most) > 6.0 * NOISE, "{}", beyond(&most));
}

/// Each of two examples has five rows that are nearest to it and nothing in common with
/// the other; the first has by far the higher cosines.
#[test]
fn what_examples_take_in_turn_is_compared_where_they_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let cosine = |checkpoint: usize, row: usize, example: usize| match (example, row) {
        (0, 0..5) => 0.9 - row as f64 / 100.0,
        (1, 5..10) if checkpoint == 0 => 0.1 - row as f64 / 1000.0,
        (1, 10..15) if checkpoint == 1 => 0.1 - row as f64 / 1000.0,
        _ => -(row as f64) / 1e6,
    };
    let examples = cosines(dir.path(), 100, &[0, 0], &[0.9, 0.1], cosine);
    let scores = table((0..100).map(|row| 1.0 - row as f32 / 100.0));
    let overlaps = |selector: Selector, budget: &str| {
        let (from, settings) = (from(&scores, Some(&examples)), selecting(selector));
        let selected = select(from, &settings, budget.parse().unwrap(), &mut Open).unwrap().rows;
        let sample = Sample::of(from, &settings, &selected).unwrap();
        let without = without_checkpoints(&examples, &sample);
        without.iter().map(|without| without.overlap).collect::<Vec<_>>()
    };
    // By the mean the first example's rows are the best, with any checkpoint; in turn half
    // of the rows are the second's, others without the first checkpoint.
    assert_eq!(overlaps(Selector::Top, "5"), [1.0, 1.0]);
    assert_eq!(overlaps(Selector::RoundRobin, "10"), [0.5, 1.0]);
}

/// Rows 2 and 3 are third and fourth in the lists of both examples, but not by the first
/// checkpoint alone, and what two lists have is taken first. So lists of four change
/// without the second checkpoint, and lists of two do not.
#[test]
fn a_number_of_neighbors_is_as_large_a_part_of_the_sample_as_of_the_pool() {
    let dir = tempfile::tempdir().unwrap();
    let cosine = |checkpoint: usize, row: usize, example: usize| match (checkpoint, row) {
        (_, row) if row == 10 * example => 0.9,
        (_, row) if row == 10 * example + 1 => 0.8,
        (0, 2..4) => 0.6,
        (1, 2..4) => 0.7,
        (0, 20..22) if example == 0 => 0.65,
        (0, 30..32) if example == 1 => 0.65,
        _ => -(row as f64) / 1e6,
    };
    let n = 2 * N_SAMPLE;
    let examples = cosines(dir.path(), n, &[0, 0], &[0.5, 0.5], cosine);
    let scores = table((0..n).map(|row| 1.0 - row as f32 / n as f32));
    let overlaps = |neighbors: &str| {
        let neighbors = neighbors.parse().unwrap();
        let settings = SelectionSettings { neighbors, ..selecting(Selector::Knn) };
        let from = from(&scores, Some(&examples));
        let selected = select(from, &settings, "8".parse().unwrap(), &mut Open).unwrap().rows;
        let sample = Sample::of(from, &settings, &selected).unwrap();
        let without = without_checkpoints(&examples, &sample);
        without.iter().map(|without| without.overlap).collect::<Vec<_>>()
    };
    assert_eq!(overlaps("8"), [1.0, 0.5]);
    assert_eq!(overlaps("4"), [1.0, 1.0]);
}

#[test]
fn few_rows_are_not_called_noise() {
    let (few, _) = planted(100, 0.0, Selector::Top);
    assert_eq!((few.n_selected, few.is_noise_of_target()), (5, None));
}

#[test]
fn a_subtask_of_one_example_has_no_halves() {
    let rising = |_, row: usize, _| row as f64 / 40.0;
    let halves = |subtasks: &[u32]| {
        let dir = tempfile::tempdir().unwrap();
        let examples = cosines(dir.path(), 40, subtasks, &[1.0], rising);
        let mut scores = table((0..40).map(|row| row as f32));
        scores.subtasks = examples.targets.subtasks.clone();
        for row in &mut scores.rows {
            row.by_subtask = vec![row.by_subtask[0]; scores.subtasks.len()];
        }
        target_halves(&examples, &sample(&scores, "25%"), Seed(0))
    };
    let found = halves(&[0, 1, 1, 1, 2]).unwrap();
    assert_eq!((found.n_examples, found.n_single_subtasks), (3, 2));
    approx::assert_relative_eq!(found.low, 1.0);
    assert_eq!(halves(&[0, 1]), None);
}

#[test]
fn what_a_checkpoint_decides_is_lost_without_it() {
    let dir = tempfile::tempdir().unwrap();
    // The best are rows 0 to 9 by the first, 5 to 14 by the second.
    let cosine = |checkpoint: usize, row: usize, _| {
        f64::from(u8::from((5 * checkpoint..5 * checkpoint + 10).contains(&row)))
    };
    let examples = cosines(dir.path(), 100, &[0, 0], &[0.75, 0.25], cosine);
    let scores = table((0..100).map(|row| 1.0 - row as f32 / 100.0));
    let found = without_checkpoints(&examples, &sample(&scores, "10%"));
    let found: Vec<_> = found.iter().map(|of| (of.checkpoint.as_str(), of.overlap)).collect();
    assert_eq!(found, [("epoch-1", 0.5), ("epoch-2", 1.0)]);

    let dir = tempfile::tempdir().unwrap();
    let examples = cosines(dir.path(), 100, &[0, 0], &[1.0], cosine);
    assert!(without_checkpoints(&examples, &sample(&scores, "10%")).is_empty());
}

#[test]
fn where_there_is_no_choice_there_is_nothing_to_say() {
    let scores = table((0..10).map(|row| row as f32));
    let is_none = |scores: &ScoreTable, selected: &[Selected]| {
        Sample::of(from(scores, None), &selecting(Selector::Top), selected).is_none()
    };
    assert!(is_none(&scores, &top(&scores, "100%".parse().unwrap())));
    assert!(is_none(&scores, &[]));
    assert!(is_none(&table([]), &[]));
}

/// Writes `rows` as unit rows of `kind`.
pub(crate) fn store(
    dir: &Path,
    split: Split,
    kind: GradientKind,
    dtype: StoreDtype,
    shard_rows: usize,
    rows: &[Vec<f64>],
) -> GradientStore {
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype,
        format: FORMAT,
        gradient: String::new(),
        kinds: vec![kind],
        layout: String::new(),
        proj_dim: rows[0].len(),
        projection: String::new(),
        split,
    };
    let ids: Vec<usize> = (0..rows.len()).collect();
    let shards = ids.chunks(shard_rows).map(|ids| {
        let unit = ids.iter().flat_map(|id| {
            let norm = rows[*id].iter().map(|x| x * x).sum::<f64>().sqrt();
            rows[*id].iter().map(move |x| (x / norm) as f32)
        });
        ShardRows {
            ids: ids.iter().copied().map(id).collect(),
            kinds: vec![KindRows { unit: unit.collect(), norms: vec![1.0; ids.len()] }],
            loss: vec![1.0; ids.len()],
            n_supervised: vec![1; ids.len()],
            flags: vec![None; ids.len()],
        }
    });
    GradientStore::write(dir, &header, shards).unwrap()
}

pub(crate) fn heads(subtasks: &[&str]) -> Vec<TableRow> {
    let head = |(n, subtask): (usize, &&str)| TableRow {
        id: id(n),
        source: (*subtask).to_owned(),
        subtask: None,
        n_tokens: 10,
        n_supervised: 5,
        truncated: false,
    };
    subtasks.iter().enumerate().map(head).collect()
}

/// The cosines of `pool` and `target` rows, computed in the slow way.
struct SlowCosines {
    targets: TargetExamples,
    rows: Vec<Vec<f32>>,
}

impl SlowCosines {
    fn of(pool: &[Vec<f64>], target: &[Vec<f64>], index: &TargetIndex) -> Self {
        let examples = index.rows.ids.iter().zip(&index.rows.subtasks);
        let targets = TargetExamples {
            subtasks: index.subtasks.iter().map(|subtask| subtask.name.clone()).collect(),
            examples: examples.map(|(id, of)| TargetExample { id: *id, subtask: *of }).collect(),
        };
        let row = |row: &Vec<f64>| target.iter().map(|of| cosine(row, of) as f32).collect();
        Self { targets, rows: pool.iter().map(row).collect() }
    }
}

impl TargetCosines for SlowCosines {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        self.rows[rows].concat()
    }
}

/// The halves of projected `pool` and `target` rows, and the scores.
fn halves_of(
    pool: &[Vec<f64>],
    target: &[Vec<f64>],
    subtasks: &[&str],
    dtype: StoreDtype,
    aggregation: Aggregation,
    selector: Selector,
) -> (SketchHalves, ScoreTable) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let kinds = [GradientKind::AdamV, GradientKind::Sgd];
    let pool_store = store(dirs[0].path(), Split::Pool, kinds[0], dtype, 100, pool);
    let target_store = store(dirs[1].path(), Split::Target, kinds[1], StoreDtype::F32, 100, target);
    let index = TargetIndex::build(&target_store, &heads(subtasks)).unwrap();
    let checkpoints =
        [ScoredCheckpoint { pool: &pool_store, index: &index, lengths: None, learning_rate: 1.0 }];
    let settings = ScoreSettings {
        kinds: &[GradientKind::AdamV],
        aggregations: &[aggregation],
        threads: std::num::NonZeroUsize::new(1),
    };
    let heads = heads(&vec!["pool"; pool.len()]);
    let scores = score(&checkpoints, &heads, settings, &Silent).unwrap().remove(0);
    let examples = SlowCosines::of(pool, target, &index);
    let (from, settings) = (from(&scores, Some(&examples)), selecting(selector));
    let selected = select(from, &settings, "5%".parse().unwrap(), &mut Open).unwrap().rows;
    let sample = Sample::of(from, &settings, &selected).unwrap();
    let found = sketch_halves(&checkpoints, &sample, GradientKind::AdamV, aggregation).unwrap();
    (found, scores)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Positions of the best, by scores computed in the slow way.
fn slow_best(scores: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(n);
    order
}

fn slow_overlap(a: &[usize], b: &[usize]) -> f64 {
    a.iter().filter(|row| b.contains(row)).count() as f64 / a.len() as f64
}

/// Rows scaled to length one.
pub(crate) fn unit(rows: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let unit = |row: Vec<f64>| {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.into_iter().map(|x| x / norm).collect()
    };
    rows.into_iter().map(unit).collect()
}

/// The score of a row by some of its coordinates, on subtasks of three and two of the
/// target's rows.
fn slow_score(row: &[f64], target: &[Vec<f64>], range: Range<usize>, by: Aggregation) -> f64 {
    let row = &row[range.clone()];
    let of = |members: &[Vec<f64>]| {
        let parts = members.iter().map(|member| &member[range.clone()]);
        match by {
            Aggregation::MeanOfCosines => {
                parts.map(|part| cosine(row, part)).sum::<f64>() / members.len() as f64
            }
            Aggregation::CosineOfMean => {
                let mut sum = vec![0.0; row.len()];
                for part in parts {
                    sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                }
                cosine(row, &sum)
            }
        }
    };
    of(&target[..3]).max(of(&target[3..]))
}

/// The first rows that two targets of three and two examples take in turn, by some of
/// the coordinates.
fn slow_turns(pool: &[Vec<f64>], target: &[Vec<f64>], range: Range<usize>, n: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    for turn in 0..n {
        let example = if turn % 2 == 0 { turn / 2 % 3 } else { 3 + turn / 2 % 2 };
        let likeness =
            |row: usize| cosine(&pool[row][range.clone()], &target[example][range.clone()]);
        let left = (0..pool.len()).filter(|row| !taken.contains(row));
        taken.extend(left.max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))));
    }
    taken
}

#[test]
fn halves_of_rows_are_those_of_the_slow_computation() {
    let mut normal = Normal::new("sketch");
    let (pool, target) = (normal.rows(300, 128), unit(normal.rows(5, 128)));
    let subtasks = ["a", "a", "a", "b", "b"];
    for (by, selector) in [
        (Aggregation::MeanOfCosines, Selector::Top),
        (Aggregation::CosineOfMean, Selector::Top),
        (Aggregation::MeanOfCosines, Selector::RoundRobin),
    ] {
        let (found, _) = halves_of(&pool, &target, &subtasks, StoreDtype::F32, by, selector);
        let selected = |range: Range<usize>| {
            if selector == Selector::RoundRobin {
                return slow_turns(&pool, &target, range, 15);
            }
            let score = |row: &Vec<f64>| slow_score(row, &target, range.clone(), by);
            slow_best(&pool.iter().map(score).collect::<Vec<_>>(), 15)
        };
        let (whole, first, second) = (selected(0..128), selected(0..64), selected(64..128));
        approx::assert_relative_eq!(found.between, slow_overlap(&first, &second));
        approx::assert_relative_eq!(found.with_whole[0], slow_overlap(&whole, &first));
        approx::assert_relative_eq!(found.with_whole[1], slow_overlap(&whole, &second));
        assert!(found.with_whole.iter().all(|share| *share > 0.05), "{selector}: {found:?}");
    }
}

#[test]
fn a_skill_is_in_both_halves_of_the_rows_and_noise_in_neither() {
    let mut normal = Normal::new("skill");
    let skill = normal.rows(1, 256).remove(0);
    let mut with_skill = |n: usize, is_in: &dyn Fn(usize) -> bool| {
        let mut rows = normal.rows(n, 256);
        for (_, row) in rows.iter_mut().enumerate().filter(|(at, _)| is_in(*at)) {
            row.iter_mut().zip(&skill).for_each(|(x, skill)| *x += skill);
        }
        rows
    };
    let pool = with_skill(1000, &|at| at.is_multiple_of(20));
    let [skilled, unlike] = [true, false].map(|is_in| with_skill(4, &|_| is_in));
    for dtype in [StoreDtype::F32, StoreDtype::I4, StoreDtype::I1] {
        let halves = |target: &[Vec<f64>]| {
            let by = Aggregation::MeanOfCosines;
            halves_of(&pool, target, &["a"; 4], dtype, by, Selector::Top)
        };
        let (found, scores) = halves(&skilled);
        assert!(found.between > 0.95, "{dtype:?}: {}", found.between);
        assert!(found.with_whole.iter().all(|share| *share > 0.95), "{:?}", found.with_whole);
        let mut diagnostics = Diagnostics::of(&sample(&scores, "5%"));
        diagnostics.sketch = Some(found);
        assert_eq!(diagnostics.is_noise_of_sketch(), Some(false));
        // Random rows have nothing in common that a projection could keep.
        let (found, _) = halves(&unlike);
        assert!(found.between < 0.2, "{dtype:?}: {}", found.between);
        diagnostics.sketch = Some(SketchHalves { between: 0.06, ..found });
        assert_eq!(diagnostics.is_noise_of_sketch(), Some(true));
    }
}

/// Vectors of 10,000 coordinates with rising parts, up to `common`, of one and the same
/// vector in them, and their projections.
fn projected(kind: ProjectionKind, proj_dim: usize, n: usize, common: f64) -> [Vec<Vec<f64>>; 2] {
    const LENGTH: usize = 10_000;
    let mut normal = Normal::new("projected");
    let shared = normal.rows(1, LENGTH).remove(0);
    let mut rows = normal.rows(n, LENGTH);
    for (at, row) in rows.iter_mut().enumerate() {
        let share = common * at as f64 / n as f64;
        row.iter_mut().zip(&shared).for_each(|(x, shared)| *x += share * shared);
    }
    let layout = ParamLayout::new([("weight".to_owned(), vec![LENGTH])]);
    let settings = ProjectionSettings { kind, proj_dim };
    let projection = Projection::new(settings, Seed(3), "epoch-1", &layout).unwrap();
    let mut short = vec![0.0_f32; n * proj_dim];
    projection.accumulate(0, &mut short, |row, range, out| {
        out.iter_mut().zip(&rows[row][range]).for_each(|(out, x)| *out = *x as f32);
    });
    let short = short.chunks_exact(proj_dim);
    let short = short.map(|row| row.iter().copied().map(f64::from).collect()).collect();
    [rows, short]
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn the_halves_foretell_the_error_of_a_cosine() {
    let subtasks: Vec<String> = (0..10).map(|of| format!("s{of}")).collect();
    let subtasks: Vec<&str> = subtasks.iter().map(String::as_str).collect();
    for kind in [ProjectionKind::Sjlt, ProjectionKind::Srht] {
        let [exact, short] = projected(kind, 1024, 130, 1.0);
        for dtype in [StoreDtype::F32, StoreDtype::I1] {
            // The target's rows are every thirteenth.
            let parts = |rows: &[Vec<f64>]| -> [Vec<Vec<f64>>; 2] {
                let (target, pool): (Vec<_>, Vec<_>) =
                    rows.iter().enumerate().partition(|(at, _)| at.is_multiple_of(13));
                [pool, target].map(|part| part.into_iter().map(|(_, row)| row.clone()).collect())
            };
            let ([pool, target], [exact_pool, exact_target]) = (parts(&short), parts(&exact));
            let (found, scores) = halves_of(
                &pool,
                &target,
                &subtasks,
                dtype,
                Aggregation::MeanOfCosines,
                Selector::Top,
            );
            let mut errors = Vec::new();
            for (row, exact) in scores.rows.iter().zip(&exact_pool) {
                for (found, target) in row.by_subtask.iter().zip(&exact_target) {
                    errors.push(f64::from(*found) - cosine(exact, target));
                }
            }
            let error = root_mean_square(&errors);
            // 1,200 pairs of 120 and 10 vectors.
            approx::assert_relative_eq!(found.cosine_error, error, max_relative = 0.2);
        }
    }
}

/// The halves of an `sjlt` are projections to half as many dimensions, with errors
/// that have nothing to do with each other.
#[test]
fn the_halves_of_an_sjlt_err_independently() {
    let [exact, short] = projected(ProjectionKind::Sjlt, 512, 80, 0.0);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut errors = [Vec::new(), Vec::new()];
    for a in 0..80 {
        for b in 0..a {
            let lengths = (dot(&exact[a], &exact[a]) * dot(&exact[b], &exact[b])).sqrt();
            let exact = dot(&exact[a], &exact[b]);
            for (errors, half) in errors.iter_mut().zip([0..256, 256..512]) {
                let found = 2.0 * dot(&short[a][half.clone()], &short[b][half]);
                errors.push((found - exact) / lengths);
            }
        }
    }
    let [first, second] = errors.each_ref().map(|errors| root_mean_square(errors));
    let expected = 1.0 / 256_f64.sqrt();
    approx::assert_relative_eq!(first, expected, max_relative = 0.1);
    approx::assert_relative_eq!(second, expected, max_relative = 0.1);
    let together = dot(&errors[0], &errors[1]) / errors[0].len() as f64;
    // 3,160 pairs; what the halves see of the coordinates takes 256 / 10,000 from zero.
    approx::assert_abs_diff_eq!(together / (first * second), 0.0, epsilon = 0.1);
}
