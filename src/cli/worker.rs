//! The other program, `less-select-torch`: the stages that need the model.
//!
//! It is started by `less-select`, reads the settings from a file, tells events
//! and its last word as JSON lines on standard output, and stops at the next
//! safe point when its standard input is closed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use super::exit_code::{ExitCode, HasExitCode};
use super::{exit, interrupt};
use crate::config::{Config, ConfigError, Layer};
use crate::gradient::shard_plan::Part;
use crate::model::probe;
use crate::pipeline::torch::{self, TorchError};
use crate::pipeline::worker::{Failure, Line};
use crate::progress::{Event, Observer};
use crate::run_dir::RunDir;

#[derive(Debug, Parser)]
#[command(
    name = "less-select-torch",
    version,
    about = "The stages of less-select that need the model"
)]
struct Cli {
    /// Stop when standard input is closed
    #[arg(long)]
    attached: bool,

    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Train the warm-up of a run
    Warmup {
        /// Settings
        #[arg(long)]
        config: PathBuf,
        /// The run directory
        #[arg(long)]
        run: PathBuf,
    },
    /// Go over the pool of a run by one forward pass
    FirstPass {
        /// Settings
        #[arg(long)]
        config: PathBuf,
        /// The run directory
        #[arg(long)]
        run: PathBuf,
    },
    /// Compute gradient shards of a run
    Gradients {
        /// Settings
        #[arg(long)]
        config: PathBuf,
        /// The run directory
        #[arg(long)]
        run: PathBuf,
        /// Which shards
        #[arg(long, default_value = "1/1")]
        shard: Part,
    },
    /// Train and evaluate what a plan says
    Verify {
        /// Settings
        #[arg(long)]
        config: PathBuf,
        /// The plan
        #[arg(long)]
        plan: PathBuf,
    },
    /// Measure libtorch on this machine
    Probe {
        /// Settings
        #[arg(long)]
        config: PathBuf,
    },
    /// Time gradients beside matrix products
    Speed {
        /// Settings
        #[arg(long)]
        config: PathBuf,
        /// Tokens of a row
        #[arg(long)]
        row_tokens: usize,
    },
    /// Compare gradients of rows alone and in a batch
    CheckBatches {
        /// Settings
        #[arg(long)]
        config: PathBuf,
    },
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    /// The settings it was given.
    #[error("invalid settings")]
    Config(#[from] ConfigError),
    /// The work itself.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl HasExitCode for TaskError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => ExitCode::Usage as u8,
            Self::Torch(err) => err.exit_code(),
        }
    }
}

/// Tells events to the parent.
struct Parent;

impl Observer for Parent {
    fn notify(&self, event: Event) {
        say(&Line::Event(event));
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_asked()
    }
}

/// Runs the worker and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    exit::listen_to_panics();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => return exit::usage(&usage),
    };
    interrupt::listen();
    if cli.attached {
        std::thread::spawn(stop_with_the_parent);
    }
    exit::guarded(|| match answer(&cli.task) {
        Ok(answer) => {
            say(&Line::Answer(answer));
            (ExitCode::Done as u8).into()
        }
        Err(err) => {
            let exit_code = err.exit_code();
            // Whoever asked us to stop knows why we did.
            if exit_code != interrupt::exit_code() as u8 {
                say(&Line::Failure(Failure::new(exit_code, &err)));
            }
            exit_code.into()
        }
    })
}

fn answer(task: &Task) -> Result<Value, TaskError> {
    match task {
        Task::Warmup { config, run } => {
            Ok(torch::warmup(&settings(config)?, &RunDir::new(run), &Parent)?)
        }
        Task::FirstPass { config, run } => {
            Ok(torch::first_pass(&settings(config)?, &RunDir::new(run), &Parent)?)
        }
        Task::Gradients { config, run, shard } => {
            Ok(torch::gradients(&settings(config)?, &RunDir::new(run), *shard, &Parent)?)
        }
        Task::Verify { config, plan } => Ok(torch::verify(&settings(config)?, plan, &Parent)?),
        Task::Probe { config } => Ok(json!(probe::probe(&settings(config)?.compute))),
        Task::Speed { config, row_tokens } => {
            Ok(json!(torch::gradient_speed(&settings(config)?, *row_tokens)?))
        }
        Task::CheckBatches { config } => Ok(torch::check_batches(&settings(config)?)?),
    }
}

fn settings(file: &Path) -> Result<Config, ConfigError> {
    let layers = [Some(Layer::default_pipeline()), Layer::run(file)?];
    Config::resolve(&layers.into_iter().flatten().collect::<Vec<_>>())
}

/// The parent holds our standard input open for as long as it wants us.
fn stop_with_the_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    interrupt::ask();
}

/// One line on standard output; a parent that went away is noticed elsewhere.
fn say(line: &Line) {
    if let Ok(mut text) = serde_json::to_vec(line) {
        text.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
}
