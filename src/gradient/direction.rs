//! Γ: from an example's gradient to the direction in which the optimizer would
//! move for it.

use serde::{Deserialize, Serialize};

/// A named definition of Γ. The pool side uses one of these, the target side
/// always [`Sgd`](Self::Sgd).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientKind {
    /// Definition 3.1 of the LESS paper with AdamW's own arithmetic.
    Adam,
    /// What the released LESS code computes: no bias correction, ε inside the root.
    LessCode,
    /// The gradient over the root of the second moment; no momentum.
    AdamV,
    /// The plain gradient.
    Sgd,
}

impl GradientKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Adam, Self::LessCode, Self::AdamV, Self::Sgd];

    /// The kind's name in settings, files and columns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adam => "adam",
            Self::LessCode => "less-code",
            Self::AdamV => "adam-v",
            Self::Sgd => "sgd",
        }
    }

    /// Whether this kind needs the optimizer's moments.
    pub fn needs_moments(self) -> bool {
        self != Self::Sgd
    }
}

impl std::fmt::Display for GradientKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for GradientKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// Adam's constants, as the checkpoint's optimizer used them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamRule {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Optimizer steps taken when the moments were saved.
    pub step: u64,
}

/// Adam's moments at a checkpoint, f32, `[grad_dim]` each, in the order of the
/// [`ParamLayout`](super::layout::ParamLayout).
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Constants and step count.
    pub rule: AdamRule,
    /// First moment m.
    pub exp_avg: Vec<f32>,
    /// Second moment v.
    pub exp_avg_sq: Vec<f32>,
}
