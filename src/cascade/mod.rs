//! The cascade: a cheap first pass over the pool, so that gradients are
//! computed for its best share only. Off unless asked for.
//!
//! The first pass is RDS+ (Ivison et al., 2025, *Large-Scale Data Selection for
//! Instruction Tuning*): one forward pass of the model as it comes, without an
//! adapter. An example z of n tokens is represented by the mean of its last
//! hidden states, later positions weighing more,
//!
//! ```text
//! h(z) = Σ_i (i / Σ_j j) · h_i           i, j = 1..n
//! sim(z, subtask) = mean_{z' ∈ subtask} cos( h(z), h(z') )
//! sim(z)          = max over subtasks
//! ```
//!
//! and the share of the pool with the highest similarities goes on. A share of
//! all costs the first pass and leaves nothing out: then [`recall`] says what a
//! smaller share would have kept of the selection.

pub mod first_pass;
pub mod kept;
#[cfg(feature = "torch")]
mod lora;
pub mod recall;
pub mod similarities_file;

use crate::pool::{Example, ExampleId};

/// A model that represents an example by one vector.
pub trait Represent {
    /// Why a batch failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The representations h of a batch, f32, one an example, all of one length.
    ///
    /// # Errors
    ///
    /// When the computation itself fails.
    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, Self::Error>;
}

/// What the first pass found, in order of id.
#[derive(Clone, Debug, PartialEq)]
pub struct Similarities {
    /// The pool's examples.
    pub ids: Vec<ExampleId>,
    /// sim(z), a cosine each; NaN where a representation is zero or not finite.
    pub similarities: Vec<f32>,
}
