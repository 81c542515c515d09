//! Derivatives that libtorch has one kernel for.
//!
//! On a CUDA device a chain of operations is a chain of trips through memory,
//! and libtorch's kernels for attention and norms make one. What they keep for
//! the way back is autograd's business: a graph of a single operation.

use tch::Tensor;

/// One operation's output with its graph.
pub(super) struct Fused<const N: usize> {
    inputs: [Tensor; N],
    y: Tensor,
}

impl<const N: usize> Fused<N> {
    /// Computes `operation` of `inputs`.
    pub(super) fn new(
        inputs: [&Tensor; N],
        operation: impl FnOnce(&[Tensor; N]) -> Tensor,
    ) -> Self {
        let inputs = inputs.map(|x| x.detach().set_requires_grad(true));
        let y = tch::with_grad(|| operation(&inputs));
        Self { inputs, y }
    }

    /// The output, as a number like any other.
    pub(super) fn y(&self) -> Tensor {
        self.y.detach()
    }

    /// Gradients by the inputs, each in its shape, from that by the output.
    pub(super) fn differentiate(self, gradient: &Tensor) -> [Tensor; N] {
        // Backward starts from a number: the one whose gradient by y is `gradient`.
        let start = tch::with_grad(|| self.y.flatten(0, -1).dot(&gradient.flatten(0, -1)));
        let gradients = Tensor::run_backward(&[start], &self.inputs, false, false);
        gradients.try_into().expect("a gradient an input")
    }
}
