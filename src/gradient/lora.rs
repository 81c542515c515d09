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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use super::*;
    use crate::checkpoint::LoraSettings;
    use crate::compute::{ComputeSettings, Device, Dtype};
    use crate::pool::ExampleId;

    fn example(token_ids: &[u32], supervised: &[bool]) -> Example {
        let id = ExampleId::of(token_ids, supervised);
        Example { id, token_ids: token_ids.to_vec(), supervised: supervised.to_vec() }
    }

    /// The tiny Llama, its adapter small and nowhere zero.
    fn model() -> LoraDecoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let targets = vec!["v_proj".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.5, targets };
        let threads = Some(NonZeroUsize::MIN);
        let compute =
            ComputeSettings { device: Device::Cpu, dtype: Dtype::F32, threads, batch_tokens: 1 };
        let mut model = LoraDecoder::load(&dir, &lora, &compute).unwrap();
        let n = model.layout().grad_dim();
        model.set_adapter(&(0..n).map(|at| 0.01 * (1 + at % 7) as f32).collect::<Vec<_>>());
        model
    }

    /// Losses, and the sum of squares of each row's gradient.
    fn backward(model: &mut LoraDecoder, batch: &[&Example]) -> (Vec<ExampleLoss>, Vec<f32>) {
        let mut squares = vec![0.0; batch.len()];
        let losses = model.backward(batch, &mut |_, rows| {
            for (sum, row) in squares.iter_mut().zip(rows.chunks(rows.len() / batch.len())) {
                *sum += row.iter().map(|value| value * value).sum::<f32>();
            }
        });
        (losses.unwrap(), squares)
    }

    #[test]
    fn a_row_without_labels_has_no_gradient_and_disturbs_no_other() {
        let mut model = model();
        let silent = example(&[5, 6, 7], &[false; 3]);
        let other = example(&[8, 9, 10, 11], &[false, false, true, true]);
        let nothing = ExampleLoss { loss: 0.0, n_supervised: 0 };
        assert_eq!(backward(&mut model, &[&silent]), (vec![nothing], vec![0.0]));
        let (losses, squares) = backward(&mut model, &[&silent, &other]);
        assert_eq!((losses[0], squares[0].to_bits()), (nothing, 0));
        let (alone, square) = backward(&mut model, &[&other]);
        approx::assert_relative_eq!(losses[1].loss, alone[0].loss, max_relative = 1e-6);
        approx::assert_relative_eq!(squares[1], square[0], max_relative = 1e-5);
        assert!(squares[1] > 0.0);
    }

    #[test]
    fn gradients_know_no_dropout() {
        let mut model = model();
        let row = example(&[8, 9, 10, 11], &[false, false, true, true]);
        assert_eq!(backward(&mut model, &[&row]), backward(&mut model, &[&row]));
    }
}
