//! What decoders differ in besides their sizes.

/// What norms compute; n is the input over its root mean square, or for `Layer` the
/// input less its mean over its standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// w ∘ n.
    Rms,
    /// (1 + w) ∘ n.
    RmsAroundOne,
    /// w ∘ n + b.
    Layer,
}

/// Where a layer's norms and residuals stand; f is attention, then the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// x + f(norm(x)).
    Before,
    /// x + norm(f(x)).
    After,
    /// x + norm(f(norm(x))).
    Around,
    /// x + attention(norm(x)) + mlp(norm'(x)).
    Parallel,
}

/// Over what queries and keys are normed before they are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Head by head.
    Head,
    /// All heads as one vector.
    Whole,
}

/// What the MLP does to its gate, or to its way up where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · σ(x).
    Silu,
    /// x · Φ(x).
    Gelu,
    /// The same, Φ by a hyperbolic tangent.
    GeluTanh,
}

impl Activation {
    /// What `config.json` calls those that are known.
    pub(super) const NAMES: [(&'static str, Self); 6] = [
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
    ];
}

/// How the scores of attention come from queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// What their products are multiplied by.
    pub scale: f64,
    /// c in c · tanh(score / c), where scores are capped.
    pub cap: Option<f64>,
}
