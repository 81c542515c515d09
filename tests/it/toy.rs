//! A world small enough to compute twice: random examples, the closed-form
//! model at a few checkpoints, and the stores collected from them.

use std::num::NonZeroUsize;
use std::path::Path;
use std::slice;

use less_select::gradient::PerExampleGradients;
use less_select::gradient::collect::{
    CollectError, CollectSettings, Collected, ExampleSource, collect,
};
use less_select::gradient::direction::{AdamRule, GradientKind, Moments};
use less_select::gradient::layout::ParamLayout;
use less_select::gradient::linear::LinearModel;
use less_select::gradient::measure::Measure;
use less_select::gradient::shard_plan::{Part, plan_shards};
use less_select::pool::table::TableRow;
use less_select::pool::{Example, ExampleId, PoolError};
use less_select::progress::{Observer, Silent};
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use less_select::store::shard::StoreHeader;
use less_select::store::{FORMAT, Split, StoreDtype};
use rand_chacha::rand_core::Rng;

/// Size of the vocabulary.
pub(crate) const N_TOKENS: u32 = 40;

/// A table in memory.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) rows: Vec<TableRow>,
    pub(crate) examples: Vec<Example>,
}

impl ExampleSource for Table {
    fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        Ok(positions.iter().map(|at| self.examples[*at].clone()).collect())
    }
}

pub(crate) fn example(token_ids: &[u32], supervised: &[bool]) -> Example {
    let id = ExampleId::of(token_ids, supervised);
    Example { id, token_ids: token_ids.to_vec(), supervised: supervised.to_vec() }
}

/// A table of examples, each with its source and subtask, given in any order.
pub(crate) fn table<'a>(
    examples: impl IntoIterator<Item = (Example, &'a str, Option<&'a str>)>,
) -> Table {
    let mut rows: Vec<_> = examples.into_iter().collect();
    rows.sort_by_key(|(example, source, subtask)| (example.id, *source, *subtask));
    rows.dedup_by_key(|(example, source, subtask)| (example.id, *source, *subtask));
    let heads = rows.iter().map(|(example, source, subtask)| TableRow {
        id: example.id,
        source: (*source).to_owned(),
        subtask: subtask.map(str::to_owned),
        n_tokens: example.token_ids.len() as u32,
        n_supervised: example.n_supervised() as u32,
        truncated: false,
    });
    Table {
        rows: heads.collect(),
        examples: rows.iter().map(|(example, ..)| example.clone()).collect(),
    }
}

/// `n` examples of 2 to 20 tokens, the last ones supervised.
pub(crate) fn random_examples(n: usize, seed: u64) -> Vec<Example> {
    let mut rng = Seed(seed).stream(&["toy examples"]);
    let mut below = |n: u32| rng.next_u32() % n;
    (0..n)
        .map(|_| {
            let n_tokens = 2 + below(19);
            let n_prompt = 1 + below(n_tokens - 1);
            let token_ids: Vec<u32> = (0..n_tokens).map(|_| below(N_TOKENS)).collect();
            let supervised: Vec<bool> = (0..n_tokens).map(|at| at >= n_prompt).collect();
            example(&token_ids, &supervised)
        })
        .collect()
}

/// A pool of about `n` random examples.
pub(crate) fn pool(n: usize, seed: u64) -> Table {
    table(random_examples(n, seed).into_iter().map(|example| (example, "toy", None)))
}

/// A target with subtasks of 5, 3 and 1 examples: `quiz/a`, `quiz/b`, `essay`.
pub(crate) fn target(seed: u64) -> Table {
    let parts = std::iter::repeat_n(("quiz", Some("a")), 5)
        .chain(std::iter::repeat_n(("quiz", Some("b")), 3))
        .chain([("essay", None)]);
    let examples = random_examples(9, seed).into_iter().zip(parts);
    table(examples.map(|(example, (source, subtask))| (example, source, subtask)))
}

/// A pool that goes from copies of a target's examples to unlike ones, token by
/// token, so that scores spread widely.
pub(crate) fn pool_like(target: &Table, seed: u64) -> Table {
    let mut rng = Seed(seed).stream(&["toy changes"]);
    let changed = target.examples.iter().flat_map(|original| {
        let mut token_ids = original.token_ids.clone();
        let versions = (0..token_ids.len()).map(|_| {
            let at = rng.next_u32() as usize % token_ids.len();
            token_ids[at] = rng.next_u32() % N_TOKENS;
            (example(&token_ids, &original.supervised), "toy", None)
        });
        versions.collect::<Vec<_>>()
    });
    table(changed)
}

/// The model at checkpoint `epoch-N`.
pub(crate) fn model(epoch: u64) -> LinearModel {
    LinearModel::new(Seed(epoch), N_TOKENS as usize)
}

/// The optimizer's moments at `epoch-N`, of the size gradients have.
pub(crate) fn moments(epoch: u64) -> Moments {
    let grad_dim = model(epoch).layout().grad_dim();
    let mut rng = Seed(epoch).stream(&["toy moments"]);
    let mut uniform = || rng.next_u32() as f32 / u32::MAX as f32;
    Moments {
        rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 10 * epoch },
        exp_avg: (0..grad_dim).map(|_| 2e-3 * (uniform() - 0.5)).collect(),
        exp_avg_sq: (0..grad_dim).map(|_| 1e-4 * uniform()).collect(),
    }
}

/// How a table is measured and collected.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) kinds: Vec<GradientKind>,
    pub(crate) projection: ProjectionKind,
    pub(crate) proj_dim: usize,
    pub(crate) dtype: StoreDtype,
    pub(crate) shard_rows: usize,
    pub(crate) batch_tokens: usize,
    pub(crate) n_threads: usize,
    pub(crate) part: Part,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kinds: GradientKind::ALL.to_vec(),
            projection: ProjectionKind::None,
            proj_dim: 64,
            dtype: StoreDtype::F32,
            shard_rows: 16,
            batch_tokens: 64,
            n_threads: 1,
            part: Part::WHOLE,
        }
    }
}

impl Setup {
    /// The projection of checkpoint `epoch-N`.
    pub(crate) fn projection(&self, epoch: u64, layout: &ParamLayout) -> Projection {
        let settings = ProjectionSettings { kind: self.projection, proj_dim: self.proj_dim };
        Projection::new(settings, Seed(0), &format!("epoch-{epoch}"), layout).unwrap()
    }

    /// Collects `table` at checkpoint `epoch-N` with its own model.
    pub(crate) fn collect(&self, table: &Table, split: Split, epoch: u64, dir: &Path) -> Collected {
        self.collect_with(&mut model(epoch), table, split, epoch, dir, &Silent).unwrap()
    }

    /// Collects `table` with a given model and observer.
    pub(crate) fn collect_with<M: PerExampleGradients>(
        &self,
        model: &mut M,
        table: &Table,
        split: Split,
        epoch: u64,
        dir: &Path,
        observer: &dyn Observer,
    ) -> Result<Collected, CollectError<M::Error>> {
        let moments = moments(epoch);
        let projection = self.projection(epoch, model.layout());
        let measure =
            Measure { kinds: &self.kinds, moments: Some(&moments), projection: &projection };
        let header = store_header(measure, &format!("epoch-{epoch}"), split, self.dtype);
        let shard_rows = NonZeroUsize::new(self.shard_rows).unwrap();
        plan_shards(dir, Path::new(""), slice::from_ref(&header), &table.rows, shard_rows).unwrap();
        let settings = CollectSettings {
            header,
            batch_tokens: self.batch_tokens,
            threads: NonZeroUsize::new(self.n_threads),
            part: self.part,
        };
        collect(model, table, measure, dir, &settings, observer)
    }
}

/// The header of a store of what is measured.
pub(crate) fn store_header(
    measure: Measure<'_>,
    checkpoint: &str,
    split: Split,
    dtype: StoreDtype,
) -> StoreHeader {
    StoreHeader {
        checkpoint: checkpoint.to_owned(),
        dtype,
        format: FORMAT,
        gradient: "toy".to_owned(),
        kinds: measure.kinds.to_vec(),
        layout: measure.projection.layout().fingerprint(),
        proj_dim: measure.projection.proj_dim(),
        projection: measure.projection.fingerprint().to_owned(),
        split,
    }
}
