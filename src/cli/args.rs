//! The command line's grammar.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Map;

use super::explain::ExplainArgs;
use super::verify::VerifyArgs;
use crate::config::RawConfig;
use crate::config::layers::{self, Layer, Origin};
use crate::gradient::shard_plan::Part;
use crate::selection::Budget;
use crate::stage::Stage;

const ABOUT: &str = "Select the share of an instruction pool that serves a target skill (LESS)";

const AFTER_HELP: &str = "\
Without a command the whole pipeline runs: ingest, warmup, first-pass (where one is
needed), gradients, index, score, select, report. Stages whose settings and inputs have not changed are skipped.

Settings come from, later ones winning: the built-in defaults (`less-select config`
prints them), --pipeline, the environment (LESS_SELECT_PROJ_DIM for --proj-dim), flags.
A single stage starts from the settings its run was started with.

Exit codes: 0 done or unchanged, 1 failed, 2 wrong usage or settings, 3 the run was made
with other settings, 4 an earlier stage is incomplete, 65 bad data, 70 a bug, 74 a file
could not be read or written, 75 the run is in use or a worker was killed: try again,
76 a file of the run is damaged, 130 and 143 interrupted: the same command continues.";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "less-select", version, about = ABOUT, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) place: Place,

    #[command(flatten)]
    pub(super) work: Work,

    #[command(flatten)]
    settings: RawConfig,

    #[arg(skip)]
    from_environment: Vec<String>,
}

/// Options that are not settings: where to work and how to speak.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The run directory
    #[arg(long, global = true, env = "LESS_SELECT_RUN", value_name = "DIR")]
    #[arg(default_value = "runs/default", hide_env = true)]
    pub(super) run: PathBuf,

    /// Settings from a TOML file, or a pipeline by name: default, llama2-7b
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_PIPELINE",
        value_name = "NAME|FILE",
        hide_env = true
    )]
    pub(super) pipeline: Option<String>,

    /// Write how it ended, and what came out, to a Prometheus textfile
    #[arg(long, global = true, env = "LESS_SELECT_METRICS", value_name = "FILE", hide_env = true)]
    pub(super) metrics: Option<PathBuf>,

    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Say nothing but warnings, errors and where the subset is; quote no rows
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
}

/// What to do of the stages, and when.
#[derive(Debug, Args)]
pub(super) struct Work {
    /// Run this stage even if nothing changed; repeatable
    #[arg(long, global = true, value_name = "STAGE", value_delimiter = ',')]
    force: Vec<Stage>,

    /// Train the warm-up anew, on the pool as it is now: `--force warmup`
    #[arg(long, global = true)]
    rewarm: bool,

    /// Say what would be done, and why; do nothing
    #[arg(long, global = true)]
    pub(super) dry_run: bool,

    /// Wait while another process works on the run, at most so many seconds
    #[arg(long, global = true, value_name = "SECONDS", num_args = 0..=1)]
    #[arg(default_missing_value = "31536000")]
    pub(super) wait: Option<u64>,
}

/// The stages, and what looks at them.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read pool and target into canonical tables
    Ingest,
    /// Train the LoRA warm-up
    Warmup,
    /// Go over the pool by one forward pass (for `--cascade`, `--method rds` or `perplexity`)
    #[command(alias = "cascade")]
    FirstPass,
    /// Compute and store projected per-example gradients
    Gradients {
        /// Only every N-th shard, starting with the I-th: `2/8`
        #[arg(long, value_name = "I/N")]
        shard: Option<Part>,
    },
    /// Prepare the target's gradients for scoring
    Index,
    /// Score every pool row against the target
    Score,
    /// Write the best rows within the budget as a dataset folder
    Select,
    /// Write report.html and report.json
    Report,
    /// Say why a row was selected or was not, and what it is like
    Explain(ExplainArgs),
    /// Train on the subset and on its rivals, and compare them on held-out examples
    Verify(VerifyArgs),
    /// Write the subsets of several budgets from the same scores
    Sweep {
        /// The budgets
        #[arg(long, value_name = "BUDGET", value_delimiter = ',', default_value = "1%,2%,5%,10%")]
        budgets: Vec<Budget>,
    },
    /// Say what a run would cost, before it
    Plan,
    /// Show which stages of a run are complete
    Status,
    /// Show what is in any file or folder a run wrote
    Inspect {
        /// The file or folder
        path: PathBuf,
    },
    /// Say how alike selections are: runs, subset folders or tables of scores
    Compare {
        /// Two or more of them
        #[arg(value_name = "RUN|SUBSET|SCORES", required = true, num_args = 2..)]
        sides: Vec<PathBuf>,

        /// Write the comparison with its plots as a page, too
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read all of a run and say what is not as it was written
    Fsck {
        /// Remove what is damaged, so that the next run makes that anew
        #[arg(long)]
        repair: bool,
    },
    /// Remove what no stage of a run needs
    Gc {
        /// Subsets other than the newest, too: nobody must be training on one
        #[arg(long)]
        subsets: bool,
    },
    /// Write the model with a checkpoint's adapter in its weights
    Merge {
        /// A checkpoint, such as `runs/default/checkpoints/epoch-4`
        checkpoint: PathBuf,
        /// The new model's folder
        out: PathBuf,
    },
    /// Print the resolved settings and where each came from
    Config,
    /// Check the machine, libtorch, the model and the data; measure gradients
    Doctor {
        /// Check only the checkpoints in this folder: what is there, and what would be used
        #[arg(long, value_name = "DIR")]
        checkpoint: Option<PathBuf>,

        /// Length of the rows whose gradients are timed
        #[arg(long, value_name = "N", default_value_t = 160)]
        #[arg(value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
        row_tokens: u32,
    },
}

impl Work {
    /// Stages to run whether they have to or not.
    pub(super) fn forced(&self) -> Vec<Stage> {
        let warmup = self.rewarm.then_some(Stage::Warmup);
        self.force.iter().copied().chain(warmup).collect()
    }
}

impl Cli {
    /// Reads the command line. `Err` carries clap's help or usage text.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.from_environment = settings_from_environment(&matches);
        Ok(cli)
    }

    /// What the environment and the flags say, as the two layers they are.
    pub(super) fn layers(&self) -> [Layer; 2] {
        let (environment, flags): (Map<_, _>, Map<_, _>) = layers::to_map(&self.settings)
            .into_iter()
            .partition(|(name, _)| self.from_environment.contains(name));
        let layer = |origin, map| Layer { origin, raw: layers::from_map(map) };
        [layer(Origin::Environment, environment), layer(Origin::Flag, flags)]
    }
}

/// The settings that nobody typed.
fn settings_from_environment(matches: &ArgMatches) -> Vec<String> {
    // Flags are known to the subcommand they were typed after.
    let matches = matches.subcommand().map_or(matches, |(_, inner)| inner);
    let ids = matches.ids().map(clap::Id::as_str);
    ids.filter(|id| matches.value_source(id) == Some(ValueSource::EnvVariable))
        .map(|id| id.replace('_', "-"))
        .collect()
}
