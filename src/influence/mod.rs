//! Influence of every pool example on every subtask of the target.

pub mod scores;

use serde::{Deserialize, Serialize};

/// How a subtask's target examples are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// The mean of the cosines with each target example (the released code).
    MeanOfCosines,
    /// The cosine with the mean of the target gradients (the paper).
    CosineOfMean,
}

impl std::str::FromStr for Aggregation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "mean-of-cosines" => Ok(Self::MeanOfCosines),
            "cosine-of-mean" => Ok(Self::CosineOfMean),
            _ => Err(()),
        }
    }
}
