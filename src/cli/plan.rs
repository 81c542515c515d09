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
use crate::gradient::layout::ParamLayout;
use crate::model::DecoderConfig;
use crate::pipeline::PipelineError;
use crate::pipeline::state::Outlook;
use crate::pool::{SourceSummary, survey};
use crate::stage::Stage;
use crate::store::StoreDtype;

/// Share of the measured peak of matrix products that the gradient pass
/// reaches (docs/measurements.md).
const EFFICIENCY: f64 = 0.6;

/// What a run would take.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plan {
    pool: SourceSummary,
    target: SourceSummary,
    #[serde(rename = "checkpoints")]
    n_checkpoints: u64,
    warmup_rows: u64,
    gradient_rows: u64,
    store_bytes: u64,
    /// Useful floating-point operations of warm-up and gradients.
    flop: f64,
    /// Wall-clock seconds, where the machine could be measured.
    seconds: Option<f64>,
}

/// Reads the pool and the target, writes nothing.
pub(super) fn plan(context: &Context<'_>) -> Result<Answer, CliError> {
    let config = &context.config;
    let survey =
        survey(&config.ingest, &config.model, context.observer).map_err(PipelineError::from)?;
    let model = DecoderConfig::read(&config.model).map_err(PipelineError::from)?;
    let layout = model.lora_layout(&config.lora).map_err(PipelineError::from)?;
    let pool = SourceSummary::total(&survey.pool);
    let target = SourceSummary::total(&survey.target);
    let (n_checkpoints, warmup_rows) = match &config.checkpoints {
        Some(dir) => (checkpoints_in(dir).map_err(PipelineError::from)?.len() as u64, 0),
        None => {
            (u64::from(config.warmup.epochs), config.warmup.n_rows(pool.n_kept as usize) as u64)
        }
    };

    let flop_of = |source: &SourceSummary| {
        let n_rows = source.n_kept.max(1);
        let mean = |n: u64| (n / n_rows) as usize;
        let row = model.gradient_flop(&layout, mean(source.n_tokens), mean(source.n_supervised));
        row * n_rows as f64
    };
    let warmup_share = warmup_rows as f64 / pool.n_kept.max(1) as f64;
    let kept = config.cascade.unwrap_or(1.0);
    let mut flop =
        n_checkpoints as f64 * (flop_of(&pool) * (kept + warmup_share) + flop_of(&target));
    if config.cascade.is_some() {
        // Forward only, which is half.
        flop += 0.5 * (flop_of(&pool) + flop_of(&target));
    }
    let n_pool = n_kept(pool.n_kept as usize, kept) as u64;
    let plan = Plan {
        n_checkpoints,
        warmup_rows,
        gradient_rows: n_checkpoints * (n_pool + target.n_kept),
        store_bytes: n_checkpoints * checkpoint_bytes(config, &layout, n_pool, target.n_kept),
        flop,
        seconds: measured_gflops(context).map(|gflops| flop / (gflops * 1e9 * EFFICIENCY)),
        pool,
        target,
    };
    Ok(Answer::done(as_text(&plan), json!(plan)))
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

/// Bytes of the rows stored at one checkpoint; the target's are f32.
fn checkpoint_bytes(config: &Config, layout: &ParamLayout, n_pool: u64, n_target: u64) -> u64 {
    let row = config.projection.row_length(layout);
    let bytes = |dtype: StoreDtype| dtype.row_bytes(row) as u64;
    let pool = n_pool * config.stored_kinds().len() as u64 * bytes(config.store_dtype);
    pool + n_target * bytes(StoreDtype::F32)
}

/// The speed of matrix products in the precision that will be used.
fn measured_gflops(context: &Context<'_>) -> Option<f64> {
    let facts = ask(context, "probe").ok()?;
    facts["gflops"].as_f64().filter(|gflops| *gflops > 0.0)
}

fn as_text(plan: &Plan) -> String {
    let Plan {
        pool,
        target,
        n_checkpoints,
        warmup_rows,
        gradient_rows,
        store_bytes,
        flop,
        seconds,
    } = plan;
    let mut text = String::new();
    let mut line = |name: &str, words: String| {
        writeln!(text, "{name:<12} {words}").expect("a string takes all");
    };
    line("pool", side(pool));
    line("target", format!("{}, {} subtasks", side(target), target.subtasks.len()));
    line("warm-up", format!("{warmup_rows} rows, {n_checkpoints} checkpoints"));
    line("gradients", format!("{gradient_rows} rows"));
    line("store", format!("{:.1} MB", *store_bytes as f64 / 1e6));
    let time = seconds.map_or_else(
        || "unknown: libtorch could not be measured".to_owned(),
        |seconds| format!("about {}", duration(seconds)),
    );
    line("time", format!("{time} ({:.1} TFLOP)", flop / 1e12));
    text
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
