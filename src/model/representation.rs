//! An example as one vector: the mean of its last hidden states, later
//! positions weighing more.

use tch::{Kind, Tensor};

use super::{LoraDecoder, ModelError, dim, memory};
use crate::pool::Example;

impl LoraDecoder {
    /// `Σ_i (i / Σ_j j) · h_i` over the positions i of every example, f32
    /// `[hidden_size]` each; h is what the output layer reads.
    ///
    /// # Errors
    ///
    /// If the model fails.
    ///
    /// # Panics
    ///
    /// If a token is outside the vocabulary.
    pub fn represent(&self, examples: &[&Example]) -> Result<Vec<Vec<f32>>, ModelError> {
        memory::guarded(|| {
            tch::no_grad(|| {
                let (token_ids, weights) = self.inputs(examples);
                let lengths: Vec<_> = examples.iter().map(|row| row.token_ids.len()).collect();
                let hidden = self.decoder.hidden(&token_ids, &lengths, &self.adapter);
                let hidden = self.decoder.normed(&hidden).f_to_kind(Kind::Float)?;
                let means = weights.unsqueeze(1).f_matmul(&hidden)?.squeeze_dim(1);
                Ok(Vec::<Vec<f32>>::try_from(means.to_device(tch::Device::Cpu))?)
            })
        })
    }

    /// Token ids, i64 `[n, longest]`, padded on the right, and the weights of
    /// their positions, f32.
    fn inputs(&self, examples: &[&Example]) -> (Tensor, Tensor) {
        let longest = examples.iter().map(|row| row.token_ids.len()).max().unwrap_or(0);
        let mut token_ids = vec![0_i64; examples.len() * longest];
        let mut weights = vec![0.0_f32; examples.len() * longest];
        for (row, example) in examples.iter().enumerate() {
            let n = example.token_ids.len();
            let sum = (n * (n + 1) / 2) as f32;
            for (at, token_id) in example.token_ids.iter().enumerate() {
                token_ids[row * longest + at] = i64::from(*token_id);
                weights[row * longest + at] = (at + 1) as f32 / sum;
            }
        }
        let shape = [dim(examples.len()), dim(longest)];
        let token_ids = Tensor::from_slice(&token_ids).reshape(shape).to_device(self.device());
        (token_ids, Tensor::from_slice(&weights).reshape(shape).to_device(self.device()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::LoraSettings;
    use crate::compute::{ComputeSettings, Dtype};
    use crate::pool::ExampleId;

    fn example(token_ids: &[u32]) -> Example {
        let supervised = vec![false; token_ids.len()];
        let id = ExampleId::of(token_ids, &supervised);
        Example { id, token_ids: token_ids.to_vec(), supervised }
    }

    #[test]
    fn an_example_is_the_weighted_mean_of_its_own_positions() {
        let dir =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let targets = vec!["q_proj".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.0, targets };
        let threads = Some(std::num::NonZeroUsize::MIN);
        let compute = ComputeSettings { threads, ..ComputeSettings::cpu(Dtype::F32) };
        let model = LoraDecoder::load(&dir, &lora, &compute).unwrap();
        let examples = [example(&[5, 6, 7]), example(&[8, 9, 10, 11, 12]), example(&[3])];
        let found = model.represent(&examples.each_ref()).unwrap();
        for (example, found) in examples.iter().zip(found) {
            // Position by position, each from a prefix of its own.
            let n = example.token_ids.len();
            let mut expected = vec![0.0; model.config().hidden_size];
            for last in 0..n {
                let prefix: Vec<i64> =
                    example.token_ids[..=last].iter().map(|&token_id| token_id.into()).collect();
                let prefix = Tensor::from_slice(&prefix).unsqueeze(0);
                let hidden =
                    model.decoder.normed(&model.decoder.hidden(&prefix, &[n], &model.adapter));
                let state = Vec::<f32>::try_from(hidden.select(1, -1).flatten(0, -1)).unwrap();
                let weight = (last + 1) as f32 / (1..=n).sum::<usize>() as f32;
                expected.iter_mut().zip(state).for_each(|(sum, x)| *sum += weight * x);
            }
            for (found, expected) in found.iter().zip(&expected) {
                approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-5);
            }
        }
    }
}
