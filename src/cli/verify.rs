//! `less-select verify`: what to train on and to evaluate with.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::exit::CliError;
use super::{Answer, Context};
use crate::method::Method;
use crate::pipeline::contenders::{Rival, TrainingLength};
use crate::pipeline::verify::{RANDOM, Verification};
use crate::pool::Source;
use crate::run_dir::RunDir;
use crate::verify::text;

/// What is verified, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct VerifyArgs {
    /// Other rows to train on: files, a folder, or another run, whose newest subset it
    /// then is
    #[arg(value_name = "[NAME=]PATH")]
    others: Vec<String>,

    /// Held-out examples in the shapes of a target; repeatable
    #[arg(long, value_name = "[NAME=]PATH", required_unless_present = "halves")]
    eval: Vec<String>,

    /// Instead: train on so many random halves of the pool, and say how well the scores
    /// foretell the target's losses (a linear datamodeling score)
    #[arg(long, value_name = "N", conflicts_with_all = ["eval", "others", "against", "reference", "seeds", "tokens"])]
    #[arg(value_parser = clap::value_parser!(u32).range(3..))]
    halves: Option<u32>,

    /// Rivals: random (rows of the pool, drawn anew by each seed), full (all of it), base
    /// (the model as it comes), and what `--method` would select, of the methods that ask
    /// no model: bm25, ngram, length, random-balanced
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "random,base")]
    against: Vec<Baseline>,

    /// Compare the others with this one [default: random, where it is among them]; the
    /// run's own rows are called `subset`
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,

    /// Trainings of each contender; what was trained earlier counts, too
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,

    /// Passes over the run's subset; everybody trains on as many tokens
    #[arg(long, value_name = "N", default_value_t = 4.0, value_parser = above_zero)]
    passes: f64,

    /// So many passes of each over its own rows instead
    #[arg(long, conflicts_with = "tokens")]
    equal_passes: bool,

    /// So many tokens instead
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    tokens: Option<u64>,

    /// Peak learning rate of these trainings
    #[arg(long, value_name = "RATE", default_value_t = 2e-4, value_parser = above_zero)]
    training_rate: f64,

    /// Let every model answer, too, at most so many tokens, and tell the F1 of its words
    #[arg(long, value_name = "TOKENS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    answers: Option<u32>,

    /// Most examples of each evaluation
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    eval_rows: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Baseline {
    Random,
    Full,
    Base,
    Bm25,
    Ngram,
    Length,
    RandomBalanced,
}

impl Baseline {
    fn rival(self) -> Rival {
        match self {
            Self::Random => Rival::Random,
            Self::Full => Rival::Full,
            Self::Base => Rival::Base,
            Self::Bm25 => Rival::Method(Method::Bm25),
            Self::Ngram => Rival::Method(Method::Ngram),
            Self::Length => Rival::Method(Method::Length),
            Self::RandomBalanced => Rival::Method(Method::RandomBalanced),
        }
    }

    fn name(self) -> &'static str {
        match self.rival() {
            Rival::Method(method) => method.name(),
            Rival::Full => "full",
            Rival::Base => "base",
            Rival::Random | Rival::Rows(_) => RANDOM,
        }
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "not a number above zero".to_owned())
}

/// Trains on the run's subset and its rivals, and tells how they did.
pub(super) fn verify(context: &Context<'_>, args: &VerifyArgs) -> Result<Answer, CliError> {
    if let Some(n_halves) = args.halves {
        return datamodeling_score(context, n_halves, args);
    }
    let parse = |text: &String| text.parse::<Source>().unwrap_or_else(|never| match never {});
    let baselines =
        args.against.iter().map(|baseline| (baseline.name().to_owned(), baseline.rival()));
    let mut rivals: Vec<(String, Rival)> = baselines.collect();
    for text in &args.others {
        rivals.push(other(parse(text))?);
    }
    let wanted = Verification {
        rivals,
        eval: args.eval.iter().map(parse).collect(),
        n_eval_rows: args.eval_rows as usize,
        n_seeds: args.seeds,
        training: match args.tokens {
            Some(n) => TrainingLength::Tokens(n),
            None if args.equal_passes => TrainingLength::Passes(args.passes),
            None => TrainingLength::LikePasses(args.passes),
        },
        learning_rate: args.training_rate,
        answer_tokens: args.answers.map(|n| n as usize),
        reference: args.reference.clone(),
    };
    let found = context.pipeline().verify(&wanted)?;
    Ok(Answer::done(text(&found), json!(found)))
}

fn datamodeling_score(
    context: &Context<'_>,
    n_halves: u32,
    args: &VerifyArgs,
) -> Result<Answer, CliError> {
    let run = context.pipeline();
    let found = run.datamodeling_score(n_halves, args.passes, args.training_rate)?;
    let text = match &found {
        Some(found) => format!(
            "linear datamodeling score {:+.3} ± {:.3}: {} halves of the pool, {} target examples\n\
             1 is a perfect forecast, 0 none; ± is half of a 95 % interval over the target examples\n",
            found.score.mean, found.score.half_width, found.n_halves, found.n_targets
        ),
        None => "no target example's loss varies: nothing can be said\n".to_owned(),
    };
    Ok(Answer::done(text, json!(found)))
}

/// A contender named by a path: itself, or the newest subset of a run.
fn other(source: Source) -> Result<(String, Rival), CliError> {
    let path = Path::new(&source.path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = source.name.clone().unwrap_or_else(|| stem.into_owned());
    let run = RunDir::new(path);
    let path = if run.manifest().is_file() {
        run.latest_subset()?.display().to_string()
    } else {
        source.path
    };
    // Named, so that all files of a folder are one source.
    Ok((name.clone(), Rival::Rows(Source { name: Some(name), path })))
}
