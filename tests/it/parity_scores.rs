//! LESS scores of a real decoder at real checkpoints, without a projection,
//! against those of transformers, peft and torch.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::slice;

use less_select::checkpoint::{Checkpoint, checkpoints_in};
use less_select::compute::Dtype;
use less_select::gradient::collect::{CollectSettings, collect};
use less_select::gradient::direction::GradientKind;
use less_select::gradient::measure::Measure;
use less_select::gradient::shard_plan::{Part, plan_shards};
use less_select::influence::Aggregation;
use less_select::influence::index::TargetIndex;
use less_select::influence::score::{ScoreSettings, ScoredCheckpoint, score};
use less_select::pool::ExampleId;
use less_select::progress::Silent;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use less_select::store::gradient_store::GradientStore;
use less_select::store::{Split, StoreDtype};
use serde::Deserialize;

use crate::goldens::{self, RawExample};
use crate::slow_less::rank_correlation;
use crate::toy::{Table, store_header, table};

/// One store row, one row of the goldens: scores by subtask.
type Scores = Vec<Vec<f64>>;

#[derive(Deserialize)]
struct Goldens {
    subtasks: Vec<String>,
    learning_rates: Vec<f64>,
    /// By gradient kind, then by aggregation.
    scores: BTreeMap<String, BTreeMap<String, Scores>>,
}

fn in_a_table(examples: &[RawExample]) -> Table {
    table(examples.iter().map(|raw| (raw.example(), "golden", raw.subtask.as_deref())))
}

/// Collects both tables at `checkpoint` and joins the target.
fn collected(
    checkpoint: &Checkpoint,
    pool: &Table,
    target: &Table,
    dir: &Path,
) -> (GradientStore, TargetIndex) {
    let one = Some(NonZeroUsize::MIN);
    let mut model =
        goldens::load(&goldens::fixture("tiny-llama"), checkpoint.lora(), Dtype::F32, one);
    let layout = model.layout().clone();
    model.set_adapter(&checkpoint.adapter(&layout).unwrap());
    let moments = checkpoint.moments(&layout).unwrap();
    let exact = ProjectionSettings { kind: ProjectionKind::None, proj_dim: 64 };
    let projection = Projection::new(exact, Seed(0), checkpoint.label(), &layout).unwrap();
    let sides = [
        (Split::Pool, pool, &GradientKind::ALL[..]),
        (Split::Target, target, &[GradientKind::Sgd]),
    ];
    let [pool_store, target_store] = sides.map(|(split, table, kinds)| {
        let measure = Measure { kinds, moments: Some(&moments), projection: &projection };
        let dir = dir.join(checkpoint.label()).join(split.to_string());
        let header = store_header(measure, checkpoint.label(), split, StoreDtype::F32);
        let shard_rows = NonZeroUsize::new(7).unwrap();
        plan_shards(&dir, Path::new(""), slice::from_ref(&header), &table.rows, shard_rows)
            .unwrap();
        let settings =
            CollectSettings { header, batch_tokens: 100, threads: one, part: Part::WHOLE };
        collect(&mut model, table, measure, &dir, &settings, &Silent).unwrap();
        GradientStore::open(&dir).unwrap()
    });
    let index = TargetIndex::build(&target_store, &target.rows).unwrap();
    (pool_store, index)
}

/// The scores of `examples`, in their order.
fn scores(
    checkpoints: &[ScoredCheckpoint<'_>],
    pool: &Table,
    examples: &[RawExample],
    settings: ScoreSettings<'_>,
) -> Scores {
    let found = score(checkpoints, &pool.rows, settings, &Silent).unwrap().remove(0);
    let by_id: BTreeMap<ExampleId, &Vec<f32>> =
        found.rows.iter().map(|row| (row.id, &row.by_subtask)).collect();
    let of = |raw: &RawExample| by_id[&raw.example().id].iter().copied().map(f64::from).collect();
    examples.iter().map(of).collect()
}

#[test]
fn exact_scores_are_those_of_the_reference() {
    assert_scores("tiny-checkpoints", &goldens::json("scores.json"));
}

#[test]
fn exact_scores_at_the_checkpoints_of_a_trainer_are_those_of_the_reference() {
    assert_scores("trainers/sft", &goldens::json("trainer_scores.json"));
}

/// Scores at the checkpoints in a folder of the fixtures.
#[track_caller]
fn assert_scores(folder: &str, expected: &Goldens) {
    let examples = goldens::examples();
    let (pool, target) = (in_a_table(&examples.pool), in_a_table(&examples.target));
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = checkpoints_in(&goldens::fixture(folder)).unwrap();
    let sides: Vec<_> = checkpoints
        .iter()
        .map(|checkpoint| collected(checkpoint, &pool, &target, dir.path()))
        .collect();
    let rates: Vec<f64> = checkpoints.iter().map(Checkpoint::learning_rate).collect();
    approx::assert_relative_eq!(&rates[..], &expected.learning_rates[..], max_relative = 1e-12);
    let scored: Vec<_> = sides
        .iter()
        .zip(rates)
        .map(|((pool, index), learning_rate)| ScoredCheckpoint {
            pool,
            index,
            lengths: None,
            learning_rate,
        })
        .collect();
    assert_eq!(expected.subtasks, ["a", "b"]);
    assert_eq!(sides[0].1.subtasks.len(), 2);
    for kind in GradientKind::ALL {
        for aggregation in [Aggregation::MeanOfCosines, Aggregation::CosineOfMean] {
            let (kinds, aggregations) = (&[kind], &[aggregation]);
            let settings = ScoreSettings { kinds, aggregations, threads: None };
            let found = scores(&scored, &pool, &examples.pool, settings);
            let name = serde_json::to_value(aggregation).unwrap();
            let expected = &expected.scores[kind.name()][name.as_str().unwrap()];
            assert_same(&found, expected, &format!("{kind}, {aggregation:?}"));
        }
    }
}

#[track_caller]
fn assert_same(found: &Scores, expected: &Scores, what: &str) {
    for subtask in 0..expected[0].len() {
        let column =
            |scores: &Scores| -> Vec<f64> { scores.iter().map(|row| row[subtask]).collect() };
        let (found, expected) = (column(found), column(expected));
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs();
            assert!(error < 1e-4, "{what}: {found} against {expected}");
        }
        let correlation = rank_correlation(&found, &expected);
        assert!(correlation >= 0.999, "{what}: rank correlation {correlation}");
    }
}
