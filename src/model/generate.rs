//! What the model says of its own accord: greedy decoding.

use tch::{Kind, Tensor};

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
    /// The whole text is computed anew for every token, which is plenty for short answers
    /// and asks nothing of the decoder that training does not.
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
        let mut texts: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| prompt.token_ids.to_vec()).collect();
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        for _ in 0..most {
            if open.is_empty() {
                break;
            }
            let rows: Vec<&[u32]> = open.iter().map(|row| &texts[*row][..]).collect();
            let next = memory::guarded(|| tch::no_grad(|| self.likeliest_next(&rows)))?;
            let mut still_open = Vec::with_capacity(open.len());
            for (row, token_id) in open.into_iter().zip(next) {
                if token_id != prompts[row].end {
                    texts[row].push(token_id);
                    still_open.push(row);
                }
            }
            open = still_open;
        }
        let lengths = prompts.iter().map(|prompt| prompt.token_ids.len());
        Ok(texts.into_iter().zip(lengths).map(|(mut text, n)| text.split_off(n)).collect())
    }

    /// The likeliest token behind each of `rows`.
    fn likeliest_next(&self, rows: &[&[u32]]) -> Result<Vec<u32>, ModelError> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        // Padded on the right: no token sees what is behind it.
        let mut token_ids = vec![0_i64; rows.len() * longest];
        let mut last = Vec::with_capacity(rows.len());
        for (number, row) in rows.iter().enumerate() {
            let own = &mut token_ids[number * longest..];
            own.iter_mut().zip(*row).for_each(|(own, token_id)| *own = i64::from(*token_id));
            last.push(dim(number * longest + row.len() - 1));
        }
        let shape = [dim(rows.len()), dim(longest)];
        let token_ids = Tensor::from_slice(&token_ids).f_reshape(shape)?.to_device(self.device());
        let last = Tensor::from_slice(&last).to_device(self.device());
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let hidden = self.decoder.hidden(&token_ids, &lengths, &self.adapter);
        let logits = self.decoder.logits(&hidden.flatten(0, 1).f_index_select(0, &last)?);
        let next = logits.f_argmax(-1, false)?.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
        let next = Vec::<i64>::try_from(next)?;
        Ok(next.into_iter().map(|id| u32::try_from(id).expect("a token's position")).collect())
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
