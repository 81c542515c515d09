//! RMS norm and its derivative.

use tch::{Kind, Tensor};

use super::fused::Fused;
use crate::model::decoder::Decoder;

/// y = w ∘ n with n = x / rms(x), on its way back.
pub(super) enum Norm<'a> {
    /// libtorch's kernel.
    Fused(Fused<1>),
    /// One formula in f32.
    ByHand { x: Tensor, weight: &'a Tensor, eps: f64 },
}

impl<'a> Norm<'a> {
    /// The norm of `x`, `[.., width]`, with the weight `[width]`, and its way back.
    pub(super) fn new(
        decoder: &'a Decoder,
        x: &Tensor,
        weight: &'a Tensor,
        is_fused: bool,
    ) -> (Tensor, Self) {
        if is_fused {
            let fused = Fused::new([x], |[x]| decoder.rms_norm(x, weight));
            return (fused.y(), Self::Fused(fused));
        }
        let y = decoder.rms_norm(x, weight);
        (y, Self::ByHand { x: x.shallow_clone(), weight, eps: decoder.config.rms_norm_eps })
    }

    /// The gradient by the input from that by the output.
    pub(super) fn differentiate(self, gradient: &Tensor) -> Tensor {
        match self {
            Self::Fused(fused) => {
                let [by_x] = fused.differentiate(gradient);
                by_x
            }
            Self::ByHand { x, weight, eps } => by_hand(&x, weight, eps, gradient),
        }
    }
}

/// With g = w ∘ ∇y, ∇x = (g − n · mean(g ∘ n)) / rms(x). In f32, as libtorch
/// does it.
fn by_hand(x: &Tensor, weight: &Tensor, eps: f64, gradient: &Tensor) -> Tensor {
    let kind = x.kind();
    let [x, weight, gradient] = [x, weight, gradient].map(|tensor| tensor.to_kind(Kind::Float));
    let squares = x.square().mean_dim(-1, true, Kind::Float);
    let reciprocal = (squares + eps).rsqrt_();
    let normed = x * &reciprocal;
    let mut by_normed = gradient * weight;
    let mean = (&by_normed * &normed).mean_dim(-1, true, Kind::Float);
    let by_x = by_normed.addcmul_(&normed, &mean.neg()) * reciprocal;
    by_x.to_kind(kind)
}
