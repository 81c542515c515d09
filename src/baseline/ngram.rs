//! Hashed n-gram importance: rows whose tokens and pairs of tokens are the target's own.
//!
//! After DSIR (Xie et al., 2023, *Data Selection for Language Models via Importance
//! Resampling*): the n-grams g of an example, its token ids and pairs of neighbors, are
//! hashed into 10,000 buckets, a distribution over buckets is fitted to the target and
//! one to the pool, and a row is worth the log of their ratio,
//!
//! ```text
//! w(z) = 1/|z| · Σ_{g ∈ z} ln( p(g) / p_pool(g) )        p = ½ · p_target + ½ · p_pool
//! ```
//!
//! with `p_target` the shares of a target example's n-grams, or of all n-grams of a
//! subtask's examples. What differs from DSIR, and why:
//!
//! - its target is a corpus, ours a handful of examples that lack most n-grams of any
//!   row; so p is half the pool's, and an n-gram that the target lacks costs ln 2;
//! - its weight is the sum over n-grams, which with a target of few examples is least
//!   negative for the shortest rows; ours is the mean;
//! - it draws rows by their weights, ours are ranked by them, as all methods' are here;
//! - token ids, not lower-cased words.

use std::collections::BTreeMap;

use super::compare::{Compare, Postings, read_columns};
use crate::gradient::collect::ExampleSource;
use crate::influence::example_scores::TargetExamples;
use crate::pool::{Example, PoolError};
use crate::progress::Observer;

/// Buckets that n-grams are hashed into: DSIR's number.
pub const N_BUCKETS: u32 = 10_000;

/// Rows read at once.
const BLOCK_ROWS: usize = 4096;

/// A target's distributions over buckets, beside a pool's.
pub struct Ngram {
    targets: TargetExamples,
    /// What an n-gram of a bucket adds to `ln ½`: a column a target example, then one a
    /// subtask.
    gains: Postings,
}

impl Ngram {
    /// Fits the distributions. In memory are the target and a block of rows.
    ///
    /// # Errors
    ///
    /// If a table cannot be read, or somebody asked to stop.
    pub fn new(
        pool: &dyn ExampleSource,
        target: &dyn ExampleSource,
        observer: &dyn Observer,
    ) -> Result<Self, PoolError> {
        let (targets, examples) = read_columns(target)?;
        let pool = pool_shares(pool, observer)?;
        let n_columns = targets.examples.len() + targets.subtasks.len();
        let mut counts = BTreeMap::<(u32, u32), f64>::new();
        let mut totals = vec![0.0; n_columns];
        for ((column, of), example) in (0..).zip(&targets.examples).zip(&examples) {
            let subtask = targets.examples.len() as u32 + of.subtask;
            for bucket in buckets(example) {
                for column in [column, subtask] {
                    *counts.entry((bucket, column)).or_default() += 1.0;
                    totals[column as usize] += 1.0;
                }
            }
        }
        // ln(½ · (p_target + p_pool) / p_pool) = ln ½ + ln(1 + p_target / p_pool)
        for ((bucket, column), count) in &mut counts {
            *count = (*count / totals[*column as usize] / pool[*bucket as usize]).ln_1p();
        }
        Ok(Self { targets, gains: Postings::new(&counts) })
    }
}

impl Compare for Ngram {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn write(&self, example: &Example, by_example: &mut [f32], by_subtask: &mut [f32]) {
        let mut sums = vec![0.0; by_example.len() + by_subtask.len()];
        let mut n_ngrams = 0.0;
        for bucket in buckets(example) {
            n_ngrams += 1.0;
            for (column, gain) in self.gains.of(bucket) {
                sums[*column as usize] += gain;
            }
        }
        let out = by_example.iter_mut().chain(by_subtask);
        out.zip(&sums).for_each(|(out, sum)| *out = (0.5_f64.ln() + sum / n_ngrams) as f32);
    }
}

/// Each bucket's share of the pool's n-grams. A bucket that no row hits, and so is asked
/// for by none, has that of half an n-gram.
fn pool_shares(pool: &dyn ExampleSource, observer: &dyn Observer) -> Result<Vec<f64>, PoolError> {
    let mut counts = vec![0_u64; N_BUCKETS as usize];
    let n_rows = pool.rows().len();
    for start in (0..n_rows).step_by(BLOCK_ROWS) {
        if observer.is_interrupted() {
            return Err(PoolError::Interrupted);
        }
        for example in pool.examples(start..n_rows.min(start + BLOCK_ROWS))? {
            buckets(&example).for_each(|bucket| counts[bucket as usize] += 1);
        }
    }
    let total = counts.iter().sum::<u64>().max(1) as f64;
    Ok(counts.into_iter().map(|count| (count as f64).max(0.5) / total).collect())
}

/// The buckets of an example's tokens and of its pairs of neighbors.
fn buckets(example: &Example) -> impl Iterator<Item = u32> {
    let token_ids = &example.token_ids;
    // A token alone is no pair: a pair's hash has its first token plus one in front.
    let singles = token_ids.iter().map(|token_id| u64::from(*token_id));
    let pairs =
        token_ids.windows(2).map(|pair| (u64::from(pair[0]) + 1) << 32 | u64::from(pair[1]));
    singles.chain(pairs).map(bucket)
}

/// An n-gram's bucket, the same on every machine: the finalizer of `SplitMix64` (Steele et
/// al., 2014), whose bits each depend on all bits of `ngram`.
fn bucket(ngram: u64) -> u32 {
    let mut mixed = ngram.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ mixed >> 31) % u64::from(N_BUCKETS)) as u32
}
