//! Γ: from an example's gradient to the direction in which the optimizer would
//! move for it.
//!
//! With the gradient g of one example and the moments m, v that AdamW held at
//! the checkpoint after `step` updates, coordinate by coordinate:
//!
//! ```text
//! adam       m' = β1·m + (1−β1)·g     v' = β2·v + (1−β2)·g²     t = step + 1
//!            Γ  = m'/(1−β1^t) / ( √(v'/(1−β2^t)) + ε )
//! less-code  Γ  = (0.9·m + 0.1·g) / √( 0.999·v + 0.001·g² + 1e-8 )
//! adam-v     Γ  = g / ( √(v/(1−β2^step)) + ε )
//! sgd        Γ  = g
//! ```
//!
//! `adam` is Definition 3.1 of Xia et al. (2024) with the bias correction and
//! the place of ε that AdamW itself has (Loshchilov and Hutter, 2019, as in
//! `torch.optim.AdamW`): what the optimizer's next step would be made of, had
//! this example alone been its batch. `less-code` is
//! `collect_grad_reps.py` of princeton-nlp/LESS, line 125, with its constants.
//! `adam-v` leaves out the momentum, which is the same for every example.
//!
//! The arithmetic is f32, as the optimizer's own; only the constants are
//! computed in f64.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::layout::ParamLayout;

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

    /// Writes Γ of a stretch of coordinates: `gradient`, `moments` and `out`
    /// are the same stretch, f32. Every coordinate is on its own, so a gradient
    /// may be cut into stretches at will.
    ///
    /// # Panics
    ///
    /// If the lengths differ, or if the kind [needs
    /// moments](Self::needs_moments) and there are none.
    pub fn write_direction(
        self,
        gradient: &[f32],
        moments: Option<MomentsSlice<'_>>,
        out: &mut [f32],
    ) {
        match (self, moments) {
            (Self::Sgd, _) => out.copy_from_slice(gradient),
            (_, None) => panic!("`{self}` needs the optimizer's moments"),
            (Self::Adam, Some(moments)) => moments.write_adam(gradient, out),
            (Self::LessCode, Some(moments)) => moments.write_less_code(gradient, out),
            (Self::AdamV, Some(moments)) => moments.write_adam_v(gradient, out),
        }
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

impl AdamRule {
    /// Whether these are constants of Adam: decays in `[0, 1)` and a finite ε
    /// that is not negative.
    pub fn is_possible(&self) -> bool {
        let is_decay = |beta: f64| (0.0..1.0).contains(&beta);
        is_decay(self.beta1) && is_decay(self.beta2) && (0.0..f64::INFINITY).contains(&self.epsilon)
    }

    /// `1 − β1^t` and `1 − β2^t` at `t = step + steps_ahead`.
    fn corrections(&self, steps_ahead: u64) -> (f64, f64) {
        let t = (self.step + steps_ahead) as f64;
        (1.0 - self.beta1.powf(t), 1.0 - self.beta2.powf(t))
    }

    /// p, q, r, s of `adam`'s m̂' = p·m + q·g and v̂' = r·v + s·g².
    pub(super) fn adam_coefficients(&self) -> [f32; 4] {
        let (correction1, correction2) = self.corrections(1);
        let [p, q] = [self.beta1, 1.0 - self.beta1].map(|x| (x / correction1) as f32);
        let [r, s] = [self.beta2, 1.0 - self.beta2].map(|x| (x / correction2) as f32);
        [p, q, r, s]
    }

    /// What makes v to the v̂ of `adam-v`.
    pub(super) fn adam_v_correction(&self) -> f32 {
        (1.0 / self.corrections(0).1) as f32
    }

    /// What `adam-v` multiplies a gradient by, from v: 1/(√v̂ + ε).
    fn adam_v_scale(&self) -> impl Fn(f32) -> f32 {
        let (correct, epsilon) = (self.adam_v_correction(), self.epsilon as f32);
        move |v| 1.0 / ((v * correct).sqrt() + epsilon)
    }
}

/// Adam's moments at a checkpoint, f32, `[grad_dim]` each, in the order of the
/// [`ParamLayout`].
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Constants and step count.
    pub rule: AdamRule,
    /// First moment m.
    pub exp_avg: Vec<f32>,
    /// Second moment v.
    pub exp_avg_sq: Vec<f32>,
}

/// Why [`Moments`] cannot belong to a checkpoint of a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MomentsError {
    /// They are of another number of coordinates.
    #[error("{found} moments for a gradient of {expected} coordinates")]
    Length {
        /// The gradient's.
        expected: usize,
        /// The moments'.
        found: usize,
    },
    /// No update stands behind them.
    #[error("moments of an optimizer that has taken no step")]
    NoStep,
    /// A decay rate outside `[0, 1)` or an ε that is negative or not finite.
    #[error("{0:?} are no constants of Adam")]
    Rule(AdamRule),
}

impl Moments {
    /// Checks that these moments are for gradients of `layout` and give finite
    /// bias corrections.
    ///
    /// # Errors
    ///
    /// The first thing found wrong.
    pub fn check(&self, layout: &ParamLayout) -> Result<(), MomentsError> {
        let expected = layout.grad_dim();
        for found in [self.exp_avg.len(), self.exp_avg_sq.len()] {
            if found != expected {
                return Err(MomentsError::Length { expected, found });
            }
        }
        if !self.rule.is_possible() {
            return Err(MomentsError::Rule(self.rule));
        }
        if self.rule.step == 0 { Err(MomentsError::NoStep) } else { Ok(()) }
    }

    /// The moments of the coordinates in `range`.
    ///
    /// # Panics
    ///
    /// If `range` passes the end.
    pub fn slice(&self, range: Range<usize>) -> MomentsSlice<'_> {
        MomentsSlice {
            rule: self.rule,
            exp_avg: &self.exp_avg[range.clone()],
            exp_avg_sq: &self.exp_avg_sq[range],
        }
    }
}

/// The [`Moments`] of a stretch of coordinates, f32.
#[derive(Clone, Copy, Debug)]
pub struct MomentsSlice<'a> {
    /// Constants and step count.
    pub rule: AdamRule,
    /// First moment m.
    pub exp_avg: &'a [f32],
    /// Second moment v.
    pub exp_avg_sq: &'a [f32],
}

impl MomentsSlice<'_> {
    fn write_adam(&self, gradient: &[f32], out: &mut [f32]) {
        let [p, q, r, s] = self.rule.adam_coefficients();
        let epsilon = self.rule.epsilon as f32;
        self.map(gradient, out, |g, m, v| (p * m + q * g) / ((r * v + s * g * g).sqrt() + epsilon));
    }

    fn write_less_code(&self, gradient: &[f32], out: &mut [f32]) {
        self.map(gradient, out, |g, m, v| {
            (0.9 * m + 0.1 * g) / (0.999 * v + 0.001 * g * g + 1e-8).sqrt()
        });
    }

    fn write_adam_v(&self, gradient: &[f32], out: &mut [f32]) {
        let scale = self.rule.adam_v_scale();
        self.map(gradient, out, |g, _, v| g * scale(v));
    }

    /// `out[i] = direction(g[i], m[i], v[i])`, in a loop the compiler can vectorize.
    fn map(&self, gradient: &[f32], out: &mut [f32], direction: impl Fn(f32, f32, f32) -> f32) {
        let n = out.len();
        assert!(
            gradient.len() == n && self.exp_avg.len() == n && self.exp_avg_sq.len() == n,
            "gradient, moments and direction are of one stretch"
        );
        let moments = self.exp_avg.iter().zip(self.exp_avg_sq);
        for ((out, g), (m, v)) in out.iter_mut().zip(gradient).zip(moments) {
            *out = direction(*g, *m, *v);
        }
    }
}

/// Kinds of gradient made ready for one checkpoint: what does not depend on the
/// gradient is computed once.
#[derive(Debug)]
pub struct Directions<'a> {
    kinds: &'a [GradientKind],
    moments: Option<&'a Moments>,
    /// 1/(√v̂ + ε), `[grad_dim]`; empty where no kind is `adam-v`.
    adam_v_scale: Vec<f32>,
}

impl<'a> Directions<'a> {
    /// Makes `kinds` ready. Holds 4 bytes a coordinate for `adam-v`.
    ///
    /// # Panics
    ///
    /// If a kind [needs moments](GradientKind::needs_moments) and there are none.
    pub fn new(kinds: &'a [GradientKind], moments: Option<&'a Moments>) -> Self {
        let needs_moments = kinds.iter().any(|kind| kind.needs_moments());
        assert!(moments.is_some() || !needs_moments, "{kinds:?} need the optimizer's moments");
        let scaled = moments.filter(|_| kinds.contains(&GradientKind::AdamV));
        let adam_v_scale = scaled.map_or_else(Vec::new, |moments| {
            let scale = moments.rule.adam_v_scale();
            moments.exp_avg_sq.iter().map(|v| scale(*v)).collect()
        });
        Self { kinds, moments, adam_v_scale }
    }

    /// The kinds, in the order given.
    pub fn kinds(&self) -> &'a [GradientKind] {
        self.kinds
    }

    /// Writes Γ of the coordinates `range` of the whole gradient, the same bits
    /// as [`GradientKind::write_direction`]. `gradient` and `out` are that
    /// stretch, f32.
    ///
    /// # Panics
    ///
    /// If lengths differ, or `kind` is none of those made ready.
    pub fn write(
        &self,
        kind: GradientKind,
        range: Range<usize>,
        gradient: &[f32],
        out: &mut [f32],
    ) {
        if kind == GradientKind::AdamV {
            let scale = &self.adam_v_scale[range];
            assert!(gradient.len() == out.len() && scale.len() == out.len(), "of one stretch");
            for ((out, g), scale) in out.iter_mut().zip(gradient).zip(scale) {
                *out = g * scale;
            }
        } else {
            let moments = self.moments.filter(|_| kind.needs_moments());
            kind.write_direction(gradient, moments.map(|moments| moments.slice(range)), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: AdamRule = AdamRule { beta1: 0.85, beta2: 0.99, epsilon: 1e-6, step: 3 };

    fn moments(exp_avg: Vec<f32>, exp_avg_sq: Vec<f32>) -> Moments {
        Moments { rule: RULE, exp_avg, exp_avg_sq }
    }

    #[test]
    fn a_gradient_may_be_cut_anywhere() {
        let g = [0.5, -0.25, 2.0, 0.125, -3.0];
        let moments = moments(vec![0.1; 5], vec![0.2; 5]);
        for kind in GradientKind::ALL {
            let mut whole = [0.0; 5];
            kind.write_direction(&g, Some(moments.slice(0..5)), &mut whole);
            let mut cut = [0.0; 5];
            for range in [0..2, 2..5] {
                let slice = moments.slice(range.clone());
                kind.write_direction(&g[range.clone()], Some(slice), &mut cut[range]);
            }
            assert_eq!(whole.map(f32::to_bits), cut.map(f32::to_bits));
        }
    }

    #[test]
    fn less_code_ignores_the_optimizers_constants() {
        let direction = |rule| {
            let moments = Moments { rule, exp_avg: vec![0.3], exp_avg_sq: vec![0.04] };
            let mut out = [0.0];
            GradientKind::LessCode.write_direction(&[0.5], Some(moments.slice(0..1)), &mut out);
            out[0]
        };
        let other = AdamRule { beta1: 0.5, beta2: 0.5, epsilon: 0.5, step: 9 };
        assert_eq!(direction(RULE).to_bits(), direction(other).to_bits());
    }

    #[test]
    fn moments_that_cannot_be_are_refused() {
        let layout = ParamLayout::new([("a".into(), vec![2])]);
        let good = moments(vec![0.0; 2], vec![0.0; 2]);
        assert_eq!(good.check(&layout), Ok(()));
        let short = moments(vec![0.0; 2], vec![0.0; 1]);
        assert_eq!(short.check(&layout), Err(MomentsError::Length { expected: 2, found: 1 }));
        let fresh = Moments { rule: AdamRule { step: 0, ..RULE }, ..good.clone() };
        assert_eq!(fresh.check(&layout), Err(MomentsError::NoStep));
        let rule = AdamRule { beta2: 1.0, ..RULE };
        assert_eq!(Moments { rule, ..good }.check(&layout), Err(MomentsError::Rule(rule)));
    }
}
