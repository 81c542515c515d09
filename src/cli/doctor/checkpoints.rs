//! `less-select doctor --checkpoint DIR`: what a folder of checkpoints holds,
//! and what a run would use of it.

use std::path::Path;

use super::{Answer, Context, Finding, answer};
use crate::checkpoint::{Checkpoint, CheckpointError, OptimizerState, checkpoints_in};
use crate::cli::exit::{CliError, with_causes};
use crate::gradient::layout::ParamLayout;
use crate::model::{DecoderConfig, base_weights};
use crate::pipeline::PipelineError;

/// Checks the checkpoints in `dir` against the model and the kinds of gradient
/// of the settings.
pub(in crate::cli) fn doctor_of_checkpoints(context: &Context<'_>, dir: &Path) -> Answer {
    let model = DecoderConfig::read(&context.config.model).map_err(|err| with_causes(&err));
    let found = checkpoints_in(dir).map_err(|err| with_hint(err.into()));
    let (model, checkpoints) = match (model, found) {
        (Ok(model), Ok(checkpoints)) => (model, checkpoints),
        (model, found) => {
            let model = model.map(|_| format!("`{}`", context.config.model.display()));
            let found = found.map(|found| format!("{} in `{}`", found.len(), dir.display()));
            let findings = [Finding::new("model", model), Finding::new("checkpoints", found)];
            return answer(&findings);
        }
    };
    let rates: f64 = checkpoints.iter().map(Checkpoint::learning_rate).sum();
    let findings: Vec<Finding> = checkpoints
        .iter()
        .flat_map(|checkpoint| {
            let share = checkpoint.learning_rate() / rates;
            Own { context, model: &model, checkpoint, share }.findings()
        })
        .collect();
    answer(&findings)
}

/// A checkpoint under examination.
struct Own<'a> {
    context: &'a Context<'a>,
    model: &'a DecoderConfig,
    checkpoint: &'a Checkpoint,
    /// Its weight in the score.
    share: f64,
}

impl Own<'_> {
    fn findings(&self) -> Vec<Finding> {
        let (adapter, log) = (Some(self.adapter()), Some(self.log()));
        let found = [adapter, self.base_model(), self.base_weights(), self.optimizer(), log];
        found.into_iter().flatten().collect()
    }

    fn subject(&self, what: &str) -> String {
        format!("{} {what}", self.checkpoint.label())
    }

    fn layout(&self) -> Result<ParamLayout, String> {
        self.model.lora_layout(self.checkpoint.lora()).map_err(|err| with_causes(&err))
    }

    fn adapter(&self) -> Finding {
        let look = || {
            let layout = self.layout()?;
            let adapter = self.checkpoint.adapter(&layout);
            adapter.and_then(|_| self.checkpoint.n_params(&layout)).map_err(|err| with_causes(&err))
        };
        let result = look().map(|n_params| self.shape(n_params));
        Finding::new(self.subject("adapter"), result)
    }

    /// The adapter in words.
    fn shape(&self, n_params: usize) -> String {
        let lora = self.checkpoint.lora();
        let scale = lora.alpha / lora.rank as f64;
        let rule = if self.checkpoint.is_rank_stabilized() { "√rank" } else { "rank" };
        format!(
            "{}: rank {}, scale {scale:.4} (alpha / {rule}), {n_params} parameters on {}",
            name(&self.checkpoint.adapter_file()),
            lora.rank,
            lora.targets.join(", "),
        )
    }

    /// What it says it was trained on need not be where gradients are taken.
    fn base_model(&self) -> Option<Finding> {
        let (ours, subject) = (&self.context.config.model, self.subject("base model"));
        let told = match self.checkpoint.base_model() {
            Some(base) if Path::new(base).file_name() == ours.file_name() => return None,
            Some(base) => format!("says it was trained on `{base}`"),
            None => "does not say what it was trained on".to_owned(),
        };
        Some(Finding::note(subject, format!("{told}; --model is `{}`", ours.display())))
    }

    fn base_weights(&self) -> Option<Finding> {
        let names = self.checkpoint.base_weights().unwrap_or_default();
        let same = base_weights::check(&self.context.config.model, self.model, self.checkpoint)
            .map_err(PipelineError::from)
            .map(|()| {
                format!("{} were saved along; gradients are taken with them", names.join(", "))
            })
            .map_err(with_hint);
        (!names.is_empty()).then(|| Finding::new(self.subject("base weights"), same))
    }

    /// Its absence is a failure only where a kind of gradient needs it.
    fn optimizer(&self) -> Option<Finding> {
        let subject = self.subject("optimizer");
        let state = self.layout().ok().map(|layout| self.checkpoint.optimizer(&layout))?;
        let is_needed = self.context.config.gradients.iter().any(|kind| kind.needs_moments());
        Some(match state {
            Ok(state) => Finding::new(subject, Ok(told(&state))),
            Err(err) if is_needed => Finding::new(subject, Err(with_causes(&err))),
            Err(err) => Finding::note(subject, unused(&err)),
        })
    }

    fn log(&self) -> Finding {
        let (subject, share) = (self.subject("log"), 100.0 * self.share);
        let step = self.checkpoint.step();
        let Some(rate) = self.checkpoint.logged_learning_rate() else {
            let why = "no learning rate in trainer_state.json: it counts like the others";
            return Finding::note(subject, format!("{why}, {share:.0} % of the score"));
        };
        if self.share.is_nan() {
            return Finding::new(subject, Err("the rates of all checkpoints are zero".to_owned()));
        }
        let words = format!("step {step}, learning rate {rate:.3e}: {share:.0} % of the score");
        Finding::new(subject, Ok(words))
    }
}

fn with_hint(err: PipelineError) -> String {
    CliError::from(err).with_hint()
}

fn told(state: &OptimizerState) -> String {
    let rule = state.moments.rule;
    format!(
        "{}: {}, moments of {} parameters, step {}, betas {} and {}, epsilon {:e}",
        name(&state.file),
        state.kind,
        state.n_params,
        rule.step,
        rule.beta1,
        rule.beta2,
        rule.epsilon,
    )
}

fn unused(err: &CheckpointError) -> String {
    format!("not used by plain gradients: {}", with_causes(err))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
