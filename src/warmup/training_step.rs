//! One optimizer step: forward and backward over its rows, then AdamW.

use tch::Tensor;

use super::WarmupSettings;
use super::adamw::{AdamW, clip};
use super::train::WarmupError;
use crate::gradient::direction::Moments;
use crate::gradient::shard_plan::plan_batches;
use crate::model::batch::Batch;
use crate::model::lora::LoraLeaves;
use crate::model::{LoraDecoder, flat};
use crate::pool::{Example, ExampleId};
use crate::seed::Seed;

/// A model in training.
pub(super) struct Trainer<'a> {
    model: &'a LoraDecoder,
    settings: &'a WarmupSettings,
    seed: Seed,
    /// The adapter's weights, moved in place.
    lora: LoraLeaves,
    pub(super) optimizer: AdamW,
}

/// What a step found.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepOutcome {
    /// Mean cross-entropy of the step's supervised tokens.
    pub(super) loss: f64,
    /// L2 norm of the gradient before clipping.
    pub(super) gradient_norm: f64,
}

impl<'a> Trainer<'a> {
    /// Trains `model`'s adapter from where it stands.
    pub(super) fn new(model: &'a LoraDecoder, settings: &'a WarmupSettings, seed: Seed) -> Self {
        let lora = model.trainable();
        let optimizer = AdamW::new(&lora.leaves, settings.weight_decay);
        Self { model, settings, seed, lora, optimizer }
    }

    /// One step on `rows` with the learning rate `rate`.
    pub(super) fn step(
        &mut self,
        rows: &[&Example],
        rate: f64,
    ) -> Result<StepOutcome, WarmupError> {
        let number = self.optimizer.rule.step + 1;
        let (loss, mut gradients) = self.gradients(rows, number)?;
        let gradient_norm = clip(&mut gradients, self.settings.max_grad_norm);
        if !gradient_norm.is_finite() {
            let rows = rows.iter().map(|row| row.id).collect();
            return Err(WarmupError::NotFinite { what: "gradient", step: number, rows });
        }
        self.optimizer.step(&mut self.lora.leaves, &gradients, rate);
        Ok(StepOutcome { loss, gradient_norm })
    }

    /// The adapter's weights, `[grad_dim]`.
    pub(super) fn adapter(&self) -> Vec<f32> {
        flat(&self.lora.leaves)
    }

    /// Goes on with the optimizer of an earlier training.
    pub(super) fn take_up(&mut self, moments: &Moments) {
        self.optimizer.rule = moments.rule;
        self.optimizer.exp_avg = self.model.tensors(&moments.exp_avg);
        self.optimizer.exp_avg_sq = self.model.tensors(&moments.exp_avg_sq);
    }

    /// The optimizer's moments.
    pub(super) fn moments(&self) -> Moments {
        let AdamW { rule, exp_avg, exp_avg_sq, .. } = &self.optimizer;
        Moments { rule: *rule, exp_avg: flat(exp_avg), exp_avg_sq: flat(exp_avg_sq) }
    }

    /// The loss of `rows`, and its gradient by every parameter.
    fn gradients(&self, rows: &[&Example], step: u64) -> Result<(f64, Vec<Tensor>), WarmupError> {
        let n_supervised: usize = rows.iter().map(|row| row.n_supervised()).sum();
        let lengths: Vec<u32> = rows.iter().map(|row| row.token_ids.len() as u32).collect();
        let mut gradients: Vec<Tensor> = self.lora.leaves.iter().map(Tensor::zeros_like).collect();
        let mut loss = 0.0;
        for (number, positions) in
            plan_batches(&lengths, self.model.batch_tokens).into_iter().enumerate()
        {
            let rows: Vec<&Example> = positions.iter().map(|&position| rows[position]).collect();
            // So that a training can be taken up where it stopped.
            let place = format!("step {step}, batch {number}");
            let part = self.add_gradients(&rows, n_supervised, &place, &mut gradients)?;
            let bad = rows.iter().zip(&part).filter(|(_, loss)| !loss.is_finite());
            let bad: Vec<ExampleId> = bad.map(|(row, _)| row.id).collect();
            if !bad.is_empty() {
                return Err(WarmupError::NotFinite { what: "loss", step, rows: bad });
            }
            loss += part.iter().sum::<f64>() / n_supervised as f64;
        }
        Ok((loss, gradients))
    }

    /// Adds the gradient of the part of the loss that `rows` make up; returns
    /// the sum of each row's token losses. `place` says which masks dropout has.
    fn add_gradients(
        &self,
        rows: &[&Example],
        n_supervised: usize,
        place: &str,
        gradients: &mut [Tensor],
    ) -> Result<Vec<f64>, WarmupError> {
        let model = self.model;
        let batch = Batch::new(rows, model.config(), model.device())?;
        let weight = 1.0 / n_supervised as f64;
        let mut add = |param: usize, part: Tensor| {
            gradients[param] += part.squeeze_dim(0);
            Ok(())
        };
        let (seed, place) = (self.seed, place.to_owned());
        let masks_of = move |layer: usize| {
            seed.stream(&["warmup", "dropout", &place, &format!("layer {layer}")])
        };
        Ok(model.training_gradients(&batch, &self.lora, weight, &masks_of, &mut add)?)
    }
}
