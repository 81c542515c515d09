//! A row's gradient must not depend on the rows it is computed with.

use rand_chacha::rand_core::Rng;

use super::PerExampleGradients;
use crate::pool::{Example, ExampleId};
use crate::seed::Seed;

/// Lengths of the examples that are compared: mixed, so that most are padded.
const LENGTHS: [usize; 6] = [12, 61, 33, 7, 48, 24];

/// How much batching changes gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Independence {
    /// Examples compared.
    pub n_rows: usize,
    /// Largest ‖alone − batched‖ / ‖alone‖ over the examples.
    pub largest_relative_error: f64,
}

/// Computes the gradients of a few random examples of mixed lengths alone and
/// in one batch, over tokens below `vocab_size`.
///
/// # Errors
///
/// If the model fails.
pub fn independence<M: PerExampleGradients>(
    model: &mut M,
    vocab_size: usize,
) -> Result<Independence, M::Error> {
    let examples = LENGTHS.map(|n_tokens| random_example(n_tokens, vocab_size));
    let batch: Vec<&Example> = examples.iter().collect();
    let batched = gradients(model, &batch)?;
    let mut largest_relative_error: f64 = 0.0;
    for (example, batched) in batch.iter().zip(&batched) {
        let alone = gradients(model, &[example])?.remove(0);
        let error = relative_error(&alone, batched);
        // A NaN must not pass as small.
        if error.is_nan() || error > largest_relative_error {
            largest_relative_error = error;
        }
    }
    Ok(Independence { n_rows: examples.len(), largest_relative_error })
}

/// Whole gradients, one an example.
fn gradients<M: PerExampleGradients>(
    model: &mut M,
    batch: &[&Example],
) -> Result<Vec<Vec<f32>>, M::Error> {
    let layout = model.layout().clone();
    let mut rows = vec![vec![0.0; layout.grad_dim()]; batch.len()];
    model.backward(batch, &mut |param_idx, gradients| {
        let param = &layout.params()[param_idx];
        for (row, own) in rows.iter_mut().zip(gradients.chunks_exact(param.n_coordinates())) {
            row[param.offset..][..own.len()].copy_from_slice(own);
        }
    })?;
    Ok(rows)
}

fn relative_error(alone: &[f32], batched: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = alone.iter().zip(batched).map(|(a, b)| f64::from(*a) - f64::from(*b));
    norm(&mut { difference }) / norm(&mut alone.iter().map(|a| f64::from(*a)))
}

fn random_example(n_tokens: usize, vocab_size: usize) -> Example {
    let mut rng = Seed(0).stream(&["independence", &n_tokens.to_string()]);
    let token_ids: Vec<u32> =
        (0..n_tokens).map(|_| (rng.next_u64() % vocab_size as u64) as u32).collect();
    let supervised: Vec<bool> = (0..n_tokens).map(|position| position > n_tokens / 2).collect();
    Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::ExampleLoss;
    use crate::gradient::layout::ParamLayout;
    use crate::gradient::linear::LinearModel;

    #[test]
    fn a_model_in_closed_form_is_independent() {
        let found = independence(&mut LinearModel::new(Seed(0), 50), 50).unwrap();
        assert_eq!(found, Independence { n_rows: 6, largest_relative_error: 0.0 });
    }

    /// Adds the size of the batch to every coordinate.
    struct Leaky(ParamLayout);

    impl PerExampleGradients for Leaky {
        type Error = std::convert::Infallible;

        fn layout(&self) -> &ParamLayout {
            &self.0
        }

        fn backward(
            &mut self,
            batch: &[&Example],
            sink: &mut dyn FnMut(usize, &[f32]),
        ) -> Result<Vec<ExampleLoss>, Self::Error> {
            sink(0, &vec![batch.len() as f32; 4 * batch.len()]);
            Ok(vec![ExampleLoss { loss: 1.0, n_supervised: 1 }; batch.len()])
        }
    }

    #[test]
    fn a_row_that_sees_its_neighbors_is_found_out() {
        let mut leaky = Leaky(ParamLayout::new([("a".into(), vec![4])]));
        assert!(independence(&mut leaky, 50).unwrap().largest_relative_error > 1.0);
    }
}
