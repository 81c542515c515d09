//! The MLP's activation and its derivative.

use tch::Tensor;

use super::architecture::Activation;

impl Activation {
    pub(crate) fn forward(self, x: &Tensor) -> Tensor {
        match self.gelu() {
            None => x.silu(),
            Some(approximation) => x.gelu(approximation),
        }
    }

    /// The gradient by `x` from that by the output.
    pub(crate) fn backward(self, x: &Tensor, gradient: &Tensor) -> Tensor {
        match self.gelu() {
            None => x.silu_backward(gradient),
            Some(approximation) => x.gelu_backward(gradient, approximation),
        }
    }

    /// How libtorch calls the approximation, if it is a `gelu`.
    fn gelu(self) -> Option<&'static str> {
        match self {
            Self::Silu => None,
            Self::Gelu => Some("none"),
            Self::GeluTanh => Some("tanh"),
        }
    }
}
