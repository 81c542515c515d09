//! The command line: the only place that prints and chooses exit codes.

mod args;
mod compare;
mod doctor;
mod exit;
mod exit_code;
mod explain;
mod fsck;
mod gc;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
mod interrupt;
mod merge;
mod metrics;
mod plan;
mod progress;
mod settings;
mod status;
mod sweep;
mod verify;
#[cfg(feature = "torch")]
pub mod worker;

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};

use args::{Cli, Command};
use exit::CliError;
use exit_code::ExitCode;

use crate::config::Config;
use crate::pipeline::Run;
use crate::pipeline::gc::Wanted;
use crate::progress::Observer;
use crate::run_dir::RunDir;
use crate::stage::Stage;

/// What a command has to say: the same for people and for programs.
struct Answer {
    text: String,
    json: serde_json::Value,
    exit_code: ExitCode,
}

impl Answer {
    fn done(text: String, json: serde_json::Value) -> Self {
        Self { text, json, exit_code: ExitCode::Done }
    }
}

/// The settings and the place a command works with.
struct Context<'a> {
    config: Config,
    run: RunDir,
    observer: &'a dyn Observer,
    quiet: bool,
    force: Vec<Stage>,
    /// How long to wait for another process to let go of the run.
    wait: Duration,
}

/// Runs the program and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    exit::listen_to_panics();
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(usage) => return exit::usage(&usage),
    };
    interrupt::listen();
    let begin = Instant::now();
    exit::guarded(|| {
        let answer = answer(&cli);
        let exit_code = match &answer {
            Ok(answer) => answer.exit_code as u8,
            Err(err) => err.exit_code(),
        };
        write_metrics(&cli, exit_code, begin.elapsed());
        match answer {
            Ok(answer) => print(&cli, &answer),
            Err(err) => exit::failure(&err, cli.place.json),
        }
    })
}

/// Writes the metrics of a command that works on stages, if they are wanted.
fn write_metrics(cli: &Cli, exit_code: u8, duration: Duration) {
    let works = cli.command.as_ref().is_none_or(|command| stage_of(command).is_some());
    let Some(path) = cli.place.metrics.as_ref().filter(|_| works && !cli.work.dry_run) else {
        return;
    };
    let run = RunDir::new(&cli.place.run);
    if let Err(err) = metrics::write(path, &run, exit_code, duration.as_secs_f64()) {
        // No reason to call the run itself failed.
        exit::warn(&err.to_string());
    }
}

/// Does what was asked.
fn answer(cli: &Cli) -> Result<Answer, CliError> {
    let teller = progress::Teller::new(cli.place.quiet);
    if let Some(Command::Inspect { path }) = &cli.command {
        return inspect::inspect(path);
    }
    if let Some(Command::Compare { sides, out }) = &cli.command {
        return compare::compare(sides, out.as_deref());
    }
    let run = RunDir::new(&cli.place.run);
    let wait = Duration::from_secs(cli.work.wait.unwrap_or(0));
    // Neither asks for settings; they may be what is damaged.
    match cli.command {
        Some(Command::Fsck { repair }) => {
            return fsck::fsck(&run, repair && !cli.work.dry_run, wait, &teller);
        }
        Some(Command::Gc { subsets }) => {
            let wanted = Wanted { subsets, dry_run: cli.work.dry_run };
            return gc::gc(&run, wanted, wait, &teller);
        }
        _ => {}
    }
    let context = Context {
        config: settings::resolve(cli, &teller)?,
        run,
        observer: &teller,
        quiet: cli.place.quiet,
        force: cli.work.forced(),
        wait,
    };
    if cli.work.dry_run {
        return plan::dry_run(&context, cli.command.as_ref().and_then(stage_of));
    }
    match &cli.command {
        Some(Command::Config) => Ok(settings::show(&context.config)),
        Some(Command::Plan) => plan::plan(&context),
        Some(Command::Status) => status::status(&context),
        Some(Command::Doctor { checkpoint: Some(dir), .. }) => {
            Ok(doctor::doctor_of_checkpoints(&context, dir))
        }
        Some(Command::Doctor { row_tokens, .. }) => Ok(doctor::doctor(&context, *row_tokens)),
        Some(Command::Merge { checkpoint, out }) => {
            merge::merge(&context.config.model, checkpoint, out)
        }
        Some(Command::Explain(args)) => explain::explain(&context, args),
        Some(Command::Verify(args)) => {
            context.own_the_cores();
            verify::verify(&context, args)
        }
        Some(Command::Sweep { budgets }) => {
            context.own_the_cores();
            sweep::sweep(&context, budgets)
        }
        Some(
            Command::Inspect { .. }
            | Command::Compare { .. }
            | Command::Fsck { .. }
            | Command::Gc { .. },
        ) => {
            unreachable!("answered above")
        }
        None => {
            context.own_the_cores();
            context.pipeline().all()?;
            status::result(&context)
        }
        Some(Command::Gradients { shard: Some(_) }) if !context.force.is_empty() => {
            Err(CliError::ForcedShard)
        }
        Some(Command::Gradients { shard: Some(part) }) => {
            context.own_the_cores();
            context.pipeline().shards(*part)?;
            status::status(&context)
        }
        Some(command) => {
            context.own_the_cores();
            let stage = stage_of(command).expect("the others are answered above");
            context.pipeline().one(stage)?;
            if stage == Stage::Report { status::result(&context) } else { status::status(&context) }
        }
    }
}

/// The stage a command runs alone, if it is one of those.
fn stage_of(command: &Command) -> Option<Stage> {
    match command {
        Command::Ingest => Some(Stage::Ingest),
        Command::Warmup => Some(Stage::Warmup),
        Command::FirstPass => Some(Stage::FirstPass),
        Command::Gradients { .. } => Some(Stage::Gradients),
        Command::Index => Some(Stage::Index),
        Command::Score => Some(Stage::Score),
        Command::Select => Some(Stage::Select),
        Command::Report => Some(Stage::Report),
        Command::Plan
        | Command::Status
        | Command::Inspect { .. }
        | Command::Compare { .. }
        | Command::Fsck { .. }
        | Command::Gc { .. }
        | Command::Config
        | Command::Sweep { .. }
        | Command::Doctor { .. }
        | Command::Merge { .. }
        | Command::Explain(_)
        | Command::Verify(_) => None,
    }
}

impl Context<'_> {
    fn pipeline(&self) -> Run<'_> {
        Run {
            config: &self.config,
            dir: &self.run,
            observer: self.observer,
            force: &self.force,
            wait: self.wait,
        }
    }

    /// Sizes the one thread pool of this process.
    fn own_the_cores(&self) {
        let threads = self.config.compute.threads.map_or(0, std::num::NonZero::get);
        // Fails only if the pool exists, and then it was sized by us.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
}

/// Prints the answer; a reader that went away is no failure.
fn print(cli: &Cli, answer: &Answer) -> std::process::ExitCode {
    let text = if cli.place.json { format!("{:#}\n", answer.json) } else { answer.text.clone() };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => {
            exit::failure(&CliError::Io(err), cli.place.json)
        }
        _ => (answer.exit_code as u8).into(),
    }
}

/// A length of time, about as precise as an estimate is.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
