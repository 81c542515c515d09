//! Errors as the user meets them: text and a hint.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode as Exit;
use std::sync::{Mutex, PoisonError};

use super::exit_code::{ExitCode, HasExitCode};
use crate::checkpoint::{CheckpointError, CheckpointErrorKind};
use crate::comparison::CompareError;
use crate::config::ConfigError;
use crate::explain::ExplainError;
#[cfg(feature = "hub")]
use crate::hub::HubError;
use crate::merge::MergeError;
use crate::pipeline::PipelineError;
use crate::pipeline::lock::LockError;
use crate::pipeline::worker::{Failure, WorkerError};
use crate::pool::{ModelErrorKind, PoolError};
use crate::stage::Stage;

/// What the last panic said. Some are caught where they are expected, from a
/// library that panics on damaged bytes, and are none of the user's business.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps what a panic says, for [`guarded`] to tell if it gets there.
pub(super) fn listen_to_panics() {
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}

/// Runs `work`, making a panic read as what it is and end with its own exit code.
pub(super) fn guarded(work: impl FnOnce() -> Exit) -> Exit {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let panic = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone();
        say(&format!(
            "error: this is a bug in less-select, please report it\n  caused by: {panic}"
        ));
        (ExitCode::Bug as u8).into()
    })
}

/// Prints help where it was asked for and usage errors where they belong.
pub(super) fn usage(text: &clap::Error) -> Exit {
    let _ = text.print();
    let code = if text.use_stderr() { ExitCode::Usage } else { ExitCode::Done };
    (code as u8).into()
}

/// Tells an error, as JSON on standard output where a program listens.
pub(super) fn failure(err: &CliError, json: bool) -> Exit {
    if json {
        let error = Failure::new(err.exit_code(), err);
        let _ = writeln!(io::stdout(), "{:#}", serde_json::json!({ "error": error }));
    }
    say(&err.text());
    err.exit_code().into()
}

/// Tells of something that is no failure.
pub(super) fn warn(message: &str) {
    say(&format!("warning: {message}"));
}

/// Nobody may be listening (`2>&1 | head`), which is no reason to fail.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whatever ends a command early.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Settings that cannot be run on.
    #[error("invalid settings")]
    Config(#[from] ConfigError),
    /// An environment variable that looks like a setting and is none.
    #[error("unknown environment variable `{name}`{hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// A worker among others was told to start over.
    #[error("--force works on all shards and not with --shard")]
    ForcedShard,
    /// A run failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// No merged model was written.
    #[error("the model and the adapter cannot be merged")]
    Merge(#[from] MergeError),
    /// The model could not be fetched.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] HubError),
    /// `inspect` was given something no run writes.
    #[error("`{path}` is not something less-select wrote: {why}")]
    NotOurs {
        /// What was given.
        path: String,
        /// What was expected.
        why: String,
    },
    /// Something has no rows that could be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// Standard output or a file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What to do about a model's tokenizer or chat template.
fn tokenizer_hint(kind: &ModelErrorKind) -> Option<&'static str> {
    match kind {
        ModelErrorKind::NoChatTemplate => Some(
            "name what the model is to read with --chat-template: a template (chatml, llama-2, \
             tulu, alpaca, or a file such as the chat_template.jinja of its instruction-tuned \
             sibling), or `none` for prompts and completions as they are",
        ),
        ModelErrorKind::NoDefaultTemplate => {
            Some("name the file of one of them with --chat-template")
        }
        ModelErrorKind::Gguf(_) => {
            Some("give the model's folder in Hugging Face layout with --model instead")
        }
        ModelErrorKind::SentencePiece(_) => Some(
            "`AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)` of the Python package \
             `transformers` writes a tokenizer.json, which is read before this file",
        ),
        _ => None,
    }
}

impl CliError {
    /// The exit code this error stands for.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::UnknownVariable { .. } | Self::ForcedShard => {
                ExitCode::Usage as u8
            }
            Self::Pipeline(err) => err.exit_code(),
            Self::Merge(err) => err.exit_code(),
            #[cfg(feature = "hub")]
            Self::Hub(err) => err.exit_code(),
            Self::Compare(err) => err.exit_code(),
            Self::NotOurs { .. } => ExitCode::BadData as u8,
            Self::Io(err) => err.exit_code(),
        }
    }

    /// What the user can do about it, when there is something.
    fn hint(&self) -> Option<String> {
        #[cfg(feature = "hub")]
        if let Self::Hub(err) = self {
            return super::hub::hint(&err.kind).map(str::to_owned);
        }
        let Self::Pipeline(err) = self else { return None };
        let hint: &str = match err {
            PipelineError::Incomplete { needs, .. } => {
                &format!("run `less-select {needs}` first, or `less-select` for everything")
            }
            PipelineError::OtherPlan { .. } => {
                "give the run's own settings, another --run, or `less-select` without a stage to \
                 compute what changed"
            }
            PipelineError::Off { stage: Stage::FirstPass, .. } => {
                "`--cascade SHARE`, `--method rds` and `--method perplexity` turn it on"
            }
            PipelineError::Off { .. } => "`--method less` turns it on",
            PipelineError::TargetBudgets => {
                "run `less-select` with other target budgets: only the selection is made anew"
            }
            PipelineError::Explain(ExplainError::NoSelection(_)) => "run `less-select` first",
            PipelineError::Explain(ExplainError::NoRow { .. }) => {
                "a row is its id, 32 hex digits or the first few, or FILE:LINE or SOURCE:LINE; of \
                 rows with equal content the pool has one"
            }
            PipelineError::Explain(ExplainError::Ambiguous { .. }) => {
                "give more of the id, or more of the file's path"
            }
            PipelineError::Locked { source: LockError::Io(_), .. } => {
                "name another place with --run"
            }
            PipelineError::Ingest(PoolError::TooManyRejects { .. }) => {
                "repair them, or do without them by --max-rejects; `less-select ingest` lists them \
                 all in pool/rejects.jsonl of the run"
            }
            PipelineError::Ingest(PoolError::Model { kind, .. })
            | PipelineError::Tokenizer(PoolError::Model { kind, .. }) => tokenizer_hint(kind)?,
            PipelineError::Ingest(PoolError::Empty { n_too_long: 1.., .. }) => "raise --max-tokens",
            PipelineError::Worker(WorkerError::Died { .. }) => {
                "if the system ran out of memory, lower --batch-tokens; the same command continues \
                 where this one ended"
            }
            PipelineError::Checkpoint(CheckpointError {
                kind: CheckpointErrorKind::Unsupported { .. },
                ..
            }) => {
                "gradients are taken of a plain LoRA, one rank and scale for all of its modules: \
                 train one so, or leave out --checkpoints for a warm-up of less-select's own"
            }
            PipelineError::OtherWeight { .. } => {
                "gradients are taken at the model's own weights: give a --model that was saved with \
                 that one in it"
            }
            PipelineError::Interrupted => "the same command continues where this one ended",
            err if err.exit_code() == ExitCode::Damaged as u8 => {
                "`less-select fsck` names all that is damaged; with `--repair` it removes that, and \
                 `less-select` makes it anew"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The message, its causes and a hint on one line, for lists of findings.
    pub(super) fn with_hint(&self) -> String {
        let mut words = vec![with_causes(self)];
        words.extend(self.hint());
        words.join("; ")
    }

    /// The message, its causes and a hint, a line each.
    pub(super) fn text(&self) -> String {
        let mut text = format!("error: {self}");
        for cause in causes(self) {
            let _ = write!(text, "\n  caused by: {cause}");
        }
        if let Some(hint) = self.hint() {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}

/// The causes of `err`, outermost first, without one that its parent already
/// spelled out.
fn causes(err: &dyn Error) -> Vec<String> {
    let mut shown = err.to_string();
    let mut causes = Vec::new();
    let mut next = err.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !shown.contains(&text) {
            causes.push(text.clone());
        }
        shown = text;
        next = cause.source();
    }
    causes
}

/// An error and its causes on one line, for lists of findings.
pub(super) fn with_causes(err: &dyn Error) -> String {
    let mut words = vec![err.to_string()];
    words.extend(causes(err));
    words.join(": ")
}
