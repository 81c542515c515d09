//! Examples side by side: what one forward pass takes in.

use tch::{Device, Tensor};

use super::{DecoderConfig, ModelError, dim};
use crate::pool::Example;

/// Examples padded on the right to one length, on the model's device.
///
/// Under causal attention no token sees the padding behind it, so there is no
/// mask. Tokens from an example's last supervised one on are left out: they
/// predict nothing that carries loss.
pub(crate) struct Batch {
    /// Token ids, i64 `[n_examples, n_inputs]`.
    pub(crate) token_ids: Tensor,
    /// Which of the `n_examples · n_inputs` positions predict a supervised
    /// token, i64 `[n_supervised]`, example after example.
    pub(crate) positions: Tensor,
    /// The same positions, each within its example: i64 `[n_examples,
    /// n_sites]`, `n_sites` the most that an example has, at least one; an
    /// example with fewer is filled up with its first position.
    pub(crate) sites: Tensor,
    /// Which of the `n_examples · n_sites` sites those are, i64 `[n_supervised]`.
    pub(crate) labels: Tensor,
    /// The tokens they should predict, i64 `[n_supervised]`.
    pub(crate) targets: Tensor,
    /// Supervised tokens of each example.
    pub(crate) n_supervised: Vec<usize>,
    /// Tokens of each example, those left out included.
    pub(crate) lengths: Vec<usize>,
}

impl Batch {
    /// Pads `examples` for a model.
    ///
    /// # Errors
    ///
    /// If a token is not in the vocabulary, or an example longer than the model has
    /// positions.
    pub(crate) fn new(
        examples: &[&Example],
        config: &DecoderConfig,
        device: Device,
    ) -> Result<Self, ModelError> {
        let n_inputs = examples.iter().map(|example| n_inputs(example)).max().unwrap_or(1);
        let mut token_ids = vec![0_i64; examples.len() * n_inputs];
        let n_supervised: Vec<usize> = examples.iter().map(|row| row.n_supervised()).collect();
        let n_sites = n_supervised.iter().copied().max().unwrap_or(0).max(1);
        let mut sites = vec![0_i64; examples.len() * n_sites];
        let (mut positions, mut labels, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, example) in examples.iter().enumerate() {
            check(example, config)?;
            let start = row * n_inputs;
            for (input, &token_id) in
                token_ids[start..].iter_mut().zip(&example.token_ids).take(n_inputs)
            {
                *input = i64::from(token_id);
            }
            for (site, position) in (row * n_sites..).zip(supervised_positions(example)) {
                sites[site] = dim(position - 1);
                labels.push(dim(site));
                positions.push(dim(start + position - 1));
                targets.push(i64::from(example.token_ids[position]));
            }
        }
        let rows = |values: &[i64]| {
            let rows = Tensor::from_slice(values).reshape([dim(examples.len()), -1]);
            rows.to_device(device)
        };
        Ok(Self {
            token_ids: rows(&token_ids),
            sites: rows(&sites),
            positions: Tensor::from_slice(&positions).to_device(device),
            labels: Tensor::from_slice(&labels).to_device(device),
            targets: Tensor::from_slice(&targets).to_device(device),
            n_supervised,
            lengths: examples.iter().map(|example| example.token_ids.len()).collect(),
        })
    }

    /// The supervised tokens of each example are rows of their own of a
    /// `[n_supervised]` vector: `values` summed over each, in f64.
    pub(crate) fn sums(&self, values: &[f32]) -> Vec<f64> {
        let mut rest = values;
        self.n_supervised
            .iter()
            .map(|&n| {
                let (own, others) = rest.split_at(n);
                rest = others;
                own.iter().map(|&value| f64::from(value)).sum()
            })
            .collect()
    }
}

fn supervised_positions(example: &Example) -> impl DoubleEndedIterator<Item = usize> + '_ {
    (1..example.supervised.len()).filter(|&position| example.supervised[position])
}

fn n_inputs(example: &Example) -> usize {
    supervised_positions(example).next_back().unwrap_or(1)
}

fn check(example: &Example, config: &DecoderConfig) -> Result<(), ModelError> {
    let (id, vocab_size) = (example.id, config.vocab_size);
    let is_unknown = |token_id: &&u32| **token_id as usize >= vocab_size;
    if let Some(&token_id) = example.token_ids.iter().find(is_unknown) {
        return Err(ModelError::Token { id, token_id, vocab_size });
    }
    let n_tokens = example.token_ids.len();
    match config.n_positions {
        Some(n_positions) if n_tokens > n_positions => {
            Err(ModelError::TooLong { id, n_tokens, n_positions })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pool::ExampleId;

    fn example(token_ids: &[u32], supervised: &[u8]) -> Example {
        let supervised: Vec<bool> = supervised.iter().map(|&set| set == 1).collect();
        let id = ExampleId::of(token_ids, &supervised);
        Example { id, token_ids: token_ids.to_vec(), supervised }
    }

    /// The tiny Llama's, of ten tokens.
    fn config() -> DecoderConfig {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        DecoderConfig { vocab_size: 10, ..DecoderConfig::read(&dir).unwrap() }
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn examples_are_padded_and_cut_behind_what_predicts() {
        // The first predicts tokens 2 and 3 of its four and needs no more than
        // two inputs for it; the second its last.
        let examples = [example(&[5, 6, 7, 8], &[0, 1, 1, 0]), example(&[1, 2], &[0, 1])];
        let batch = Batch::new(&[&examples[0], &examples[1]], &config(), Device::Cpu).unwrap();
        assert_eq!(batch.token_ids.size(), [2, 2]);
        assert_eq!(numbers(&batch.token_ids), [5, 6, 1, 2]);
        assert_eq!(numbers(&batch.positions), [0, 1, 2]);
        assert_eq!((batch.sites.size(), numbers(&batch.sites)), (vec![2, 2], vec![0, 1, 0, 0]));
        assert_eq!(numbers(&batch.labels), [0, 1, 2]);
        assert_eq!(numbers(&batch.targets), [6, 7, 2]);
        assert_eq!(batch.sums(&[1.0, 2.0, 4.0]), [3.0, 4.0]);
    }

    #[test]
    fn a_token_of_another_vocabulary_is_named() {
        let example = example(&[5, 10], &[0, 1]);
        let error = Batch::new(&[&example], &config(), Device::Cpu).err().unwrap();
        insta::assert_snapshot!(error, @"example 9367d2d7a914d8b1aa5c19592682e985 has token 10, the model knows 10 tokens");
    }

    #[test]
    fn an_example_longer_than_learned_positions_is_named() {
        let config = DecoderConfig { n_positions: Some(2), ..config() };
        let fits = example(&[5, 9], &[0, 1]);
        assert!(Batch::new(&[&fits], &config, Device::Cpu).is_ok());
        let too_long = example(&[5, 9, 1], &[0, 1, 0]);
        let error = Batch::new(&[&fits, &too_long], &config, Device::Cpu).err().unwrap();
        insta::assert_snapshot!(error, @"example 04cadd3c954d8495fd35ccfc8454297e has 3 tokens, the model learned 2 positions; lower `max-tokens`");
    }
}
