//! Who is tried in a verification, and on which rows.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::verify::{Verification, VerifyError};
use super::{PipelineError, Run};
use crate::method::Method;
use crate::pool::table::{ExampleTable, TableRow};
use crate::pool::{ExampleId, IngestSettings, POOL_TABLE, Source, ingest};
use crate::seed::Seed;
use crate::selection::Budget;
use crate::store::Split;
use crate::verify::{TrainingRows, Trial};
use crate::warmup::rows::choose;

/// Passes of a training over its rows, which are in memory as often.
pub(super) const MOST_PASSES: u64 = 1000;

/// Who is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rival {
    /// The model as it comes.
    Base,
    /// The whole pool.
    Full,
    /// As many rows of the pool as the subset has, drawn anew for every seed from those
    /// that a selection may take.
    Random,
    /// As many rows of the pool as the subset has, those that a run by a method that asks
    /// no model would select.
    Method(Method),
    /// Rows of a file or folder.
    Rows(Source),
}

/// How long contenders train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainingLength {
    /// All on as many tokens as so many passes over the run's subset have.
    LikePasses(f64),
    /// All on so many tokens.
    Tokens(u64),
    /// Each so many passes over its own rows.
    Passes(f64),
}

/// The contender that the run's newest subset is.
pub const SUBSET: &str = "subset";

impl Run<'_> {
    /// The run's subset first.
    pub(super) fn contenders(
        &self,
        wanted: &Verification,
    ) -> Result<Vec<Contender>, PipelineError> {
        let subset = self.dir.latest_subset().map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => {
                VerifyError::NoSubset(self.dir.root().to_owned()).into()
            }
            _ => PipelineError::Io(err),
        })?;
        let subset = Source { name: None, path: subset.display().to_string() };
        let own = (SUBSET.to_owned(), Rival::Rows(subset));
        let mut contenders: Vec<Contender> = Vec::new();
        for (name, rival) in std::iter::once(&own).chain(&wanted.rivals) {
            check_name(name)?;
            if contenders.iter().any(|other| other.name == *name) {
                return Err(VerifyError::SameName(name.clone()).into());
            }
            let table = match rival {
                Rival::Rows(source) => self.ingest_contender(name, source, &wanted.eval)?,
                _ => self.dir.table(Split::Pool),
            };
            let mut heads = ExampleTable::open(&table)?.rows().to_vec();
            if *rival == Rival::Random {
                let contaminated = self.contaminated()?;
                heads.retain(|row| !contaminated.contains(&row.id));
            }
            let n_rows = contenders.first().map_or(heads.len(), |subset| subset.heads.len());
            let rows = match rival {
                Rival::Base => Rows::None,
                Rival::Full | Rival::Rows(_) => Rows::All,
                Rival::Random => Rows::Drawn(n_rows),
                Rival::Method(method) => Rows::These(self.rows_by(*method, n_rows)?),
            };
            contenders.push(Contender { name: name.clone(), rows, table, heads });
        }
        Ok(contenders)
    }

    /// The rows of the pool that a method would select, their ids ascending.
    fn rows_by(&self, method: Method, n_rows: usize) -> Result<Vec<ExampleId>, PipelineError> {
        let n_rows = NonZeroU64::new(n_rows as u64).expect("no subset is empty");
        let ids = self.selected_by(method, Budget::Examples(n_rows))?;
        ids.ok_or_else(|| VerifyError::NeedsRun(method).into())
    }

    /// The table of a contender's rows; the evaluation's stands beside it.
    fn ingest_contender(
        &self,
        name: &str,
        source: &Source,
        eval: &[Source],
    ) -> Result<PathBuf, PipelineError> {
        let dir = self.dir.verify_data(name);
        let pool = vec![source.clone()];
        let settings = IngestSettings { pool, target: eval.to_vec(), ..self.config.ingest.clone() };
        ingest(&settings, &self.config.model, &dir, self.observer)?;
        Ok(dir.join(POOL_TABLE))
    }
}

/// A contender, and what its trials train on.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) rows: Rows,
    pub(super) table: PathBuf,
    pub(super) heads: Vec<TableRow>,
}

/// Which rows of its table a contender trains on.
pub(super) enum Rows {
    /// It does not train.
    None,
    /// All.
    All,
    /// So many, drawn by the trial's seed.
    Drawn(usize),
    /// These, ascending.
    These(Vec<ExampleId>),
}

impl Contender {
    /// A trial without the place of its outcome, and the name of all that decides it.
    ///
    /// # Errors
    ///
    /// If it would pass over its rows more than [`MOST_PASSES`] times.
    pub(super) fn trial(
        &self,
        subset: &Self,
        training: TrainingLength,
        seed: Seed,
        made_from: &serde_json::Value,
    ) -> Result<(String, Trial), VerifyError> {
        let rows = self.rows(seed);
        let trained: Vec<&TableRow> = match &rows {
            None => Vec::new(),
            Some(TrainingRows { ids: None, .. }) => self.heads.iter().collect(),
            Some(TrainingRows { ids: Some(ids), .. }) => {
                self.heads.iter().filter(|row| ids.binary_search(&row.id).is_ok()).collect()
            }
        };
        let n_once = n_tokens(trained.iter().copied());
        let n_tokens = match training {
            // The same base model, whatever the others do.
            _ if rows.is_none() => 0,
            TrainingLength::Tokens(n) => n,
            TrainingLength::LikePasses(passes) => times(n_tokens(&subset.heads), passes),
            TrainingLength::Passes(passes) => times(n_once, passes),
        };
        let n = n_tokens / n_once.max(1);
        if n > MOST_PASSES {
            return Err(VerifyError::TooLong { contender: self.name.clone(), n });
        }
        let ids: Vec<ExampleId> = trained.iter().map(|row| row.id).collect();
        let text = json!([made_from, seed, n_tokens, ids]).to_string();
        let name = blake3::hash(text.as_bytes()).to_hex()[..32].to_owned();
        let outcome = PathBuf::new();
        Ok((name, Trial { contender: self.name.clone(), rows, seed, n_tokens, outcome }))
    }

    /// What a trial trains on.
    fn rows(&self, seed: Seed) -> Option<TrainingRows> {
        let ids = match &self.rows {
            Rows::None => return None,
            Rows::All => None,
            Rows::Drawn(n) => Some(self.drawn(*n, seed)),
            Rows::These(ids) => Some(ids.clone()),
        };
        Some(TrainingRows { table: self.table.clone(), ids })
    }

    /// Some of the rows, at random.
    fn drawn(&self, n: usize, seed: Seed) -> Vec<ExampleId> {
        let ids: Vec<ExampleId> = self.heads.iter().map(|row| row.id).collect();
        choose(&ids, n, seed).into_iter().map(|at| ids[at]).collect()
    }
}

fn check_name(name: &str) -> Result<(), VerifyError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_fine =
        name.chars().all(is_name) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if is_fine { Ok(()) } else { Err(VerifyError::Name(name.to_owned())) }
}

/// Refuses contenders that train on what they are evaluated on.
pub(super) fn check_held_out(contenders: &[Contender], eval: &Path) -> Result<(), PipelineError> {
    let eval: HashSet<ExampleId> =
        ExampleTable::open(eval)?.rows().iter().map(|row| row.id).collect();
    for contender in contenders {
        let trains_on = |row: &&TableRow| match &contender.rows {
            Rows::None => false,
            Rows::All | Rows::Drawn(_) => true,
            Rows::These(ids) => ids.binary_search(&row.id).is_ok(),
        };
        let heads = contender.heads.iter().filter(trains_on);
        let n = heads.filter(|row| eval.contains(&row.id)).count();
        if n > 0 {
            return Err(VerifyError::Leaked { contender: contender.name.clone(), n }.into());
        }
    }
    Ok(())
}

pub(super) fn n_tokens<'a>(heads: impl IntoIterator<Item = &'a TableRow>) -> u64 {
    heads.into_iter().map(|row| u64::from(row.n_tokens)).sum()
}

#[expect(clippy::cast_sign_loss, reason = "passes are positive")]
fn times(n_tokens: u64, passes: f64) -> u64 {
    (n_tokens as f64 * passes).round().max(1.0) as u64
}

/// The seed of a contender's trial number `number`: the same for all contenders.
pub(super) fn seed(root: Seed, number: u32) -> Seed {
    let [a, b, c, d, e, f, g, h, ..] = root.key(&["verify", "trial", &number.to_string()]);
    Seed(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}
