//! Which coordinates an adapter sees in training.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use tch::Tensor;

/// A mask like `x`: 0 with the chance `dropout`, to 2⁻¹⁷, and else 1 / (1 − `dropout`).
pub(super) fn mask(x: &Tensor, dropout: f64, rng: &mut ChaCha8Rng) -> Tensor {
    let seen = 1.0 - dropout;
    if x.device().is_cuda() {
        tch::manual_seed(rng.next_u64().cast_signed());
        return x.empty_like().bernoulli_float_(seen).g_mul_scalar_(1.0 / seen);
    }
    // libtorch's generator draws on one thread, a number after the other, and would take
    // a quarter of a training's time.
    let mut drawn = vec![0; 2 * x.numel()];
    rng.fill_bytes(&mut drawn);
    let hidden_below = (dropout * f64::from(1 << 16)).round();
    let (pairs, _) = drawn.as_chunks();
    let values: Vec<f32> = pairs
        .iter()
        .map(|pair| {
            let is_seen = f64::from(u16::from_le_bytes(*pair)) >= hidden_below;
            if is_seen { (1.0 / seen) as f32 } else { 0.0 }
        })
        .collect();
    Tensor::from_slice(&values).reshape(x.size()).to_kind(x.kind())
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::seed::Seed;

    #[test]
    fn a_mask_hides_its_share_and_keeps_the_mean() {
        let mut rng = Seed(0).stream(&["dropout"]);
        let x = Tensor::zeros([100, 1000], (Kind::BFloat16, tch::Device::Cpu));
        for dropout in [0.1, 0.5] {
            let found = mask(&x, dropout, &mut rng);
            assert_eq!((found.size(), found.kind()), (x.size(), x.kind()));
            let hidden = found.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            // 100,000 draws.
            approx::assert_abs_diff_eq!(hidden, dropout, epsilon = 0.006);
            let mean = found.mean(Kind::Float).double_value(&[]);
            approx::assert_abs_diff_eq!(mean, 1.0, epsilon = 0.015);
        }
        assert_ne!(mask(&x, 0.1, &mut rng), mask(&x, 0.1, &mut rng));
    }
}
