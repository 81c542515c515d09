//! Per-example LoRA gradients, a whole batch in one backward pass.

use tch::{Kind, Tensor};

use super::layout::ParamLayout;
use super::{ExampleLoss, PerExampleGradients};
use crate::model::batch::Batch;
use crate::model::{LoraDecoder, ModelError, dim, flat};
use crate::pool::Example;

/// Gives every example LoRA leaves of its own, so that the gradient of the sum
/// of the batch's losses by them *is* the gradient of each loss.
impl PerExampleGradients for LoraDecoder {
    type Error = ModelError;

    fn layout(&self) -> &ParamLayout {
        self.layout()
    }

    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, ModelError> {
        let batch = Batch::new(batch, self.config().vocab_size, self.device())?;
        let n_examples = dim(batch.n_supervised.len());
        let own_leaf = |shared: &Tensor| {
            let shape = [&[n_examples][..], &shared.size()].concat();
            shared.to_kind(self.kind()).expand(shape, false).detach().set_requires_grad(true)
        };
        let lora = self.leaves(self.adapter.iter().map(own_leaf).collect(), 0.0);
        let token_losses = self.decoder.token_losses(&batch, &lora);
        let total = (&token_losses * weights(&batch).to_device(self.device())).sum(Kind::Float);
        let gradients = Tensor::f_run_backward(&[total], &lora.leaves, false, false)?;
        let mut rows = Vec::new();
        for (param, gradient) in gradients.into_iter().enumerate() {
            let gradient = gradient.to_kind(Kind::Float);
            rows.resize(gradient.numel(), 0.0);
            gradient.f_copy_data(&mut rows, gradient.numel())?;
            sink(param, &rows);
        }
        Ok(losses(&batch, token_losses))
    }
}

/// One over the number of supervised tokens of each token's example.
fn weights(batch: &Batch) -> Tensor {
    let weights: Vec<f32> =
        batch.n_supervised.iter().flat_map(|&n| std::iter::repeat_n(1.0 / n as f32, n)).collect();
    Tensor::from_slice(&weights)
}

fn losses(batch: &Batch, token_losses: Tensor) -> Vec<ExampleLoss> {
    let losses = batch.sums(&flat(&[token_losses])).into_iter().zip(&batch.n_supervised);
    losses
        .map(|(sum, &n)| ExampleLoss {
            loss: (sum / n.max(1) as f64) as f32,
            n_supervised: n as u32,
        })
        .collect()
}
