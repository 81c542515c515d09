//! Where LoRA starts.

use rand_chacha::rand_core::Rng;

use crate::gradient::layout::{Param, ParamLayout};
use crate::seed::Seed;

/// The weights an adapter starts with, `[grad_dim]`, as `peft` draws them: A,
/// which has n columns, uniform within ±1/√n (Kaiming's bound with a = √5), B
/// zero. Every parameter has a stream of its own.
pub fn initial_adapter(layout: &ParamLayout, seed: Seed) -> Vec<f32> {
    layout.params().iter().flat_map(|param| initial(param, seed)).collect()
}

fn initial(param: &Param, seed: Seed) -> Vec<f32> {
    if !param.name.ends_with("lora_A.weight") {
        return vec![0.0; param.n_coordinates()];
    }
    let bound = 1.0 / (param.shape[1] as f64).sqrt();
    let mut rng = seed.stream(&["warmup", "lora", &param.name]);
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 2_f64.powi(32);
    (0..param.n_coordinates()).map(|_| ((2.0 * uniform() - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_is_uniform_within_its_bound_and_b_is_zero() {
        let [a, b] = ["x.lora_A.weight", "x.lora_B.weight"].map(str::to_owned);
        let layout = ParamLayout::new([(a, vec![64, 100]), (b, vec![100, 64])]);
        let weights = initial_adapter(&layout, Seed(0));
        let (a, b) = weights.split_at(6400);
        assert!(b.iter().all(|weight| weight.to_bits() == 0));
        assert!(a.iter().all(|weight| weight.abs() <= 0.1));
        let mean = a.iter().sum::<f32>() / 6400.0;
        let variance = a.iter().map(|weight| weight * weight).sum::<f32>() / 6400.0;
        assert!(mean.abs() < 4.0 * 0.1 / (3.0 * 6400.0_f32).sqrt(), "mean {mean}");
        // A uniform distribution within ±b has the variance b²/3.
        approx::assert_relative_eq!(variance, 0.01 / 3.0, max_relative = 0.05);
    }
}
