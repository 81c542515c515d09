//! What LESS is compared with, each against a slow, obvious twin or numbers by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use less_select::baseline::bm25::Bm25;
use less_select::baseline::compare::{Compare, compare};
use less_select::baseline::ngram::Ngram;
use less_select::baseline::rds;
use less_select::first_pass::losses::Losses;
use less_select::first_pass::{Predict, Represent};
use less_select::influence::example_scores::ExampleScores;
use less_select::influence::example_scores_file::is_cosines;
use less_select::influence::scores::ScoreTable;
use less_select::pool::Example;
use less_select::progress::Silent;

use crate::toy::{self, Table};

/// A table of these token ids, the last of each row supervised.
fn table(rows: &[&[u32]]) -> Table {
    let example = |token_ids: &&[u32]| {
        let supervised: Vec<_> = (1..=token_ids.len()).map(|at| at == token_ids.len()).collect();
        toy::example(token_ids, &supervised)
    };
    toy::table(rows.iter().map(|row| (example(row), "toy", None)))
}

/// The scores of `pool`'s rows with the first of the target's examples, by token ids.
fn by_tokens(with: &impl Compare, pool: &Table) -> BTreeMap<Vec<u32>, f32> {
    let scores = compare(with, pool, &Silent).unwrap();
    let rows = pool.examples.iter().zip(&scores.rows);
    rows.map(|(example, row)| (example.token_ids.clone(), row.by_subtask[0])).collect()
}

#[track_caller]
fn check(found: &BTreeMap<Vec<u32>, f32>, token_ids: &[u32], expected: f64) {
    approx::assert_abs_diff_eq!(f64::from(found[token_ids]), expected, epsilon = 1e-6);
}

/// By hand, with idf(1) = ln(1 + 0.5 / 3.5), idf(2) = idf(6) = ln(1 + 2.5 / 1.5), and
/// nothing for 9, which no row has; a mean length of 4; and 6 counting twice.
#[test]
fn bm25_is_what_the_formula_gives() {
    let pool = table(&[&[1, 2, 3], &[1, 1, 4, 5, 6, 6], &[1, 7, 3]]);
    let target = table(&[&[2, 6, 6, 1, 9]]);
    let found = by_tokens(&Bm25::new(&pool, &target, &Silent).unwrap(), &pool);
    check(&found, &[1, 2, 3], 0.251_123_525_777_182_9);
    check(&found, &[1, 1, 4, 5, 6, 6], 0.515_739_051_974_886_2);
    check(&found, &[1, 7, 3], 0.030_091_581_436_512_13);
}

/// By hand: the pool's six n-grams are 1 twice and 2, 3, 12 and 13 once; the target's are
/// 1, 2 and 12. So their ratios are 1, 2 and 2.
#[test]
fn ngram_weights_are_what_the_formula_gives() {
    let pool = table(&[&[1, 2], &[1, 3]]);
    let target = table(&[&[1, 2]]);
    let found = by_tokens(&Ngram::new(&pool, &target, &Silent).unwrap(), &pool);
    let ln = f64::ln;
    check(&found, &[1, 2], ln(0.5) + (ln(2.0) + 2.0 * ln(3.0)) / 3.0);
    check(&found, &[1, 3], ln(0.5) + ln(2.0) / 3.0);
}

/// Every row with every target example, by a formula that looks at all of the pool.
fn matrix(pool: &Table, target: &Table, score: impl Fn(&Example, &Example) -> f64) -> Vec<f64> {
    let with = |row| target.examples.iter().map(|other| score(row, other)).collect::<Vec<_>>();
    pool.examples.iter().flat_map(with).collect()
}

fn by_example(with: &impl Compare, pool: &Table) -> Vec<f32> {
    let (n_targets, n_subtasks) = (with.targets().examples.len(), with.targets().subtasks.len());
    let scores = |example: &Example| {
        let (mut by_example, mut by_subtask) = (vec![0.0; n_targets], vec![0.0; n_subtasks]);
        with.write(example, &mut by_example, &mut by_subtask);
        by_example
    };
    pool.examples.iter().flat_map(scores).collect()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        approx::assert_relative_eq!(
            f64::from(*found),
            expected,
            epsilon = 1e-6,
            max_relative = 1e-5
        );
    }
}

#[test]
fn bm25_is_what_a_search_of_every_row_for_every_token_finds() {
    let (pool, target) = (toy::pool(60, 1), toy::target(2));
    let n_rows = pool.examples.len() as f64;
    let n_tokens: usize = pool.examples.iter().map(|row| row.token_ids.len()).sum();
    let count = |row: &Example, term: u32| row.token_ids.iter().filter(|id| **id == term).count();
    let slow = |row: &Example, query: &Example| {
        let length = row.token_ids.len() as f64 / (n_tokens as f64 / n_rows);
        let of_term = |term: &u32| {
            let n_with = pool.examples.iter().filter(|row| count(row, *term) > 0).count() as f64;
            let idf = (1.0 + (n_rows - n_with + 0.5) / (n_with + 0.5)).ln();
            let f = count(row, *term) as f64;
            idf * f * (1.5 + 1.0) / (f + 1.5 * (1.0 - 0.75 + 0.75 * length))
        };
        let sum: f64 = query.token_ids.iter().map(of_term).sum();
        sum / query.token_ids.len() as f64
    };
    let bm25 = Bm25::new(&pool, &target, &Silent).unwrap();
    assert_close(&by_example(&bm25, &pool), &matrix(&pool, &target, slow));
}

/// Tokens and pairs of neighbors, unhashed.
fn ngrams(examples: &[&Example]) -> BTreeMap<Vec<u32>, f64> {
    let mut counts = BTreeMap::new();
    for token_ids in examples.iter().map(|example| &example.token_ids) {
        for ngram in token_ids.windows(1).chain(token_ids.windows(2)) {
            *counts.entry(ngram.to_vec()).or_insert(0.0) += 1.0;
        }
    }
    counts
}

/// Six tokens have 42 n-grams at most, and no two of them share a bucket.
#[test]
fn ngram_weights_are_those_of_unhashed_counts() {
    let few = |table: &Table| {
        let rows: Vec<Vec<u32>> = table
            .examples
            .iter()
            .map(|row| row.token_ids.iter().map(|token_id| token_id % 6).collect())
            .collect();
        self::table(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let (pool, target) = (few(&toy::pool(60, 1)), few(&toy::target(2)));
    let all = ngrams(&pool.examples.iter().collect::<Vec<_>>());
    let total: f64 = all.values().sum();
    let slow = |row: &Example, others: &[&Example]| {
        let (own, theirs) = (ngrams(&[row]), ngrams(others));
        let (n_own, n_theirs): (f64, f64) = (own.values().sum(), theirs.values().sum());
        let weight = |(ngram, count): (&Vec<u32>, &f64)| {
            let in_pool = all[ngram] / total;
            let in_target = theirs.get(ngram).copied().unwrap_or(0.0) / n_theirs;
            count * (0.5 * (in_target + in_pool) / in_pool).ln()
        };
        own.iter().map(weight).sum::<f64>() / n_own
    };
    let ngram = Ngram::new(&pool, &target, &Silent).unwrap();
    let expected = matrix(&pool, &target, |row, other| slow(row, &[other]));
    assert_close(&by_example(&ngram, &pool), &expected);
    let subtask: Vec<_> = target.examples.iter().collect();
    let expected: Vec<_> = pool.examples.iter().map(|row| slow(row, &subtask)).collect();
    let found = compare(&ngram, &pool, &Silent).unwrap();
    assert_close(&found.rows.iter().map(|row| row.by_subtask[0]).collect::<Vec<_>>(), &expected);
}

/// A pool of random rows in which stand the target's examples, but for one token each.
fn planted(target: &Table) -> (Table, Vec<Example>) {
    let change = |original: &Example| {
        let mut token_ids = original.token_ids.clone();
        token_ids[0] = (token_ids[0] + 1) % toy::N_TOKENS;
        toy::example(&token_ids, &original.supervised)
    };
    // Shorter ones are found by chance, too.
    let long = target.examples.iter().filter(|example| example.token_ids.len() >= 12);
    let planted: Vec<_> = long.map(change).collect();
    let random = toy::random_examples(200, 11);
    let rows = random.into_iter().chain(planted.clone());
    (toy::table(rows.map(|example| (example, "toy", None))), planted)
}

#[track_caller]
fn assert_finds_the_planted(with: &impl Compare, pool: &Table, planted: &[Example]) {
    let (scores, n_targets) = (by_example(with, pool), with.targets().examples.len());
    let best = (0..n_targets).map(|column| {
        let score = |row: &usize| scores[row * n_targets + column];
        let best = (0..pool.examples.len()).max_by(|a, b| score(a).total_cmp(&score(b)));
        pool.examples[best.unwrap()].id
    });
    let best: Vec<_> = best.collect();
    assert!(planted.len() >= 3, "{} planted", planted.len());
    for example in planted {
        assert!(best.contains(&example.id), "{example:?} is best for none");
    }
}

#[test]
fn rows_planted_near_the_target_are_found() {
    let target = toy::target(2);
    let (pool, planted) = planted(&target);
    assert_finds_the_planted(&Bm25::new(&pool, &target, &Silent).unwrap(), &pool, &planted);
    assert_finds_the_planted(&Ngram::new(&pool, &target, &Silent).unwrap(), &pool, &planted);
}

#[test]
fn a_subtasks_bm25_is_the_mean_of_its_examples() {
    let (pool, target) = (toy::pool(30, 1), toy::target(2));
    let bm25 = Bm25::new(&pool, &target, &Silent).unwrap();
    let scores = compare(&bm25, &pool, &Silent).unwrap();
    assert_eq!(scores.subtasks, ["essay", "quiz/a", "quiz/b"]);
    let by_example = by_example(&bm25, &pool);
    let by_example = by_example.chunks(bm25.targets().examples.len());
    for (row, by_example) in scores.rows.iter().zip(by_example) {
        for (subtask, found) in (0..).zip(&row.by_subtask) {
            let own = by_example.iter().zip(&bm25.targets().examples);
            let own: Vec<_> = own.filter(|(_, of)| of.subtask == subtask).map(|(x, _)| x).collect();
            let mean = own.iter().copied().sum::<f32>() / own.len() as f32;
            approx::assert_relative_eq!(*found, mean, epsilon = 1e-6);
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (pool, target) = (toy::pool(300, 1), toy::target(2));
    let with_threads = |n: usize| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        threads.install(|| -> [ScoreTable; 2] {
            let bm25 = Bm25::new(&pool, &target, &Silent).unwrap();
            let ngram = Ngram::new(&pool, &target, &Silent).unwrap();
            [compare(&bm25, &pool, &Silent).unwrap(), compare(&ngram, &pool, &Silent).unwrap()]
        })
    };
    // No loss is known, and none is NaN.
    let scores = |tables: [ScoreTable; 2]| {
        tables.map(|table| table.rows.into_iter().map(|row| row.by_subtask).collect::<Vec<_>>())
    };
    assert_eq!(scores(with_threads(1)), scores(with_threads(4)));
}

/// Represents an example by its token counts; one that begins with token 0 not at all.
/// Its loss is its length, and infinite for such a one.
struct Counts;

impl Represent for Counts {
    type Error = std::convert::Infallible;

    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, Self::Error> {
        Ok(batch.iter().map(|example| counts(example)).collect())
    }
}

impl Predict for Counts {
    type Error = std::convert::Infallible;

    fn mean_losses(&mut self, batch: &[&Example]) -> Result<Vec<f32>, Self::Error> {
        let loss = |example: &&&Example| match example.token_ids[0] {
            0 => f32::INFINITY,
            _ => example.token_ids.len() as f32,
        };
        Ok(batch.iter().map(|example| loss(&example)).collect())
    }
}

fn counts(example: &Example) -> Vec<f32> {
    let mut counts = vec![0.0; toy::N_TOKENS as usize];
    if example.token_ids[0] != 0 {
        example.token_ids.iter().for_each(|token_id| counts[*token_id as usize] += 1.0);
    }
    counts
}

fn cosine(a: &Example, b: &Example) -> f64 {
    let (a, b) = (counts(a), counts(b));
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

/// The cosines of a pool with a target, from their file.
fn likeness(pool: &Table, target: &Table, batch_tokens: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let found =
        rds::write_likeness(&mut Counts, pool, target, batch_tokens, dir.path(), &Silent).unwrap();
    let path = found.into_iter().map(|(path, _)| path).find(|path| is_cosines(path));
    (dir, path.unwrap())
}

#[test]
fn rds_is_the_cosine_of_every_row_with_every_target_example() {
    let (pool, target) = (toy::pool(60, 1), toy::target(2));
    for batch_tokens in [1, 64, 100_000] {
        let (_dir, path) = likeness(&pool, &target, batch_tokens);
        let cosines = ExampleScores::open(&[path]).unwrap();
        let expected = matrix(&pool, &target, cosine);
        for (found, expected) in cosines.total(0..pool.rows.len()).iter().zip(&expected) {
            if expected.is_nan() {
                assert!(found.is_nan());
            } else {
                approx::assert_abs_diff_eq!(f64::from(*found), expected, epsilon = 1e-6);
            }
        }
    }
}

#[test]
fn a_row_without_a_representation_is_flagged_and_others_get_their_subtasks_means() {
    let (pool, target) = (toy::pool(60, 1), toy::target(2));
    let (_dir, path) = likeness(&pool, &target, 64);
    let scores = rds::rds(&ExampleScores::open(&[path]).unwrap(), &pool.rows);
    let n_flagged = scores.rows.iter().filter(|row| row.flag.is_some()).count();
    assert!((1..30).contains(&n_flagged), "{n_flagged}");
    for (example, row) in pool.examples.iter().zip(&scores.rows) {
        assert_eq!(row.flag.is_some(), example.token_ids[0] == 0);
        for (subtask, found) in scores.subtasks.iter().zip(&row.by_subtask) {
            let is_own = |head: &&less_select::pool::table::TableRow| {
                *subtask == less_select::influence::index::subtask_name(head)
            };
            let members = target.rows.iter().zip(&target.examples);
            let cosines: Vec<_> = members
                .filter(|(head, _)| is_own(head))
                .map(|(_, other)| cosine(example, other))
                .collect();
            let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
            approx::assert_abs_diff_eq!(f64::from(*found), mean, epsilon = 1e-6);
        }
    }
}

#[test]
fn losses_come_back_from_their_file_and_what_is_not_finite_is_none() {
    let pool = toy::pool(60, 1);
    let found = Losses::of(&mut Counts, &pool, 64, &Silent).unwrap();
    for (example, loss) in pool.examples.iter().zip(&found.losses) {
        match example.token_ids[0] {
            0 => assert!(loss.is_nan()),
            _ => approx::assert_relative_eq!(*loss, example.token_ids.len() as f32),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("losses.parquet");
    found.write(&path).unwrap();
    let read = Losses::read(&path).unwrap();
    assert_eq!(read.ids, found.ids);
    assert_eq!(format!("{:?}", read.losses), format!("{:?}", found.losses));
    let other = less_select::cascade::Similarities::read(&path).unwrap_err();
    insta::assert_snapshot!(other.kind, @"does not have the columns `id` and `similarity`");
}
