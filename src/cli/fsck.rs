//! `less-select fsck`: what is damaged, and what that costs.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::Answer;
use super::exit::CliError;
use super::exit_code::ExitCode;
use crate::pipeline::fsck::{self, Condition, Findings};
use crate::progress::Observer;
use crate::run_dir::RunDir;
use crate::stage::Stage;

/// Reads all of a run; removes what is damaged if it is to be repaired.
pub(super) fn fsck(
    run: &RunDir,
    repair: bool,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Answer, CliError> {
    let found =
        if repair { fsck::repair(run, wait, observer)? } else { fsck::fsck(run, observer)? };
    let is_sound = found.damaged.is_empty() || found.repaired;
    let exit_code = if is_sound { ExitCode::Done } else { ExitCode::Damaged };
    Ok(Answer { text: as_text(&found), json: json!(found), exit_code })
}

fn as_text(found: &Findings) -> String {
    let mut text = format!(
        "{}: {} files, {:.1} MB read\n",
        found.run.display(),
        found.files,
        found.bytes as f64 / 1e6
    );
    for (stage, condition) in &found.stages {
        let _ = writeln!(text, "  {stage:<10} {}", describe(condition));
    }
    for damage in &found.damaged {
        let by = damage.stage.map_or("run", Stage::name);
        let _ = writeln!(text, "damaged ({by}): `{}`: {}", damage.path.display(), damage.what);
    }
    for note in &found.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text.push_str(match (found.damaged.is_empty(), found.repaired) {
        (true, _) => "nothing is damaged\n",
        (false, true) => {
            "what is damaged was removed; run `less-select` again: it makes anew what is missing\n"
        }
        (false, false) => "`less-select fsck --repair` removes what is damaged, and nothing else\n",
    });
    text
}

fn describe(condition: &Condition) -> String {
    match condition {
        Condition::Whole => "whole".to_owned(),
        Condition::Damaged { recomputed } => format!("damaged: the next run computes {recomputed}"),
        Condition::OutOfDate { changed } => format!("out of date: {changed} changed"),
        Condition::Missing => "-".to_owned(),
    }
}
