//! `less-select plan` and `--dry-run`: what a run would cost and do, before it.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, json};

use super::doctor::ask;
use super::exit::CliError;
use super::{Answer, Context, duration};
use crate::cascade::kept::n_kept;
use crate::checkpoint::checkpoints_in;
use crate::config::Config;
use crate::first_pass::FirstPass;
use crate::gradient::layout::ParamLayout;
use crate::method::Method;
use crate::model::DecoderConfig;
use crate::pipeline::PipelineError;
use crate::pipeline::state::Outlook;
use crate::pool::{SourceSummary, survey};
use crate::stage::Stage;
use crate::store::StoreDtype;

/// Share of the measured peak of matrix products that the gradient pass
/// reaches (docs/measurements.md).
const EFFICIENCY: f64 = 0.6;

/// Bytes of a stored score.
const SCORE_BYTES: u64 = 4;

/// What a run would take.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plan {
    method: Method,
    pool: SourceSummary,
    target: SourceSummary,
    #[serde(flatten)]
    work: Work,
    /// Wall-clock seconds, where the machine could be measured. What no model computes
    /// is not counted.
    seconds: Option<f64>,
}

/// What has to be computed and kept.
#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Work {
    #[serde(rename = "checkpoints")]
    n_checkpoints: u64,
    warmup_rows: u64,
    gradient_rows: u64,
    /// Rows of one forward pass.
    first_pass_rows: u64,
    /// Gradients, or scores by target example.
    store_bytes: u64,
    /// Useful floating-point operations of the model.
    flop: f64,
}

/// Reads the pool and the target, writes nothing.
pub(super) fn plan(context: &Context<'_>) -> Result<Answer, CliError> {
    let config = &context.config;
    let survey =
        survey(&config.ingest, &config.model, context.observer).map_err(PipelineError::from)?;
    let pool = SourceSummary::total(&survey.pool);
    let target = SourceSummary::total(&survey.target);
    let work = if config.needs_model() {
        Model::of(config)?.work(config, &pool, &target)?
    } else {
        Work { store_bytes: example_scores(config, &pool, &target), ..Work::default() }
    };
    let seconds_at = |gflops: f64| work.flop / (gflops * 1e9 * EFFICIENCY);
    let seconds =
        if work.flop > 0.0 { measured_gflops(context).map(seconds_at) } else { Some(0.0) };
    let plan = Plan { method: config.method, pool, target, work, seconds };
    Ok(Answer::done(as_text(&plan), json!(plan)))
}

/// The model that a run computes with.
struct Model {
    config: DecoderConfig,
    layout: ParamLayout,
}

impl Model {
    fn of(config: &Config) -> Result<Self, PipelineError> {
        let model = DecoderConfig::read(&config.model)?;
        let layout = model.lora_layout(&config.lora)?;
        Ok(Self { config: model, layout })
    }

    fn work(
        &self,
        config: &Config,
        pool: &SourceSummary,
        target: &SourceSummary,
    ) -> Result<Work, PipelineError> {
        let mut work = Work::default();
        if config.method.takes_gradients() {
            work = self.gradients(config, pool, target)?;
        } else {
            work.store_bytes = example_scores(config, pool, target);
        }
        if let Some(wanted) = config.first_pass() {
            let compared = (wanted != FirstPass::Losses).then_some(target);
            for source in [Some(pool), compared].into_iter().flatten() {
                work.first_pass_rows += source.n_kept;
                // Forward only, which is half.
                work.flop += 0.5 * self.flop(source);
            }
        }
        Ok(work)
    }

    fn gradients(
        &self,
        config: &Config,
        pool: &SourceSummary,
        target: &SourceSummary,
    ) -> Result<Work, PipelineError> {
        let (n_checkpoints, warmup_rows) = if let Some(dir) = &config.checkpoints {
            (checkpoints_in(dir)?.len() as u64, 0)
        } else {
            let n_rows = config.warmup.n_rows(pool.n_kept as usize) as u64;
            (u64::from(config.warmup.epochs), n_rows)
        };
        let warmup_share = warmup_rows as f64 / pool.n_kept.max(1) as f64;
        let kept = config.cascade.unwrap_or(1.0);
        let n_pool = n_kept(pool.n_kept as usize, kept) as u64;
        let rows = self.checkpoint_bytes(config, n_pool, target.n_kept);
        let flop = self.flop(pool) * (kept + warmup_share) + self.flop(target);
        Ok(Work {
            n_checkpoints,
            warmup_rows,
            gradient_rows: n_checkpoints * (n_pool + target.n_kept),
            first_pass_rows: 0,
            store_bytes: n_checkpoints * (rows + example_scores(config, pool, target)),
            flop: n_checkpoints as f64 * flop,
        })
    }

    /// Operations of the gradients of all rows of a source.
    fn flop(&self, source: &SourceSummary) -> f64 {
        let n_rows = source.n_kept.max(1);
        let [n_tokens, n_supervised] =
            [source.n_tokens, source.n_supervised].map(|n| (n / n_rows) as usize);
        self.config.gradient_flop(&self.layout, n_tokens, n_supervised) * n_rows as f64
    }

    /// Bytes of the rows stored at one checkpoint; the target's are f32.
    fn checkpoint_bytes(&self, config: &Config, n_pool: u64, n_target: u64) -> u64 {
        let row = config.projection.row_length(&self.layout);
        let bytes = |dtype: StoreDtype| dtype.row_bytes(row) as u64;
        let pool = n_pool * config.stored_kinds().len() as u64 * bytes(config.store_dtype);
        pool + n_target * bytes(StoreDtype::F32)
    }
}

/// Bytes of the scores of every row with every target example, at one checkpoint.
fn example_scores(config: &Config, pool: &SourceSummary, target: &SourceSummary) -> u64 {
    let n_targets = if config.method.has_target() { target.n_kept } else { 0 };
    pool.n_kept * n_targets * SCORE_BYTES
}

/// Which stages would run, and why: all, or `only` one.
pub(super) fn dry_run(context: &Context<'_>, only: Option<Stage>) -> Result<Answer, CliError> {
    let mut text = String::new();
    let mut stages = Map::new();
    for (stage, outlook) in context.pipeline().outlook()? {
        if only.is_some_and(|only| only != stage) {
            continue;
        }
        let (state, why) = match outlook {
            Outlook::Unchanged => ("unchanged", None),
            Outlook::Kept { growth } => {
                ("kept", Some(format!("{:.1} % of the pool is newer", 100.0 * growth)))
            }
            Outlook::Runs { reason } => ("would run", Some(reason)),
            Outlook::Depends { on } => ("may run", Some(format!("depends on what {on} finds"))),
        };
        let words = why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        writeln!(text, "{stage:<10} {state}{words}").expect("a string takes all");
        stages.insert(stage.name().to_owned(), json!({ "state": state, "why": why }));
    }
    Ok(Answer::done(text, json!({ "run": context.run.root(), "stages": stages })))
}

/// The speed of matrix products in the precision that will be used.
fn measured_gflops(context: &Context<'_>) -> Option<f64> {
    let facts = ask(context, "probe").ok()?;
    facts["gflops"].as_f64().filter(|gflops| *gflops > 0.0)
}

fn as_text(plan: &Plan) -> String {
    let Plan { method, pool, target, work, seconds } = plan;
    let mut text = String::new();
    let mut line = |name: &str, words: String| {
        writeln!(text, "{name:<12} {words}").expect("a string takes all");
    };
    line("method", method.source().to_owned());
    line("pool", side(pool));
    line("target", format!("{}, {} subtasks", side(target), target.subtasks.len()));
    if method.takes_gradients() {
        let Work { n_checkpoints, warmup_rows, gradient_rows, .. } = work;
        line("warm-up", format!("{warmup_rows} rows, {n_checkpoints} checkpoints"));
        line("gradients", format!("{gradient_rows} rows"));
    }
    if work.first_pass_rows > 0 {
        line("first pass", format!("{} rows", work.first_pass_rows));
    }
    line("store", format!("{:.1} MB", work.store_bytes as f64 / 1e6));
    line("time", time(work.flop, *seconds));
    text
}

fn time(flop: f64, seconds: Option<f64>) -> String {
    match seconds {
        _ if flop <= 0.0 => "little more than this took: no model computes".to_owned(),
        Some(seconds) => format!("about {} ({:.1} TFLOP)", duration(seconds), flop / 1e12),
        None => {
            format!("unknown: libtorch could not be measured ({:.1} TFLOP)", flop / 1e12)
        }
    }
}

fn side(side: &SourceSummary) -> String {
    let mut words = format!(
        "{} rows, {} tokens, {} of them supervised",
        side.n_kept, side.n_tokens, side.n_supervised
    );
    for (n, what) in [
        (side.n_duplicates, "duplicates"),
        (side.n_malformed, "malformed"),
        (side.n_too_long, "too long"),
        (side.n_truncated, "truncated"),
    ] {
        if n > 0 {
            write!(words, ", {n} {what}").expect("a string takes all");
        }
    }
    words
}
