//! Every number of the report.

use std::path::PathBuf;

use serde::Serialize;

use super::composition::{Flagged, SourceShare, SubtaskShare, share};
use super::correlation::Correlations;
use super::quote::Quote;
use super::spread::{Lengths, Scores};
use super::warnings::warnings;
use crate::cascade::recall::Recall;
use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::method::Method;
use crate::pool::table::Record;
use crate::selection::{Budget, Selected, ranking};
use crate::stage::Stage;

/// Version of `report.json`; rises when a field changes its meaning.
const FORMAT: u32 = 1;

/// Rows quoted from the top of the subset, and as many from below the cut.
const N_QUOTED: usize = 10;

/// What the pipeline knows of a run beyond its scores and rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunFacts {
    /// The run's name.
    pub name: String,
    /// Version of less-select.
    pub version: String,
    /// How rows were scored.
    pub method: Method,
    /// How much was asked for.
    pub budget: Budget,
    /// The first pass, if there was one.
    pub cascade: Option<CascadeFacts>,
    /// The subset folder.
    pub subset: PathBuf,
    /// Rows that were malformed and left out of the pool.
    pub n_rejected: u64,
    /// Settings by name; tables may nest.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// The checkpoints, first to last.
    pub checkpoints: Vec<CheckpointFacts>,
    /// The stages, first to last.
    pub stages: Vec<StageCost>,
    /// What the stages warned of, a sentence each without a final period.
    pub notes: Vec<String>,
}

/// The first pass over the pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CascadeFacts {
    /// The share of the pool that it let through.
    pub share: f64,
    /// What smaller shares would have kept of the selection; empty where that
    /// is not known, because gradients were taken of a share only.
    pub recalls: Vec<Recall>,
}

/// A checkpoint of the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointFacts {
    /// Its folder's name.
    pub name: String,
    /// Optimizer steps taken.
    pub step: u64,
    /// Mean learning rate of its epoch.
    pub learning_rate: f64,
    /// Its weight in the score: the learning rate over the sum of all.
    pub weight: f64,
    /// Mean training loss of its epoch, in nats a token, if it is known.
    pub loss: Option<f64>,
}

/// What a stage cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageCost {
    /// The stage.
    pub stage: Stage,
    /// Wall-clock seconds when it was last computed.
    pub seconds: f64,
    /// One line for people: what came out.
    pub summary: String,
}

/// Everything the report says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Version of this layout.
    pub format: u32,
    /// What the pipeline knows.
    pub run: RunFacts,
    /// How many, of everything.
    pub size: Size,
    /// Sentences without a final period: the run's notes and what the numbers
    /// warn of.
    pub warnings: Vec<String>,
    /// Pool and subset by source, largest share of the subset first.
    pub sources: Vec<SourceShare>,
    /// Ranked examples by the subtask they serve best, most selected first.
    pub subtasks: Vec<SubtaskShare>,
    /// How scores are spread over the ranked examples.
    pub scores: Scores,
    /// Lengths of all the pool's examples and of the selected.
    pub lengths: PoolAndSubset<Lengths>,
    /// Correlations over the ranked examples and over the selected.
    pub correlations: PoolAndSubset<Correlations>,
    /// Examples that were not ranked, by reason, most first.
    pub flagged: Vec<Flagged>,
    /// The ten best of the subset.
    pub best: Vec<Quote>,
    /// The ten best that are not in it.
    pub below_cut: Vec<Quote>,
}

/// The same of the pool, before, and of the subset, after.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PoolAndSubset<T> {
    /// Before.
    pub pool: T,
    /// After.
    pub subset: T,
}

/// Counts of examples and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Examples of the pool.
    pub n_pool: u64,
    /// Those that have a rank.
    pub n_ranked: u64,
    /// Those selected.
    pub n_selected: u64,
    /// As a share of the pool.
    pub selected_share: f64,
    /// Tokens of the pool, as the model sees them.
    pub n_pool_tokens: u64,
    /// Tokens selected.
    pub n_selected_tokens: u64,
    /// Tokens selected that carry loss.
    pub n_selected_supervised: u64,
}

impl Summary {
    /// Sums up a selection.
    ///
    /// `selected` is of `scores` and in rank order. `read` is asked once, for
    /// ascending positions, and gives a record a position; only the quoted rows
    /// are read.
    ///
    /// # Errors
    ///
    /// Whatever `read` returns.
    ///
    /// # Panics
    ///
    /// If `selected` is of another table, or `read` gives fewer records than it
    /// was asked for.
    pub fn new<E>(
        scores: &ScoreTable,
        selected: &[Selected],
        run: RunFacts,
        read: impl FnOnce(&[usize]) -> Result<Vec<Record>, E>,
    ) -> Result<Self, E> {
        let mut is_selected = vec![false; scores.rows.len()];
        for place in selected {
            is_selected[place.position] = true;
        }
        let ranked = ranking(scores);
        let left_out = ranked.iter().filter(|place| !is_selected[place.position]);
        let best: Vec<_> = selected.iter().take(N_QUOTED).collect();
        let below: Vec<_> = left_out.take(N_QUOTED).collect();
        let (best, below_cut) = quotes(scores, &best, &below, read)?;

        let all: Vec<&ScoreRow> = scores.rows.iter().collect();
        let kept: Vec<&ScoreRow> = rows_of(scores, selected).map(|(row, _)| row).collect();
        let lengths = PoolAndSubset { pool: Lengths::of(&all), subset: Lengths::of(&kept) };
        let correlated = |places| Correlations::of(&rows_of(scores, places).collect::<Vec<_>>());
        let correlations =
            PoolAndSubset { pool: correlated(&ranked), subset: correlated(selected) };
        let flagged = Flagged::of(&scores.rows);
        let warnings = warnings(run.method, &run.notes, &lengths, &correlations, &flagged);
        Ok(Self {
            format: FORMAT,
            size: Size::of(&all, &kept, ranked.len()),
            warnings,
            sources: SourceShare::of(&all, &kept),
            subtasks: SubtaskShare::of(&scores.subtasks, &ranked, selected),
            scores: Scores::of(&ranked, &is_selected),
            lengths,
            correlations,
            flagged,
            best,
            below_cut,
            run,
        })
    }
}

impl Size {
    fn of(pool: &[&ScoreRow], subset: &[&ScoreRow], n_ranked: usize) -> Self {
        let n_tokens =
            |rows: &[&ScoreRow]| rows.iter().map(|row| u64::from(row.n_tokens)).sum::<u64>();
        Self {
            n_pool: pool.len() as u64,
            n_ranked: n_ranked as u64,
            n_selected: subset.len() as u64,
            selected_share: share(subset.len() as u64, pool.len()),
            n_pool_tokens: n_tokens(pool),
            n_selected_tokens: n_tokens(subset),
            n_selected_supervised: subset.iter().map(|row| u64::from(row.n_supervised)).sum(),
        }
    }
}

/// The rows at `places`, each with its score.
fn rows_of<'a>(
    scores: &'a ScoreTable,
    places: &'a [Selected],
) -> impl Iterator<Item = (&'a ScoreRow, f32)> {
    places.iter().map(|place| (&scores.rows[place.position], place.score))
}

/// The quotes of `best` and of `below`, read in one go.
fn quotes<E>(
    scores: &ScoreTable,
    best: &[&Selected],
    below: &[&Selected],
    read: impl FnOnce(&[usize]) -> Result<Vec<Record>, E>,
) -> Result<(Vec<Quote>, Vec<Quote>), E> {
    let mut positions: Vec<usize> = best.iter().chain(below).map(|place| place.position).collect();
    positions.sort_unstable();
    let records = read(&positions)?;
    assert_eq!(records.len(), positions.len(), "one record a position");
    let quote = |place: &&Selected| {
        let record = positions.partition_point(|position| *position < place.position);
        Quote::of(scores, place, &records[record])
    };
    Ok((best.iter().map(quote).collect(), below.iter().map(quote).collect()))
}
