//! Random projections from gradients of millions of coordinates to rows of a
//! few thousand that keep inner products.
//!
//! Every entry of the matrix is a function of the seed, the checkpoint, the
//! parameter's name and the coordinate's index, so it is the same on every
//! machine, for every thread count and batch, and independent from one
//! checkpoint to the next.

use serde::{Deserialize, Serialize};

/// How gradients are made short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionKind {
    /// Sparse Johnson–Lindenstrauss: each coordinate is added, with a random
    /// sign, to one random output (`CountSketch`).
    Sjlt,
    /// Dense ±1/√`proj_dim` signs.
    Rademacher,
    /// No projection: rows are whole gradients. For small models and tests.
    None,
}

impl std::str::FromStr for ProjectionKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "sjlt" => Ok(Self::Sjlt),
            "rademacher" => Ok(Self::Rademacher),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

/// The `projection` and `proj-dim` settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProjectionSettings {
    /// Which projection.
    pub kind: ProjectionKind,
    /// Length of a projected row: a power of two, at least 64. Ignored by `none`.
    pub proj_dim: usize,
}
