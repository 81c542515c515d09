//! Norms and their derivative.

use tch::{Kind, Tensor};

use super::fused::Fused;
use crate::model::architecture::NormKind;
use crate::model::decoder::{Decoder, NormWeights};

/// y = w ∘ n with n = x / rms(x), or y = w ∘ n + b with n = (x − mean(x)) / σ(x), on
/// its way back.
pub(super) enum Norm<'a> {
    /// libtorch's kernel.
    Fused(Fused<1>),
    /// One formula in f32.
    ByHand { x: Tensor, weight: &'a Tensor, eps: f64, is_centered: bool },
}

impl<'a> Norm<'a> {
    /// The norm of `x`, `[.., width]`, and its way back.
    pub(super) fn new(
        decoder: &'a Decoder,
        x: &Tensor,
        weights: &'a NormWeights,
        is_fused: bool,
    ) -> (Tensor, Self) {
        if is_fused {
            let fused = Fused::new([x], |[x]| decoder.normed_by(weights, x));
            return (fused.y(), Self::Fused(fused));
        }
        let y = decoder.normed_by(weights, x);
        let norm = Self::ByHand {
            x: x.shallow_clone(),
            weight: &weights.weight,
            eps: decoder.config.norm_eps,
            is_centered: decoder.config.norm == NormKind::Layer,
        };
        (y, norm)
    }

    /// The gradient by the input from that by the output.
    pub(super) fn differentiate(self, gradient: &Tensor) -> Tensor {
        match self {
            Self::Fused(fused) => {
                let [by_x] = fused.differentiate(gradient);
                by_x
            }
            Self::ByHand { x, weight, eps, is_centered } => {
                by_hand(&x, weight, eps, is_centered, gradient)
            }
        }
    }
}

/// With g = w ∘ ∇y, ∇x = (g − n · mean(g ∘ n)) / rms(x); about the mean, which is one
/// more direction that changes nothing, g less its mean. In f32, as libtorch does it.
fn by_hand(x: &Tensor, weight: &Tensor, eps: f64, is_centered: bool, gradient: &Tensor) -> Tensor {
    let kind = x.kind();
    let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_kind(Kind::Float));
    let mean = |x: &Tensor| x.mean_dim(-1, true, Kind::Float);
    let x = if is_centered { &x - mean(&x) } else { x };
    let reciprocal = (mean(&x.square()) + eps).rsqrt_();
    let normed = x * &reciprocal;
    let mut by_normed = gradient * weight;
    if is_centered {
        let _ = by_normed.subtract_(&mean(&by_normed));
    }
    let along = mean(&(&by_normed * &normed));
    let by_x = by_normed.addcmul_(&normed, &along.neg()) * reciprocal;
    by_x.to_kind(kind)
}
