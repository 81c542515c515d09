//! One side of a comparison, whatever it was read from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use fs_err as fs;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde_json::Value;

use super::{SideFacts, SourcePart};
use crate::config::Layer;
use crate::influence::scores::ScoreTable;
use crate::influence::scores_file::ScoresError;
use crate::method::Method;
use crate::pipeline::manifest::Manifest;
use crate::pool::ExampleId;
use crate::pool::guard::{check, guarded};
use crate::report::StageCost;
use crate::run_dir::RunDir;
use crate::selection::{Fraction, SelectionFile, ranking};

/// A selection, or the scores that one is made from.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it was read.
    pub path: PathBuf,
    /// What scored it, if it says so.
    pub method: Option<String>,
    /// The rows with a score that ranks them, best first.
    pub rows: Vec<SideRow>,
    /// The rows that it selected, in order of rank; `None` of a table of scores, and of a
    /// run that has selected nothing by the scores that it has now.
    pub selected: Option<Vec<ExampleId>>,
    /// Rows that it does not select whatever their score: those that are contaminated, or
    /// near-duplicates of what it selected.
    pub left_out: BTreeSet<ExampleId>,
    /// Whether `rows` are of a whole pool, and not of a subset alone.
    pub is_whole: bool,
    /// The stages of its run that its scores took.
    pub stages: Vec<StageCost>,
}

/// A ranked row.
#[derive(Clone, Debug, PartialEq)]
pub struct SideRow {
    /// Identity by content.
    pub id: ExampleId,
    /// The pool source it came from.
    pub source: String,
    /// Its score.
    pub score: f32,
    /// Its tokens, and those that carry loss, where they are known.
    pub lengths: Option<[u32; 2]>,
}

/// Something cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be compared", path.display())]
pub struct CompareError {
    /// What was given.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub kind: CompareErrorKind,
}

/// Why something cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareErrorKind {
    /// It is none of what has rows and scores.
    #[error("it is not a run with scores, a subset folder or a scores.parquet")]
    Other,
    /// A subset whose rows cannot be told apart.
    #[error("its schema `{schema}` has no ids; give the run that it was selected in")]
    NoIds {
        /// The subset's schema.
        schema: String,
    },
    /// Its scores cannot be read.
    #[error(transparent)]
    Scores(#[from] ScoresError),
    /// A file of it cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Its rows cannot be read.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// Its rows cannot be decoded.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// It has a row whose id is none.
    #[error("`{0}` is no id of an example")]
    Id(String),
}

impl Side {
    /// Reads a run directory, a subset folder or a `scores.parquet`. Writes nothing.
    ///
    /// # Errors
    ///
    /// If it is none of these, damaged, or has no ids.
    pub fn open(path: &Path) -> Result<Self, CompareError> {
        Self::read(path).map_err(|kind| CompareError { path: path.to_owned(), kind })
    }

    fn read(path: &Path) -> Result<Self, CompareErrorKind> {
        let run = RunDir::new(path);
        if run.scores().is_file() {
            return Self::of_run(path, &run);
        }
        if path.join("less-select.json").is_file() {
            return Self::of_subset(path);
        }
        if path.is_file() && path.extension().is_some_and(|ext| ext == "parquet") {
            let scores = ScoreTable::read(path)?;
            return Ok(Self::of_scores(path, &scores));
        }
        Err(CompareErrorKind::Other)
    }

    fn of_scores(path: &Path, scores: &ScoreTable) -> Self {
        let row = |position: usize, score: f32| {
            let row = &scores.rows[position];
            let lengths = Some([row.n_tokens, row.n_supervised]);
            SideRow { id: row.id, source: row.source.clone(), score, lengths }
        };
        Self {
            path: path.to_owned(),
            method: None,
            rows: ranking(scores).iter().map(|place| row(place.position, place.score)).collect(),
            selected: None,
            left_out: BTreeSet::new(),
            is_whole: true,
            stages: Vec::new(),
        }
    }

    fn of_run(path: &Path, run: &RunDir) -> Result<Self, CompareErrorKind> {
        let scores = ScoreTable::read(&run.scores())?;
        let side = Self { stages: stages(run)?, ..Self::of_scores(path, &scores) };
        if !run.selection().is_file() {
            return Ok(side);
        }
        let selection = SelectionFile::read(&run.selection())?;
        // Where scoring has been done anew and selecting has not, what was selected says
        // nothing of these scores.
        if !selection.is_of(&scores) {
            return Ok(side);
        }
        // The subset may have been moved to where it is trained on.
        let facts = run.latest_subset().ok().and_then(|subset| subset_facts(&subset).ok());
        Ok(Self {
            method: facts.as_ref().and_then(method_of),
            selected: Some(selection.selected.iter().map(|row| row.id).collect()),
            left_out: selection.left_out.into_keys().collect(),
            ..side
        })
    }

    fn of_subset(path: &Path) -> Result<Self, CompareErrorKind> {
        let facts = subset_facts(path)?;
        let columns = &facts["subset"]["columns"];
        if ["id", "source", "less_score"].iter().any(|name| columns.get(name).is_none()) {
            let schema = facts["subset"]["schema"].as_str().unwrap_or_default().to_owned();
            return Err(CompareErrorKind::NoIds { schema });
        }
        let file = path.join(facts["subset"]["data_file"].as_str().unwrap_or_default());
        let rows = subset_rows(&file)?;
        Ok(Self {
            path: path.to_owned(),
            method: method_of(&facts),
            selected: Some(rows.iter().map(|row| row.id).collect()),
            rows,
            left_out: BTreeSet::new(),
            is_whole: false,
            stages: Vec::new(),
        })
    }

    /// Its rows in the order in which budgets take them: those that it selected, by rank,
    /// then the others by score, but for those that it leaves out.
    ///
    /// A smaller subset is the beginning of a larger one, of all targets together too if
    /// each has its own budget, since they are ranked together. Caps and floors of sources
    /// are shares of the whole selection, which its beginning need not keep.
    pub(super) fn order(&self) -> Vec<ExampleId> {
        let selected = self.selected.as_deref().unwrap_or_default();
        let passed: BTreeSet<_> = selected.iter().chain(&self.left_out).collect();
        let ranked = self.rows.iter().map(|row| &row.id);
        let others = ranked.filter(|id| !passed.contains(id));
        selected.iter().chain(others).copied().collect()
    }

    /// The `n` rows with the highest scores, best first.
    pub(super) fn best(&self, n: usize) -> &[SideRow] {
        &self.rows[..n.min(self.rows.len())]
    }

    /// The rows that a composition is of: what was selected, or the best 5 %.
    fn shown(&self) -> Vec<&SideRow> {
        match &self.selected {
            Some(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                self.rows.iter().filter(|row| ids.binary_search(&row.id).is_ok()).collect()
            }
            None => self.best(share_of(0.05, self.rows.len())).iter().collect(),
        }
    }

    /// The sources of `shown`, the largest first, equal ones by name.
    fn sources(&self, shown: &[&SideRow]) -> Vec<SourcePart> {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for row in self.rows.iter().filter(|_| self.is_whole) {
            counts.entry(&row.source).or_default().0 += 1;
        }
        for row in shown {
            counts.entry(&row.source).or_default().1 += 1;
        }
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        let part = |(source, (n_ranked, n_rows)): (&str, (usize, usize))| SourcePart {
            source: source.to_owned(),
            n_rows,
            share: share(n_rows, shown.len()),
            pool_share: self.is_whole.then(|| share(n_ranked, self.rows.len())),
        };
        let mut parts: Vec<_> = counts.into_iter().map(part).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.n_rows));
        parts
    }

    pub(super) fn facts(&self, name: String) -> SideFacts {
        let shown = self.shown();
        let mean = |which: usize| {
            let lengths: Option<Vec<_>> = shown.iter().map(|row| row.lengths).collect();
            let sum: f64 = lengths?.iter().map(|lengths| f64::from(lengths[which])).sum();
            (!shown.is_empty()).then(|| sum / shown.len() as f64)
        };
        SideFacts {
            name,
            method: self.method.clone(),
            n_ranked: self.rows.len(),
            n_selected: self.selected.as_ref().map(Vec::len),
            sources: self.sources(&shown),
            mean_tokens: mean(0),
            mean_supervised: mean(1),
            stages: self.stages.clone(),
        }
    }
}

/// What a subset folder says of itself.
fn subset_facts(path: &Path) -> Result<Value, CompareErrorKind> {
    let facts = fs::read(path.join("less-select.json"))?;
    Ok(serde_json::from_slice(&facts).map_err(std::io::Error::from)?)
}

fn method_of(facts: &Value) -> Option<String> {
    facts["provenance"]["method"].as_str().map(str::to_owned)
}

/// Rows that a share of `n` rows is, as a budget counts them.
pub(super) fn share_of(share: f64, n: usize) -> usize {
    Fraction::new(share).map_or(n, |fraction| fraction.of(n))
}

/// What the scores of a run took: the stages of the method that it has now.
fn stages(run: &RunDir) -> Result<Vec<StageCost>, CompareErrorKind> {
    let Ok(Some(Layer { raw, .. })) = Layer::run(&run.config()) else { return Ok(Vec::new()) };
    let method: Method = raw.method.and_then(|name| name.parse().ok()).unwrap_or(Method::Less);
    let has_cascade = raw.cascade.is_some_and(|share| share != "off");
    let records = Manifest::read(run)?.stages.into_iter();
    let own = records.filter(|(stage, _)| method.takes(*stage, has_cascade));
    Ok(own
        .map(|(stage, record)| StageCost { stage, seconds: record.seconds, summary: record.told() })
        .collect())
}

/// The rows of a subset's data file, in order of rank.
fn subset_rows(file: &Path) -> Result<Vec<SideRow>, CompareErrorKind> {
    let read = || -> Result<Vec<SideRow>, CompareErrorKind> {
        let file = fs::File::open(file)?;
        check(&file)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?;
        let columns = ["id", "source", "less_score"];
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
        let mut rows = Vec::new();
        for batch in builder.with_projection(mask).build()? {
            let batch = batch?;
            let [ids, sources] = [0, 1].map(|at| batch.column(at).as_string_opt::<i32>());
            let scores = batch.column(2).as_primitive_opt::<Float32Type>();
            let (Some(ids), Some(sources), Some(scores)) = (ids, sources, scores) else {
                return Err(CompareErrorKind::Other);
            };
            for row in 0..batch.num_rows() {
                let id = ids.value(row);
                rows.push(SideRow {
                    id: id.parse().map_err(|()| CompareErrorKind::Id(id.to_owned()))?,
                    source: sources.value(row).to_owned(),
                    score: scores.value(row),
                    lengths: None,
                });
            }
        }
        Ok(rows)
    };
    guarded(read)
}
