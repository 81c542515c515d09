//! AdamW whose moments can be saved by name.

use tch::{Kind, Tensor};

use crate::gradient::direction::AdamRule;

/// The optimizer of Loshchilov and Hutter, "Decoupled weight decay
/// regularization" (2019), in the arithmetic of `torch.optim.AdamW`.
pub(super) struct AdamW {
    /// Constants, and the steps taken so far.
    pub(super) rule: AdamRule,
    pub(super) weight_decay: f64,
    /// First moments, one a parameter.
    pub(super) exp_avg: Vec<Tensor>,
    /// Second moments, one a parameter.
    pub(super) exp_avg_sq: Vec<Tensor>,
}

impl AdamW {
    /// An optimizer of `params` at rest, with the constants of PyTorch.
    pub(super) fn new(params: &[Tensor], weight_decay: f64) -> Self {
        let zeros = || params.iter().map(Tensor::zeros_like).collect();
        Self {
            rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 0 },
            weight_decay,
            exp_avg: zeros(),
            exp_avg_sq: zeros(),
        }
    }

    /// Moves `params` by one step against `gradients`.
    pub(super) fn step(&mut self, params: &mut [Tensor], gradients: &[Tensor], rate: f64) {
        self.rule.step += 1;
        let AdamRule { beta1, beta2, epsilon, step } = self.rule;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let (correction1, correction2) = (correction(beta1), correction(beta2));
        let moments = self.exp_avg.iter_mut().zip(&mut self.exp_avg_sq);
        tch::no_grad(|| {
            for ((param, gradient), (m, v)) in params.iter_mut().zip(gradients).zip(moments) {
                *param *= 1.0 - rate * self.weight_decay;
                let _ = m.lerp_(gradient, 1.0 - beta1);
                *v *= beta2;
                let _ = v.addcmul_(gradient, &(gradient * (1.0 - beta2)));
                let denominator = v.sqrt() / correction2.sqrt() + epsilon;
                let _ = param.addcdiv_(&(&*m * (-rate / correction1)), &denominator);
            }
        });
    }
}

/// Scales `gradients` down to an L2 norm of `max_norm` if theirs, over all of
/// them, is larger. Returns the norm they had.
pub(super) fn clip(gradients: &mut [Tensor], max_norm: f64) -> f64 {
    let norms = gradients
        .iter()
        .map(|gradient| gradient.norm_scalaropt_dtype(2.0, Kind::Double).double_value(&[]));
    let norm = norms.map(|norm| norm * norm).sum::<f64>().sqrt();
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        for gradient in gradients {
            *gradient *= factor;
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    /// Two clipped steps of `torch.optim.AdamW` on two parameters.
    #[derive(Deserialize)]
    struct Golden {
        learning_rate: f64,
        weight_decay: f64,
        max_grad_norm: f64,
        start: Vec<Vec<f32>>,
        gradients: Vec<Vec<Vec<f32>>>,
        norms: Vec<f64>,
        end: Vec<Vec<f32>>,
        exp_avg: Vec<Vec<f32>>,
        exp_avg_sq: Vec<Vec<f32>>,
    }

    fn tensors(values: &[Vec<f32>]) -> Vec<Tensor> {
        values.iter().map(|values| Tensor::from_slice(values)).collect()
    }

    #[track_caller]
    fn assert_close(found: &[Tensor], expected: &[Vec<f32>]) {
        for (found, expected) in found.iter().zip(expected) {
            let found = Vec::<f32>::try_from(found).unwrap();
            approx::assert_relative_eq!(&found[..], &expected[..], max_relative = 1e-6);
        }
    }

    #[test]
    fn two_steps_equal_those_of_torch() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/model.json");
        let mut goldens: serde_json::Value =
            serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
        let golden: Golden = serde_json::from_value(goldens["adamw"].take()).unwrap();
        let mut params = tensors(&golden.start);
        let mut optimizer = AdamW::new(&params, golden.weight_decay);
        for (gradients, norm) in golden.gradients.iter().zip(golden.norms) {
            let mut gradients = tensors(gradients);
            let found = clip(&mut gradients, golden.max_grad_norm);
            approx::assert_relative_eq!(found, norm, max_relative = 1e-6);
            optimizer.step(&mut params, &gradients, golden.learning_rate);
        }
        assert_close(&params, &golden.end);
        assert_close(&optimizer.exp_avg, &golden.exp_avg);
        assert_close(&optimizer.exp_avg_sq, &golden.exp_avg_sq);
    }

    #[test]
    fn a_short_gradient_is_left_alone() {
        let mut gradients = tensors(&[vec![0.3], vec![0.4]]);
        approx::assert_relative_eq!(clip(&mut gradients, 1.0), 0.5, max_relative = 1e-6);
        assert_close(&gradients, &[vec![0.3], vec![0.4]]);
    }
}
