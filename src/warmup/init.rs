//! Where LoRA starts.

use rand_chacha::rand_core::Rng;

use crate::gradient::layout::{Param, ParamLayout};
use crate::seed::Seed;

/// The weights an adapter starts with, `[grad_dim]`, as `peft` draws them: A,
/// which has n columns, uniform within ±1/√n (Kaiming's bound with a = √5), B
/// zero. Every parameter has a stream of its own.
pub fn initial_adapter(layout: &ParamLayout, seed: Seed) -> Vec<f32> {
    weights(layout, |param| if is_a(param) { uniform(param, seed, 1.0) } else { zeros(param) })
}

/// As [`initial_adapter`], but for B, which is uniform within ±0.1/√rank: for
/// measuring an untrained model, where zeros would make all gradients of A zero.
pub fn trial_adapter(layout: &ParamLayout, seed: Seed) -> Vec<f32> {
    weights(layout, |param| uniform(param, seed, if is_a(param) { 1.0 } else { 0.1 }))
}

fn weights(layout: &ParamLayout, of: impl Fn(&Param) -> Vec<f32>) -> Vec<f32> {
    layout.params().iter().flat_map(of).collect()
}

fn is_a(param: &Param) -> bool {
    param.name.ends_with("lora_A.weight")
}

fn zeros(param: &Param) -> Vec<f32> {
    vec![0.0; param.n_coordinates()]
}

/// Within ±`scale`/√n, for n columns.
fn uniform(param: &Param, seed: Seed, scale: f64) -> Vec<f32> {
    let bound = scale / (param.shape[1] as f64).sqrt();
    let mut rng = seed.stream(&["warmup", "lora", &param.name]);
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 2_f64.powi(32);
    (0..param.n_coordinates()).map(|_| ((2.0 * uniform() - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_trial_b_is_not_zero_and_a_is_as_it_starts() {
        let [a, b] = ["x.lora_A.weight", "x.lora_B.weight"].map(str::to_owned);
        let layout = ParamLayout::new([(a, vec![4, 9]), (b, vec![9, 4])]);
        let [initial, trial] = [initial_adapter, trial_adapter].map(|of| of(&layout, Seed(0)));
        assert_eq!(initial[..36], trial[..36]);
        assert!(trial[36..].iter().all(|weight| (1e-9..=0.05).contains(&weight.abs())));
    }

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
