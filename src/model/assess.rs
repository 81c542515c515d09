//! How well the model knows the supervised part of an example.

use tch::{Reduction, Tensor};

use super::batch::Batch;
use super::{LoraDecoder, ModelError, dim, memory};
use crate::pool::Example;

/// Logits in memory at once, 256 MB of f32: all of a batch for a CUDA device would be
/// gigabytes.
const LOGITS: i64 = 1 << 26;

/// What one forward pass tells of an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment {
    /// Mean cross-entropy of its supervised tokens, in nats; NaN or infinite where the
    /// model's numbers are.
    pub loss: f32,
    /// Whether each of them is the one that the model would have said: then greedy
    /// decoding writes exactly this, to its end.
    pub is_exact: bool,
}

impl LoraDecoder {
    /// Assesses every example of a batch with the adapter as it stands, without
    /// dropout.
    ///
    /// # Errors
    ///
    /// If the model fails, or an example does not fit it.
    pub fn assess(&self, examples: &[&Example]) -> Result<Vec<Assessment>, ModelError> {
        let batch = Batch::new(examples, self.config(), self.device())?;
        let found = memory::guarded(|| tch::no_grad(|| self.token_outcomes(&batch)))?;
        let [sums, misses] = found.map(|values| batch.sums(&values));
        let assessment = |((sum, n_missed), n): ((f64, f64), &usize)| Assessment {
            loss: (sum / *n as f64) as f32,
            is_exact: n_missed < 0.5,
        };
        Ok(sums.into_iter().zip(misses).zip(&batch.n_supervised).map(assessment).collect())
    }

    /// Of every supervised token its loss, and one where another was likelier.
    fn token_outcomes(&self, batch: &Batch) -> Result<[Vec<f32>; 2], ModelError> {
        let hidden = self.decoder.hidden(&batch.token_ids, &batch.lengths, &self.adapter);
        let hidden = hidden.flatten(0, 1).f_index_select(0, &batch.positions)?;
        let n_labels = hidden.size()[0];
        let n_at_once = (LOGITS / dim(self.config().vocab_size)).max(1);
        let (mut losses, mut misses) = (Vec::new(), Vec::new());
        let mut start = 0;
        while start < n_labels {
            let n_own = n_at_once.min(n_labels - start);
            let targets = &batch.targets.narrow(0, start, n_own);
            let logits = self.decoder.logits(&hidden.narrow(0, start, n_own));
            losses.push(logits.f_cross_entropy_loss::<Tensor>(
                targets,
                None,
                Reduction::None,
                -100,
                0.0,
            )?);
            let is_other = logits.f_argmax(-1, false)?.f_not_equal_tensor(targets)?;
            misses.push(is_other.f_to_kind(tch::Kind::Float)?);
            start += n_own;
        }
        Ok([super::flat(&losses), super::flat(&misses)])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::LoraSettings;
    use crate::compute::{ComputeSettings, Dtype};
    use crate::pool::ExampleId;

    fn model() -> LoraDecoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let targets = vec!["q_proj".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.5, targets };
        let threads = Some(std::num::NonZeroUsize::MIN);
        let compute = ComputeSettings { threads, ..ComputeSettings::cpu(Dtype::F32) };
        LoraDecoder::load(&dir, &lora, &compute).unwrap()
    }

    fn example(token_ids: Vec<u32>, n_prompt: usize) -> Example {
        let supervised: Vec<bool> = (0..token_ids.len()).map(|at| at >= n_prompt).collect();
        Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
    }

    fn likeliest(logits: &[f32]) -> u32 {
        (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
    }

    #[test]
    fn an_answer_is_exact_where_greedy_decoding_writes_it() {
        let model = model();
        let mut greedy = vec![5, 6, 7];
        for _ in 0..4 {
            greedy.push(likeliest(model.logits(&greedy).last().unwrap()));
        }
        let mut other = greedy.clone();
        *other.last_mut().unwrap() ^= 1;
        let examples = [example(greedy, 3), example(other, 3), example(vec![9, 8], 1)];
        let found = model.assess(&examples.each_ref()).unwrap();
        assert_eq!([found[0].is_exact, found[1].is_exact], [true, false]);
        for (example, found) in examples.iter().zip(&found) {
            let logits = model.logits(&example.token_ids);
            let loss = |at: usize| {
                let before = &logits[at - 1];
                let sum: f64 = before.iter().map(|logit| f64::from(*logit).exp()).sum();
                sum.ln() - f64::from(before[example.token_ids[at] as usize])
            };
            let at = (0..example.token_ids.len()).filter(|at| example.supervised[*at]);
            let losses: Vec<f64> = at.map(loss).collect();
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            approx::assert_abs_diff_eq!(f64::from(found.loss), mean, epsilon = 1e-5);
        }
    }
}
