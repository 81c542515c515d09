//! `less-select doctor`: is everything in place, and are the numbers right?

mod checkpoints;

use std::fmt::Write;
use std::path::Path;

pub(super) use checkpoints::doctor_of_checkpoints;
use serde_json::{Value, json};

use super::exit::with_causes;
use super::exit_code::ExitCode;
use super::{Answer, Context};
use crate::model::DecoderConfig;
use crate::pipeline::worker;
use crate::pool::survey;

/// Looks at one thing: what is there, or what is wrong.
type Check = fn(&Context<'_>) -> Result<String, String>;

/// What one check found.
struct Finding {
    subject: String,
    verdict: Verdict,
    words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    /// Nothing stands in the way, but it is worth knowing.
    Note,
    Wrong,
}

impl Finding {
    fn new(subject: impl Into<String>, result: Result<String, String>) -> Self {
        let (verdict, words) = match result {
            Ok(words) => (Verdict::Well, words),
            Err(words) => (Verdict::Wrong, words),
        };
        Self { subject: subject.into(), verdict, words }
    }

    fn note(subject: impl Into<String>, words: String) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Note, words }
    }
}

/// Checks the machine, libtorch, the model and the data, as far as the method needs
/// them. A failed check is part of the answer.
pub(super) fn doctor(context: &Context<'_>, row_tokens: u32) -> Answer {
    let (needs_model, takes_gradients) =
        (context.config.needs_model(), context.config.method.takes_gradients());
    let checks: [(&str, bool, Check); 5] = [
        ("machine", true, machine),
        ("libtorch", needs_model, libtorch),
        ("model", needs_model, model),
        ("data", true, data),
        ("gradients", takes_gradients, gradients),
    ];
    let needed = checks.into_iter().filter(|(_, is_needed, _)| *is_needed);
    let mut findings: Vec<Finding> =
        needed.map(|(subject, _, check)| Finding::new(subject, check(context))).collect();
    if takes_gradients {
        findings.push(Finding::new("speed", speed(context, row_tokens)));
    }
    answer(&findings)
}

fn answer(findings: &[Finding]) -> Answer {
    let is_well = findings.iter().all(|finding| finding.verdict != Verdict::Wrong);
    let exit_code = if is_well { ExitCode::Done } else { ExitCode::Failed };
    Answer { text: as_text(findings), json: as_json(findings), exit_code }
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0).max(10);
    let mut text = String::new();
    for Finding { subject, verdict, words } in findings {
        let mark = match verdict {
            Verdict::Well => "ok",
            Verdict::Note => "note",
            Verdict::Wrong => "FAIL",
        };
        writeln!(text, "{mark:<5} {subject:<width$} {words}").expect("a string takes all");
    }
    text
}

fn as_json(findings: &[Finding]) -> Value {
    let findings = findings.iter().map(|Finding { subject, verdict, words }| {
        json!({ "check": subject, "ok": *verdict != Verdict::Wrong, "finding": words })
    });
    json!({ "checks": findings.collect::<Vec<_>>() })
}

fn machine(context: &Context<'_>) -> Result<String, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = memory_gib()
        .map_or_else(|| "unknown memory".to_owned(), |n| format!("{n:.1} GiB of memory free"));
    let precision = context.config.compute.precision();
    let place = existing_ancestor(context.run.root());
    let probe = tempfile::tempfile_in(place);
    probe.map_err(|err| format!("`{}` cannot be written: {err}", place.display()))?;
    Ok(format!("{cores} cores, {memory}, computes in {}", format!("{precision:?}").to_lowercase()))
}

/// Memory that processes can still have, from the kernel.
fn memory_gib() -> Option<f64> {
    let facts = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = facts.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("."))
}

fn libtorch(context: &Context<'_>) -> Result<String, String> {
    let facts = ask(context, "probe")?;
    Ok(format!(
        "{}, {} threads, matrix products at {:.0} GFLOP/s in f32 and {:.0} in bf16, CUDA devices: {}",
        facts["libtorch"].as_str().unwrap_or("unknown version"),
        facts["threads"],
        facts["gflops-f32"].as_f64().unwrap_or(0.0),
        facts["gflops-bf16"].as_f64().unwrap_or(0.0),
        facts["cuda-devices"],
    ))
}

fn model(context: &Context<'_>) -> Result<String, String> {
    let dir = &context.config.model;
    let config = DecoderConfig::read(dir).map_err(|err| with_causes(&err))?;
    let layout = config.lora_layout(&context.config.lora).map_err(|err| with_causes(&err))?;
    Ok(format!(
        "`{}`: {:.1} M parameters, {} layers, adapter of {:.2} M parameters",
        dir.display(),
        config.n_parameters() as f64 / 1e6,
        config.n_layers,
        layout.grad_dim() as f64 / 1e6,
    ))
}

fn data(context: &Context<'_>) -> Result<String, String> {
    let config = &context.config;
    if config.random_weights.is_some() {
        return Ok("not looked at: a model of random weights needs no tokenizer".to_owned());
    }
    let summary =
        survey(&config.ingest, &config.model, context.observer).map_err(|err| with_causes(&err))?;
    Ok(summary.to_string())
}

/// A row's gradient must not depend on the rows it is computed with.
fn gradients(context: &Context<'_>) -> Result<String, String> {
    let facts = ask(context, "check-batches")?;
    let error = facts["largest-relative-error"].as_f64().unwrap_or(f64::NAN);
    let tolerance = facts["tolerance"].as_f64().unwrap_or(0.0);
    let text = format!(
        "of {} rows, alone and in a batch, differ by {error:.1e} at most (tolerance {tolerance:.1e})",
        facts["rows"]
    );
    if error <= tolerance { Ok(text) } else { Err(text) }
}

/// Gradients a second, beside what the machine's matrix products would allow.
fn speed(context: &Context<'_>, row_tokens: u32) -> Result<String, String> {
    let row_tokens = row_tokens.to_string();
    let task = ["speed", "--row-tokens", &row_tokens];
    let facts = worker::run(&context.config, &task, context.observer);
    let facts = facts.map_err(|err| with_causes(&err))?;
    let number = |name: &str| facts[name].as_f64().unwrap_or(f64::NAN);
    let rows_a_second = 1.0 / number("seconds");
    Ok(format!(
        "{rows_a_second:.2} gradients of {row_tokens} tokens a second ({:.0} tokens), {:.0} % of \
         what matrix products would allow",
        rows_a_second * number("n-tokens"),
        100.0 * number("share"),
    ))
}

/// Asks the other program, giving it these settings.
pub(in crate::cli) fn ask(context: &Context<'_>, task: &str) -> Result<Value, String> {
    worker::run(&context.config, &[task], context.observer).map_err(|err| with_causes(&err))
}
