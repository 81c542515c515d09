//! A model small enough to differentiate by hand.
//!
//! A linear softmax over a bag of tokens: what comes next depends on how often
//! each token came before. With x the token frequencies before position t, y
//! the token at t and p = softmax(W·x + b),
//!
//! ```text
//! ℓ_t = −ln p_y        ∂ℓ_t/∂W = (p − e_y)·xᵀ        ∂ℓ_t/∂b = p − e_y
//! ```
//!
//! and an example's loss and gradient are the means over its supervised
//! positions. Everything after the backward pass is tested on this model, with
//! no libtorch in sight.

use super::layout::ParamLayout;
use super::{ExampleLoss, PerExampleGradients};
use crate::pool::{Example, ExampleId};
use crate::seed::Seed;

/// A linear softmax over a bag of tokens.
///
/// ```
/// use less_select::gradient::PerExampleGradients;
/// use less_select::gradient::linear::LinearModel;
/// use less_select::pool::{Example, ExampleId};
/// use less_select::seed::Seed;
///
/// let (token_ids, supervised) = (vec![0, 3, 1], vec![false, false, true]);
/// let id = ExampleId::of(&token_ids, &supervised);
/// let example = Example { id, token_ids, supervised };
///
/// let mut model = LinearModel::new(Seed(0), 4);
/// let mut gradient = vec![0.0; model.layout().grad_dim()];
/// let offsets = model.layout().params().iter().map(|param| param.offset).collect::<Vec<_>>();
/// let losses = model.backward(&[&example], &mut |param, rows| {
///     gradient[offsets[param]..][..rows.len()].copy_from_slice(rows);
/// })?;
///
/// assert_eq!(losses[0].n_supervised, 1);
/// // Tokens 0 and 3 were seen, so their columns of W hold the gradient.
/// assert!(gradient[0] != 0.0 && gradient[3] != 0.0);
/// assert!(gradient[1] == 0.0 && gradient[2] == 0.0);
/// # Ok::<(), less_select::gradient::linear::LinearError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearModel {
    /// W, `[n_tokens × n_tokens]`, row-major, a row for each predicted token.
    weight: Vec<f64>,
    /// b, `[n_tokens]`.
    bias: Vec<f64>,
    layout: ParamLayout,
}

/// An example has a token the model does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("example {id} has token {token} outside a vocabulary of {n_tokens}")]
pub struct LinearError {
    /// The example.
    pub id: ExampleId,
    /// Its token.
    pub token: u32,
    /// Size of the vocabulary.
    pub n_tokens: usize,
}

impl LinearModel {
    /// A model over `n_tokens` tokens with weights uniform in (−1, 1).
    pub fn new(seed: Seed, n_tokens: usize) -> Self {
        use rand_chacha::rand_core::Rng;
        let mut rng = seed.stream(&["linear model"]);
        let mut uniform = || f64::from(rng.next_u32()) / f64::from(1u32 << 31) - 1.0;
        Self {
            weight: (0..n_tokens * n_tokens).map(|_| uniform()).collect(),
            bias: (0..n_tokens).map(|_| uniform()).collect(),
            layout: ParamLayout::new([
                ("head.weight".to_owned(), vec![n_tokens, n_tokens]),
                ("head.bias".to_owned(), vec![n_tokens]),
            ]),
        }
    }

    /// Loss and gradient (of W, then b) of one example, in f64.
    fn differentiate(&self, example: &Example) -> Result<(f64, Vec<f64>), LinearError> {
        let n_tokens = self.bias.len();
        if let Some(&token) = example.token_ids.iter().find(|token| **token as usize >= n_tokens) {
            return Err(LinearError { id: example.id, token, n_tokens });
        }
        let n_supervised = example.n_supervised() as f64;
        let (mut loss, mut gradient) = (0.0, vec![0.0; self.layout.grad_dim()]);
        let mut counts = vec![0.0; n_tokens];
        for (position, (&token, &supervised)) in
            example.token_ids.iter().zip(&example.supervised).enumerate()
        {
            if supervised {
                let x: Vec<f64> = counts.iter().map(|count| count / position as f64).collect();
                let mut error = self.probabilities(&x);
                loss -= error[token as usize].ln();
                error[token as usize] -= 1.0;
                let (weight, bias) = gradient.split_at_mut(n_tokens * n_tokens);
                for (predicted, error) in error.iter().enumerate() {
                    bias[predicted] += error / n_supervised;
                    for (weight, x) in weight[predicted * n_tokens..].iter_mut().zip(&x) {
                        *weight += error * x / n_supervised;
                    }
                }
            }
            counts[token as usize] += 1.0;
        }
        Ok((loss / n_supervised, gradient))
    }

    /// softmax(W·x + b).
    fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(x.len());
        let logits = rows
            .zip(&self.bias)
            .map(|(row, bias)| row.iter().zip(x).map(|(weight, x)| weight * x).sum::<f64>() + bias);
        let exp: Vec<f64> = logits.map(f64::exp).collect();
        let sum: f64 = exp.iter().sum();
        exp.iter().map(|exp| exp / sum).collect()
    }
}

impl PerExampleGradients for LinearModel {
    type Error = LinearError;

    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, LinearError> {
        let examples = batch
            .iter()
            .map(|example| self.differentiate(example))
            .collect::<Result<Vec<_>, _>>()?;
        for (param_idx, param) in self.layout.params().iter().enumerate() {
            let range = param.offset..param.offset + param.n_coordinates();
            let rows: Vec<f32> = examples
                .iter()
                .flat_map(|(_, gradient)| &gradient[range.clone()])
                .map(|value| *value as f32)
                .collect();
            sink(param_idx, &rows);
        }
        let losses = batch.iter().zip(&examples).map(|(example, (loss, _))| ExampleLoss {
            loss: *loss as f32,
            n_supervised: example.n_supervised() as u32,
        });
        Ok(losses.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(token_ids: &[u32], supervised: &[bool]) -> Example {
        let id = ExampleId::of(token_ids, supervised);
        Example { id, token_ids: token_ids.to_vec(), supervised: supervised.to_vec() }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let model = LinearModel::new(Seed(1), 5);
        let example = example(&[0, 4, 2, 2, 1, 3], &[false, false, true, true, false, true]);
        let (_, gradient) = model.differentiate(&example).unwrap();
        let step = 1e-5;
        for (coordinate, slope) in gradient.iter().enumerate() {
            let loss_at = |shift: f64| {
                let mut moved = model.clone();
                match coordinate.checked_sub(moved.weight.len()) {
                    Some(row) => moved.bias[row] += shift,
                    None => moved.weight[coordinate] += shift,
                }
                moved.differentiate(&example).unwrap().0
            };
            let difference = (loss_at(step) - loss_at(-step)) / (2.0 * step);
            approx::assert_abs_diff_eq!(*slope, difference, epsilon = 1e-9);
        }
    }

    #[test]
    fn the_gradient_comes_batched_parameter_by_parameter() {
        let mut model = LinearModel::new(Seed(1), 3);
        let examples =
            [example(&[0, 1], &[false, true]), example(&[2, 2, 0], &[false, false, true])];
        let alone = examples.clone().map(|example| model.differentiate(&example).unwrap().1);
        let mut params = Vec::new();
        let batch: Vec<&Example> = examples.iter().collect();
        let losses = model.backward(&batch, &mut |param, rows| params.push((param, rows.to_vec())));
        assert_eq!(losses.unwrap().len(), 2);
        assert_eq!(params.iter().map(|(param, _)| *param).collect::<Vec<_>>(), [0, 1]);
        for (row, gradient) in alone.iter().enumerate() {
            let together: Vec<f32> =
                [&params[0].1[row * 9..][..9], &params[1].1[row * 3..][..3]].concat();
            assert_eq!(together, gradient.iter().map(|value| *value as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_unknown_token_is_an_error_that_names_the_example() {
        let example = example(&[0, 7], &[false, true]);
        let error = LinearModel::new(Seed(1), 3).backward(&[&example], &mut |_, _| ()).unwrap_err();
        assert_eq!(error, LinearError { id: example.id, token: 7, n_tokens: 3 });
    }

    #[test]
    fn nothing_supervised_has_no_loss_and_no_gradient() {
        let mut model = LinearModel::new(Seed(1), 3);
        let example = example(&[0, 1], &[false, false]);
        let losses = model
            .backward(&[&example], &mut |_, rows| assert!(rows.iter().all(|value| *value == 0.0)))
            .unwrap();
        assert!(losses[0].loss.is_nan() && losses[0].n_supervised == 0);
    }
}
