//! Every number of the report.

use std::path::PathBuf;

use serde::Serialize;

use super::composition::{Flagged, SourceShare, SubtaskShare, share};
use super::correlation::Correlations;
use super::cross::SubtasksBySource;
use super::length_grid::LengthGrid;
use super::listing::Listing;
use super::quote::Quote;
use super::rejected::Rejected;
use super::spread::{Lengths, Scores};
use super::warnings::{noise, warnings};
use crate::cascade::recall::Recall;
use crate::diagnostics::Diagnostics;
use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::method::Method;
use crate::pool::table::Record;
use crate::selection::{Budget, Selected, ranking};
use crate::stage::Stage;

/// Version of `report.json`; rises when a field changes its meaning.
const FORMAT: u32 = 1;

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
    /// Rows that never entered the pool.
    pub n_rejected: u64,
    /// The same by reason, most first.
    pub rejected: Vec<Rejected>,
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
    /// Wall-clock seconds of all stages.
    pub seconds: f64,
    /// Sentences without a final period: the run's notes and what the numbers
    /// warn of.
    pub warnings: Vec<String>,
    /// Pool and subset by source, largest share of the subset first.
    pub sources: Vec<SourceShare>,
    /// Ranked examples by the subtask they serve best, selected ones by the subtask they
    /// were taken for, most selected first.
    pub subtasks: Vec<SubtaskShare>,
    /// Which source serves which subtask.
    pub subtasks_by_source: SubtasksBySource,
    /// How scores are spread over the ranked examples.
    pub scores: Scores,
    /// Lengths of all the pool's examples and of the selected.
    pub lengths: PoolAndSubset<Lengths>,
    /// Scores against lengths.
    pub length_grid: LengthGrid,
    /// Correlations over the ranked examples and over the selected.
    pub correlations: PoolAndSubset<Correlations>,
    /// How steady the selection is; `None` where there is no choice to be steady.
    pub diagnostics: Option<Diagnostics>,
    /// Examples that were not ranked, by reason, most first.
    pub flagged: Vec<Flagged>,
    /// The best of the subset, in rank order.
    pub best: Vec<Quote>,
    /// The last that came into it, without the best.
    pub last_in: Vec<Quote>,
    /// The best that are not in it.
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
    /// Sums up a selection, and quotes about `n_quoted` rows of it.
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
        diagnostics: Option<Diagnostics>,
        n_quoted: usize,
        read: impl FnOnce(&[usize]) -> Result<Vec<Record>, E>,
    ) -> Result<Self, E> {
        let mut is_selected = vec![false; scores.rows.len()];
        for place in selected {
            is_selected[place.position] = true;
        }
        let ranked = ranking(scores);
        let left_out = ranked.iter().filter(|place| !is_selected[place.position]).copied();
        let left_out: Vec<Selected> = left_out.collect();
        let Listing { best, last_in, below_cut } =
            Listing::of(scores, selected, &left_out, n_quoted, read)?;

        let all: Vec<&ScoreRow> = scores.rows.iter().collect();
        let kept: Vec<&ScoreRow> = rows_of(scores, selected).map(|(row, _)| row).collect();
        let lengths = PoolAndSubset { pool: Lengths::of(&all), subset: Lengths::of(&kept) };
        // By the best score of each, as the pool's are: it may have been taken for another
        // subtask.
        let ranked_kept = ranked.iter().filter(|place| is_selected[place.position]).copied();
        let ranked_kept: Vec<Selected> = ranked_kept.collect();
        let correlated = |places| Correlations::of(&rows_of(scores, places).collect::<Vec<_>>());
        let correlations =
            PoolAndSubset { pool: correlated(&ranked), subset: correlated(&ranked_kept) };
        let flagged = Flagged::of(&scores.rows);
        let sources = SourceShare::of(&all, &kept);
        let mut warnings = warnings(run.method, &run.notes, &lengths, &correlations, &flagged);
        warnings.extend(diagnostics.iter().flat_map(noise));
        Ok(Self {
            format: FORMAT,
            size: Size::of(&all, &kept, ranked.len()),
            seconds: run.stages.iter().map(|stage| stage.seconds).sum(),
            warnings,
            subtasks: SubtaskShare::of(&scores.subtasks, &ranked, selected),
            subtasks_by_source: SubtasksBySource::of(scores, &ranked, selected, &sources),
            sources,
            scores: Scores::of(&ranked, &is_selected),
            lengths,
            length_grid: LengthGrid::of(scores, &ranked, &is_selected),
            correlations,
            diagnostics,
            flagged,
            best,
            last_in,
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
