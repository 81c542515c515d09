//! The cascade: a cheap first pass over the pool, so that gradients are
//! computed for its best share only. Off unless asked for.
//!
//! The first pass is RDS+ ([`likeness`](crate::first_pass::likeness)), joined as the
//! scores are:
//!
//! ```text
//! sim(z, subtask) = mean_{z' ∈ subtask} cos( h(z), h(z') )
//! sim(z)          = max over subtasks
//! ```
//!
//! and the share of the pool with the highest similarities goes on. A share of
//! all costs the first pass and leaves nothing out: then [`recall`] says what a
//! smaller share would have kept of the selection.

pub mod kept;
pub mod recall;
mod similarities;

pub use similarities::Similarities;
