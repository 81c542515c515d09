//! How the pool's rows are scored: LESS, and what it is compared with.

use serde::{Deserialize, Serialize};

use crate::stage::Stage;

/// A way to score the rows of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Cosines of gradients at the checkpoints of a warm-up.
    Less,
    /// Cosines of last hidden states, by one forward pass.
    Rds,
    /// Words shared with the target's examples, rare ones weighing more.
    Bm25,
    /// Importance weights of hashed n-grams.
    Ngram,
    /// The longest answers.
    Length,
    /// Losses in the middle of the pool's, by one forward pass.
    Perplexity,
    /// A draw.
    Random,
    /// A draw with equal numbers from every source.
    RandomBalanced,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 8] = [
        Self::Less,
        Self::Rds,
        Self::Bm25,
        Self::Ngram,
        Self::Length,
        Self::Perplexity,
        Self::Random,
        Self::RandomBalanced,
    ];

    /// Their names, for a message.
    pub const CHOICES: &str =
        "less, rds, bm25, ngram, length, perplexity, random or random-balanced";

    /// The name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Less => "less",
            Self::Rds => "rds",
            Self::Bm25 => "bm25",
            Self::Ngram => "ngram",
            Self::Length => "length",
            Self::Perplexity => "perplexity",
            Self::Random => "random",
            Self::RandomBalanced => "random-balanced",
        }
    }

    /// The method and its paper, as a subset's provenance has them.
    pub fn source(self) -> &'static str {
        match self {
            Self::Less => "LESS (Xia et al., ICML 2024)",
            Self::Rds => "RDS+ (Ivison et al., 2025)",
            Self::Bm25 => "BM25 (Robertson and Zaragoza, 2009)",
            Self::Ngram => {
                "hashed n-gram importance weights (after DSIR, Xie et al., NeurIPS 2023)"
            }
            Self::Length => "longest answers (Zhao et al., ICML 2024)",
            Self::Perplexity => "Mid-PPL (Marion et al., 2023; Yin and Rush, ICLR 2025)",
            Self::Random => "random",
            Self::RandomBalanced => "random, balanced by source",
        }
    }

    /// Which examples of a pool it chooses: `the examples of an instruction pool …`.
    pub fn chooses(self) -> &'static str {
        match self {
            Self::Less => "whose gradients serve a target skill best",
            Self::Rds => "whose last hidden states are most like those of a target's examples",
            Self::Bm25 => "that have most of the rare tokens of a target's examples",
            Self::Ngram => "whose tokens and pairs of tokens are the most a target's own",
            Self::Length => "with the longest answers, whatever the target is",
            Self::Perplexity => {
                "whose loss under the model is nearest to the pool's median, whatever the target is"
            }
            Self::Random => "that a draw gave",
            Self::RandomBalanced => "that a draw of equal numbers from every source gave",
        }
    }

    /// What a score is, as the card and the report say it.
    pub fn score(self) -> &'static str {
        match self {
            Self::Less => {
                "the influence on the subtask it was taken for: a mean of gradient cosines, \
                 weighted by the checkpoints’ learning rates"
            }
            Self::Rds => {
                "the likeness to the subtask it was taken for: a mean of cosines of last hidden \
                 states"
            }
            Self::Bm25 => {
                "the BM25 score on the subtask it was taken for: a mean over the target’s tokens \
                 and examples"
            }
            Self::Ngram => {
                "the log importance weight on the subtask it was taken for, a mean over the row’s \
                 n-grams"
            }
            Self::Length => "the number of tokens that carry loss",
            Self::Perplexity => {
                "1 for the row whose loss is the pool’s median, 0 for the lowest and the highest"
            }
            Self::Random => "a number drawn from the seed and the row’s content",
            Self::RandomBalanced => "the share of the pool that the draw puts behind the row",
        }
    }

    /// Whether it needs a warm-up's checkpoints, and gradients at them.
    pub fn takes_gradients(self) -> bool {
        self == Self::Less
    }

    /// Whether it needs one forward pass of the model over the pool.
    pub fn takes_first_pass(self) -> bool {
        matches!(self, Self::Rds | Self::Perplexity)
    }

    /// Whether it compares rows with the target's examples.
    pub fn has_target(self) -> bool {
        matches!(self, Self::Less | Self::Rds | Self::Bm25 | Self::Ngram)
    }

    /// Whether a run by this method has `stage`, with or without the cascade.
    pub fn takes(self, stage: Stage, has_cascade: bool) -> bool {
        match stage {
            Stage::Warmup | Stage::Gradients | Stage::Index => self.takes_gradients(),
            Stage::FirstPass => self.takes_first_pass() || self.takes_gradients() && has_cascade,
            Stage::Ingest | Stage::Score | Stage::Select | Stage::Report => true,
        }
    }

    /// Whether it draws random numbers after ingest.
    pub fn is_drawn(self) -> bool {
        matches!(self, Self::Random | Self::RandomBalanced)
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Method {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or(())
    }
}
