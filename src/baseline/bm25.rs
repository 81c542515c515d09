//! Okapi BM25: rows that share rare tokens with a target example.
//!
//! Robertson and Zaragoza, 2009, *The Probabilistic Relevance Framework: BM25 and
//! Beyond*. A pool row z is a document, its terms are its token ids (prompt, answer and
//! what the chat template writes between them), and a target example q is a query:
//!
//! ```text
//! BM25(q, z)  = 1/|q| · Σ_{t ∈ q} idf(t) · f(t, z) · (k₁ + 1) / (f(t, z) + k₁ · (1 − b + b · |z| / mean |z|))
//! idf(t)      = ln(1 + (N − n(t) + ½) / (n(t) + ½))
//! ```
//!
//! k₁ = 1.5, b = 0.75; f counts t in z, n(t) the rows with t among all N, |·| tokens. A
//! token that stands in q twice counts twice. The idf is Lucene's, which is never
//! negative, so the template's tokens, which every row has, weigh next to nothing.
//! Dividing by |q| ranks the rows as the plain sum does and lets a subtask's examples,
//! whose mean is the subtask's score, count alike however long they are.
//!
//! Token ids and not words: what the model reads, without a rule where a word ends,
//! which many languages do not have.

use std::collections::BTreeMap;

use super::compare::{Compare, Postings, read_columns, subtask_means};
use crate::gradient::collect::ExampleSource;
use crate::influence::example_scores::TargetExamples;
use crate::pool::{Example, PoolError};
use crate::progress::Observer;

/// How soon another occurrence of a term counts for little.
pub const K1: f64 = 1.5;

/// How much a long document's terms count for less, of 1.
pub const B: f64 = 0.75;

/// Rows read at once.
const BLOCK_ROWS: usize = 4096;

/// A target's examples as queries to one pool.
pub struct Bm25 {
    targets: TargetExamples,
    /// `idf · f(t, q) / |q|` by term and query.
    queries: Postings,
    /// Tokens of a row, on average.
    mean_length: f64,
}

impl Bm25 {
    /// Counts in how many rows of `pool` each term of `target` stands. In memory are the
    /// target and a block of rows.
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
        let idf = idf(pool, observer)?;
        let mut weights = BTreeMap::new();
        for (column, example) in (0..).zip(&examples) {
            let share = 1.0 / example.token_ids.len() as f64;
            for term in &example.token_ids {
                *weights.entry((*term, column)).or_insert(0.0) += share * idf(*term);
            }
        }
        let n_tokens: u64 = pool.rows().iter().map(|row| u64::from(row.n_tokens)).sum();
        let mean_length = n_tokens as f64 / pool.rows().len().max(1) as f64;
        Ok(Self { targets, queries: Postings::new(&weights), mean_length })
    }
}

impl Compare for Bm25 {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn write(&self, example: &Example, by_example: &mut [f32], by_subtask: &mut [f32]) {
        let mut terms = example.token_ids.clone();
        // In one order, for sums of floating point.
        terms.sort_unstable();
        let length = K1 * (1.0 - B + B * terms.len() as f64 / self.mean_length);
        let mut scores = vec![0.0; by_example.len()];
        for equal in terms.chunk_by(|a, b| a == b) {
            let count = equal.len() as f64;
            let saturated = count * (K1 + 1.0) / (count + length);
            for (column, weight) in self.queries.of(equal[0]) {
                scores[*column as usize] += weight * saturated;
            }
        }
        by_example.iter_mut().zip(&scores).for_each(|(out, score)| *out = *score as f32);
        subtask_means(&self.targets, by_example, by_subtask);
    }
}

/// The idf of a term.
fn idf(
    pool: &dyn ExampleSource,
    observer: &dyn Observer,
) -> Result<impl Fn(u32) -> f64, PoolError> {
    // Rows with each term.
    let mut n_with: Vec<u32> = Vec::new();
    let n_rows = pool.rows().len();
    for start in (0..n_rows).step_by(BLOCK_ROWS) {
        if observer.is_interrupted() {
            return Err(PoolError::Interrupted);
        }
        for mut example in pool.examples(start..n_rows.min(start + BLOCK_ROWS))? {
            example.token_ids.sort_unstable();
            example.token_ids.dedup();
            let last = example.token_ids.last().map_or(0, |last| *last as usize);
            n_with.resize(n_with.len().max(last + 1), 0);
            example.token_ids.iter().for_each(|term| n_with[*term as usize] += 1);
        }
    }
    Ok(move |term: u32| {
        let n = f64::from(n_with.get(term as usize).copied().unwrap_or(0));
        ((n_rows as f64 - n + 0.5) / (n + 0.5)).ln_1p()
    })
}
