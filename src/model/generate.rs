//! What the model says of its own accord: greedy decoding.

use tch::{Device, Kind, Tensor};

use super::attention::Ropes;
use super::cache::Cache;
use super::{LoraDecoder, ModelError, dim, memory};

/// A text to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// Token ids, at least one.
    pub token_ids: &'a [u32],
    /// The token that ends an answer.
    pub end: u32,
}

impl LoraDecoder {
    /// The likeliest continuation of every prompt, token by token, until the token that
    /// ends it, which is left out, or `most` tokens.
    ///
    /// # Errors
    ///
    /// If the model fails.
    ///
    /// # Panics
    ///
    /// If a prompt is empty or has a token outside the vocabulary.
    pub fn generate(
        &self,
        prompts: &[Prompt<'_>],
        most: usize,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut said = vec![Vec::new(); prompts.len()];
        if prompts.is_empty() || most == 0 {
            return Ok(said);
        }
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        let say = || {
            let (mut texts, mut next) = Texts::begin(self, prompts, most)?;
            for n_said in 1..=most {
                open.retain(|row| next[*row] != prompts[*row].end);
                for row in &open {
                    said[*row].push(next[*row]);
                }
                if open.is_empty() || n_said == most {
                    break;
                }
                next = texts.go_on(&next)?;
            }
            Ok(())
        };
        memory::guarded(|| tch::no_grad(say))?;
        Ok(said)
    }
}

/// Texts that are being continued.
struct Texts<'a> {
    model: &'a LoraDecoder,
    ropes: Ropes,
    cache: Cache,
    /// Tokens of each.
    lengths: Vec<i64>,
}

impl<'a> Texts<'a> {
    /// The prompts, with room for `most` further tokens, and the likeliest next ones.
    fn begin(
        model: &'a LoraDecoder,
        prompts: &[Prompt<'_>],
        most: usize,
    ) -> Result<(Self, Vec<u32>), ModelError> {
        let LoraDecoder { decoder, .. } = model;
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.token_ids.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let like = &decoder.embeddings;
        let mut texts = Self {
            model,
            ropes: Ropes::new(&decoder.config, dim(longest + most), &lengths, like),
            cache: Cache::new(&decoder.config, prompts.len(), longest + most, like),
            lengths: lengths.iter().copied().map(dim).collect(),
        };
        // Padded on the right: no token sees what is behind it, and what is said takes
        // the place of the padding.
        let mut token_ids = vec![0_i64; prompts.len() * longest];
        for (own, prompt) in token_ids.chunks_exact_mut(longest).zip(prompts) {
            own.iter_mut().zip(prompt.token_ids).for_each(|(own, id)| *own = i64::from(*id));
        }
        let shape = [dim(prompts.len()), dim(longest)];
        let token_ids = texts.tensor(&token_ids).f_reshape(shape)?;
        let positions = Tensor::arange(shape[1], (Kind::Int64, model.device()));
        let hidden = texts.hidden(&token_ids, &positions.expand(shape, false));
        let last = lengths.iter().enumerate().map(|(row, n)| dim(row * longest + n - 1));
        let last = texts.tensor(&last.collect::<Vec<_>>());
        let next = texts.likeliest(&hidden.flatten(0, 1).f_index_select(0, &last)?)?;
        Ok((texts, next))
    }

    /// Goes on with a token each; the likeliest next ones.
    fn go_on(&mut self, token_ids: &[u32]) -> Result<Vec<u32>, ModelError> {
        let token_ids: Vec<i64> = token_ids.iter().copied().map(i64::from).collect();
        let token_ids = self.tensor(&token_ids).unsqueeze(1);
        let positions = self.tensor(&self.lengths).unsqueeze(1);
        self.lengths.iter_mut().for_each(|length| *length += 1);
        let hidden = self.hidden(&token_ids, &positions);
        self.likeliest(&hidden.squeeze_dim(1))
    }

    fn hidden(&mut self, token_ids: &Tensor, positions: &Tensor) -> Tensor {
        let LoraDecoder { decoder, adapter, .. } = self.model;
        decoder.hidden_at(token_ids, positions, &self.ropes, adapter, &mut self.cache)
    }

    /// The likeliest tokens behind hidden states `[n, hidden_size]`.
    fn likeliest(&self, hidden: &Tensor) -> Result<Vec<u32>, ModelError> {
        let likeliest = self.model.decoder.logits(hidden).f_argmax(-1, false)?;
        let ids = Vec::<i64>::try_from(likeliest.to_device(Device::Cpu).to_kind(Kind::Int64))?;
        Ok(ids.into_iter().map(|id| u32::try_from(id).expect("a token's position")).collect())
    }

    fn tensor(&self, numbers: &[i64]) -> Tensor {
        Tensor::from_slice(numbers).to_device(self.model.device())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::LoraSettings;
    use crate::compute::{ComputeSettings, Dtype};

    fn model() -> LoraDecoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
        let targets = vec!["q_proj".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.5, targets };
        let threads = Some(std::num::NonZeroUsize::MIN);
        let compute = ComputeSettings { threads, ..ComputeSettings::cpu(Dtype::F32) };
        LoraDecoder::load(&dir, &lora, &compute).unwrap()
    }

    /// By itself, token by token.
    fn slowly(model: &LoraDecoder, prompt: &[u32], most: usize) -> Vec<u32> {
        let mut text = prompt.to_vec();
        for _ in 0..most {
            let logits = model.logits(&text);
            let last = logits.last().unwrap();
            let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            text.push(best as u32);
        }
        text.split_off(prompt.len())
    }

    #[test]
    fn every_prompt_is_continued_as_if_it_were_alone_until_its_end() {
        let model = model();
        let prompts = [vec![5, 6, 7, 8], vec![9], vec![3, 1]];
        let alone: Vec<Vec<u32>> = prompts.iter().map(|prompt| slowly(&model, prompt, 5)).collect();
        // The second ends where it says its third token, or one that is the same before.
        let end = alone[1][2];
        let n_said = alone[1].iter().position(|token_id| *token_id == end).unwrap();
        let nowhere = u32::MAX;
        let ends = [nowhere, end, nowhere];
        let prompts: Vec<Prompt<'_>> =
            prompts.iter().zip(ends).map(|(token_ids, end)| Prompt { token_ids, end }).collect();
        let found = model.generate(&prompts, 5).unwrap();
        assert_eq!(found[0], alone[0]);
        assert_eq!(found[1], alone[1][..n_said]);
        assert_eq!(found[2], alone[2]);
    }
}
