//! `less-select status`, and what a finished run has to say.

use std::fmt::Write;

use serde_json::{Value, json};

use super::exit::CliError;
use super::{Answer, Context};
use crate::pipeline::manifest::StageRecord;
use crate::pipeline::state::{StageState, stage_states};
use crate::stage::Stage;

/// The stages of a run: complete, out of date, or missing.
pub(super) fn status(context: &Context<'_>) -> Result<Answer, CliError> {
    let states = stage_states(&context.config, &context.run)?;
    let mut text = format!("{}\n", context.run.root().display());
    for (stage, state) in &states {
        writeln!(text, "  {stage:<10} {}", describe(state)).expect("a string takes all");
    }
    let stages: serde_json::Map<_, _> = states
        .iter()
        .map(|(stage, state)| (stage.name().to_owned(), as_json(*stage, state)))
        .collect();
    Ok(Answer::done(text, json!({ "run": context.run.root(), "stages": stages })))
}

fn describe(state: &StageState) -> String {
    match state {
        StageState::Complete(record) => format!("complete     {}", made(record)),
        StageState::OutOfDate { record, difference } => {
            format!("out of date  {} ({difference})", made(record))
        }
        StageState::Missing => "-".to_owned(),
    }
}

fn made(record: &StageRecord) -> String {
    let finished = record.finished.strftime("%F %R UTC");
    format!("{}; {:.1} s, {finished}", record.told(), record.seconds)
}

fn as_json(stage: Stage, state: &StageState) -> Value {
    match state {
        StageState::Complete(record) => {
            json!({ "stage": stage, "state": "complete", "record": record })
        }
        StageState::OutOfDate { record, difference } => {
            json!({ "stage": stage, "state": "out-of-date", "difference": difference, "record": record })
        }
        StageState::Missing => json!({ "stage": stage, "state": "missing" }),
    }
}

/// The end of a run: where the subset is and what is in it. Quietly, no row of it
/// is quoted, for what is printed may end in a log.
pub(super) fn result(context: &Context<'_>) -> Result<Answer, CliError> {
    let mut text = fs_err::read_to_string(context.run.summary())?;
    if context.quiet {
        text.truncate(text.find("\n\n").map_or(text.len(), |end| end + 1));
    }
    let json = serde_json::from_slice(&fs_err::read(context.run.report_json())?);
    Ok(Answer::done(text, json.map_err(std::io::Error::from)?))
}
