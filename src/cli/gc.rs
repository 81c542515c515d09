//! `less-select gc`: what is removed of a run, and how much that was.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::Answer;
use super::exit::CliError;
use crate::pipeline::gc::{self, Garbage, Wanted};
use crate::progress::Observer;
use crate::run_dir::RunDir;

/// Removes what no stage needs, or says what that would be.
pub(super) fn gc(
    run: &RunDir,
    wanted: Wanted,
    wait: Duration,
    observer: &dyn Observer,
) -> Result<Answer, CliError> {
    let garbage = gc::gc(run, wanted, wait, observer)?;
    Ok(Answer::done(as_text(&garbage), json!(garbage)))
}

fn as_text(garbage: &Garbage) -> String {
    let mut text = String::new();
    for item in &garbage.items {
        let _ = writeln!(text, "{} ({}, {} bytes)", item.path.display(), item.what, item.bytes);
    }
    for folder in &garbage.left_alone {
        let _ = writeln!(text, "left alone: {}, which other runs may use", folder.display());
    }
    let done = if garbage.removed { "removed" } else { "would be removed" };
    let n_items = garbage.items.len();
    let _ = writeln!(text, "{n_items} files and folders {done}, {} bytes", garbage.bytes);
    text
}
