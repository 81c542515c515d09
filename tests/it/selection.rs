//! From scores to the rows of a subset.

use std::io;

use less_select::selection::export::subset_rows;

use crate::scored_pool::ScoredPool;

#[test]
fn the_source_that_serves_the_target_fills_the_subset() {
    let pool = ScoredPool::new(400);
    let subset = pool.subset("4%");
    assert_eq!(subset.len(), 16);
    assert!(subset.iter().all(|row| row.source == "gsm8k"));
}

#[test]
fn rows_carry_their_own_record_in_rank_order() {
    let pool = ScoredPool::new(400);
    for (rank, row) in (1..).zip(pool.subset("10%")) {
        let position = pool.scores.rows.iter().position(|scored| scored.id == row.id).unwrap();
        assert_eq!(row.rank, rank);
        assert_eq!(row.record, pool.records[position]);
    }
}

#[test]
fn records_are_asked_for_once_in_ascending_order() {
    let pool = ScoredPool::new(100);
    let mut asked = Vec::new();
    let selected = pool.top("20");
    let failed = subset_rows(&pool.scores, &selected, |positions| {
        asked = positions.to_vec();
        Err(io::Error::other("no such file"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no such file");
    assert_eq!(asked.len(), 20);
    assert!(asked.is_sorted());
}

#[test]
fn a_larger_token_budget_keeps_what_a_smaller_one_kept() {
    let pool = ScoredPool::new(200);
    let (small, large) = (pool.subset("500 tokens"), pool.subset("1k tokens"));
    assert!(small.len() < large.len());
    assert_eq!(small[..], large[..small.len()]);
    let n_tokens: u32 = large.iter().map(|row| row.n_tokens).sum();
    assert!(n_tokens <= 1000);
}
