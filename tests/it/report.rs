//! The report of a selection, for people and for programs.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use fs_err as fs;
use less_select::diagnostics::Diagnostics;
use less_select::diagnostics::sketch::SketchHalves;
use less_select::diagnostics::target::{TargetHalves, WithoutCheckpoint};
use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::method::Method;
use less_select::pool::ExampleId;
use less_select::pool::table::Record;
use less_select::report::{
    CheckpointFacts, PoolAndSubset, Rejected, RunFacts, StageCost, Summary, text, write,
};
use less_select::selection::Selected;
use less_select::stage::Stage;
use serde_json::{Value, json};

use crate::scored_pool::{ScoredPool, turns};

fn facts() -> RunFacts {
    let Value::Object(settings) = json!({
        "budget": "0.05",
        "gradient": ["adam-v"],
        "lora": { "rank": 16, "targets": ["q_proj", "v_proj"] },
        "model": "SmolLM2-135M-Instruct",
    }) else {
        unreachable!("written as an object above")
    };
    let checkpoint = |epoch: u32, loss, learning_rate, weight| CheckpointFacts {
        name: format!("epoch-{epoch}"),
        step: u64::from(epoch) * 10,
        learning_rate,
        weight,
        loss: Some(loss),
    };
    let stage =
        |stage, seconds, summary: &str| StageCost { stage, seconds, summary: summary.to_owned() };
    RunFacts {
        name: "gsm8k from a mixture".to_owned(),
        version: "0.1.0".to_owned(),
        method: Method::Less,
        budget: "0.05".parse().unwrap(),
        cascade: None,
        subset: PathBuf::from("runs/gsm8k/subset-1a7e8a8b"),
        n_rejected: 0,
        rejected: Vec::new(),
        settings,
        checkpoints: vec![checkpoint(1, 1.912, 1.7e-4, 0.68), checkpoint(2, 1.604, 8e-5, 0.32)],
        stages: vec![
            stage(Stage::Ingest, 0.8, "400 examples of 3 sources"),
            stage(Stage::Gradients, 94.2, "2 × 400 rows of 8,192"),
        ],
        notes: Vec::new(),
    }
}

fn summary(pool: &ScoredPool, selected: &[Selected], run: RunFacts) -> Summary {
    quoting(40, pool, selected, run)
}

fn quoting(n_rows: usize, pool: &ScoredPool, selected: &[Selected], run: RunFacts) -> Summary {
    summary_of(n_rows, pool, selected, run, None)
}

fn summary_of(
    n_quoted: usize,
    pool: &ScoredPool,
    selected: &[Selected],
    run: RunFacts,
    diagnostics: Option<Diagnostics>,
) -> Summary {
    let read = |positions: &[usize]| -> Result<_, Infallible> {
        Ok(positions.iter().map(|position| pool.records[*position].clone()).collect())
    };
    Summary::new(&pool.scores, selected, run, diagnostics, n_quoted, read).unwrap()
}

fn page(summary: &Summary) -> String {
    let dir = tempfile::tempdir().unwrap();
    let html = dir.path().join("report.html");
    write(summary, &dir.path().join("report.json"), &html).unwrap();
    fs::read_to_string(html).unwrap()
}

#[test]
fn the_terminal_says_where_what_and_the_best() {
    let pool = ScoredPool::new(400);
    let summary = summary(&pool, &pool.top("5%"), facts());
    insta::assert_snapshot!(text(&summary), @r"
    Subset  runs/gsm8k/subset-1a7e8a8b
            20 of 400 examples (5.0%), 1,110 tokens

    Source     pool  share  selected   share   lift
    gsm8k        20   5.0%        20  100.0%  20.0×
    p3          200  50.0%         0    0.0%   0.0×
    role-play   180  45.0%         0    0.0%   0.0×

    Rank    Score  Source  Example
       1   0.3780  gsm8k   A school orders 8 boxes with 9 pencils each and gives away 5. How man…
                           → 8 boxes hold 8 × 9 = 72 pencils. After giving away 5, 67 are left. …
       2   0.3548  gsm8k   A school orders 5 boxes with 3 pencils each and gives away 5. How man…
                           → 5 boxes hold 5 × 3 = 15 pencils. After giving away 5, 10 are left. …
       3   0.3320  gsm8k   A school orders 2 boxes with 11 pencils each and gives away 5. How ma…
                           → 2 boxes hold 2 × 11 = 22 pencils. After giving away 5, 17 are left.…
       4   0.3277  gsm8k   A school orders 2 boxes with 3 pencils each and gives away 5. How man…
                           → 2 boxes hold 2 × 3 = 6 pencils. After giving away 5, 1 are left. ##…
       5   0.3273  gsm8k   A school orders 5 boxes with 11 pencils each and gives away 5. How ma…
                           → 5 boxes hold 5 × 11 = 55 pencils. After giving away 5, 50 are left.…
       6   0.3239  gsm8k   A school orders 3 boxes with 10 pencils each and gives away 5. How ma…
                           → 3 boxes hold 3 × 10 = 30 pencils. After giving away 5, 25 are left.…
       7   0.3224  gsm8k   A school orders 6 boxes with 5 pencils each and gives away 5. How man…
                           → 6 boxes hold 6 × 5 = 30 pencils. After giving away 5, 25 are left. …
       8   0.3211  gsm8k   A school orders 7 boxes with 7 pencils each and gives away 5. How man…
                           → 7 boxes hold 7 × 7 = 49 pencils. After giving away 5, 44 are left. …
       9   0.3206  gsm8k   A school orders 4 boxes with 9 pencils each and gives away 5. How man…
                           → 4 boxes hold 4 × 9 = 36 pencils. After giving away 5, 31 are left. …
      10   0.3088  gsm8k   A school orders 8 boxes with 6 pencils each and gives away 5. How man…
                           → 8 boxes hold 8 × 6 = 48 pencils. After giving away 5, 43 are left. …

    Look twice
      ! 1 example has no rank: zero gradient (1)
    ");
}

fn diagnostics() -> Diagnostics {
    Diagnostics {
        n_rows: 399,
        n_selected: 20,
        chance: 20.0 / 399.0,
        target: Some(TargetHalves {
            n_examples: 8,
            n_single_subtasks: 0,
            n_draws: 20,
            mean: 0.07,
            low: 0.0,
            high: 0.15,
        }),
        sketch: Some(SketchHalves {
            between: 0.1,
            with_whole: [0.45, 0.4],
            cosine_error: 0.0112,
            cosine_size: 0.0604,
        }),
        checkpoints: vec![WithoutCheckpoint { checkpoint: "epoch-1".to_owned(), overlap: 0.65 }],
    }
}

#[test]
fn an_unsteady_selection_is_warned_of() {
    let pool = ScoredPool::new(400);
    let unsteady = summary_of(10, &pool, &pool.top("5%"), facts(), Some(diagnostics()));
    insta::assert_snapshot!(unsteady.warnings.join("\n"), @r"
    1 example has no rank: zero gradient (1)
    the selection is mostly noise: halves of the target agree on 7.0% of the selected rows, and chance on 5.0%; more target examples, or a pool that has the skill, would help
    the projection is too short: halves of the stored rows agree on 10.0% of the selected rows, and chance on 5.0%; a larger proj-dim would help
    ");
    let mut steady = diagnostics();
    let target = steady.target.as_mut().unwrap();
    (target.low, target.mean, target.high) = (0.5, 0.6, 0.7);
    let sketch = steady.sketch.as_mut().unwrap();
    (sketch.between, sketch.with_whole) = (0.7, [0.85, 0.8]);
    let steady = summary_of(10, &pool, &pool.top("5%"), facts(), Some(steady));
    assert_eq!(steady.warnings, ["1 example has no rank: zero gradient (1)"]);
    let text = text(&steady);
    let block = text.split("\n\n").find(|block| block.starts_with("Steady")).unwrap();
    insta::assert_snapshot!(block, @r"
    Steady  of 20 rows of 399, two selections share
             60.0% by two halves of the target (50.0% to 70.0%)
             70.0% by two halves of the stored rows (each with the whole: 85.0%, 80.0%)
             65.0% by all and without epoch-1
              5.0% by chance
    ");
    let page = page(&steady);
    assert!(page.contains("by random halves of the 8 target examples</th><td>60.0%</td>"));
    assert!(page.contains("<td>80.0%</td><td>85.0%</td>"));
    assert!(page.contains("with and without epoch-1</th><td>65.0%</td>"));
}

#[test]
fn composition_is_before_and_after() {
    let pool = ScoredPool::new(400);
    let summary = summary(&pool, &pool.top("10%"), facts());
    assert_eq!(summary.size.n_pool, 400);
    assert_eq!(summary.size.n_ranked, 399);
    assert_eq!(summary.size.n_selected, 40);
    let n_pool: u64 = summary.sources.iter().map(|source| source.n_pool).sum();
    let n_selected: u64 = summary.sources.iter().map(|source| source.n_selected).sum();
    assert_eq!((n_pool, n_selected), (400, 40));
    let best = &summary.sources[0];
    assert_eq!(best.source, "gsm8k");
    // All of its 20 rows are among the 40: half of the subset, a twentieth of the pool.
    assert_eq!((best.n_pool, best.n_selected), (20, 20));
    approx::assert_relative_eq!(best.lift, 10.0, epsilon = 1e-12);
    let by_subtask: u64 = summary.subtasks.iter().map(|subtask| subtask.n_ranked).sum();
    assert_eq!(by_subtask, 399);
}

/// A pool of rows that are as given, of which nothing is quoted.
fn pool_of(subtasks: &[&str], rows: Vec<ScoreRow>) -> ScoredPool {
    let says_nothing = Record { messages: turns(&[]), original: serde_json::Map::new() };
    let records = vec![says_nothing; rows.len()];
    let subtasks = subtasks.iter().map(|name| (*name).to_owned()).collect();
    ScoredPool { scores: ScoreTable { subtasks, rows }, records }
}

/// Row number `n` of a pool: ids are in order.
fn score_row(n: u8, source: &str, by_subtask: &[f32]) -> ScoreRow {
    ScoreRow {
        id: ExampleId([n; 16]),
        source: source.to_owned(),
        n_tokens: 10 + u32::from(n),
        n_supervised: 1,
        loss: 1.0,
        norm: 1.0,
        flag: None,
        by_subtask: by_subtask.to_vec(),
    }
}

fn flagged(row: ScoreRow) -> ScoreRow {
    ScoreRow { flag: Some("zero gradient".to_owned()), by_subtask: Vec::new(), ..row }
}

/// Of ranks without ties the correlation is 1 − 6 Σd² / (n³ − n), d the difference of a
/// row's ranks: for the five rows of the pool 1 − Σd² / 20, for the three of the subset
/// 1 − Σd² / 4.
#[test]
fn what_goes_along_with_the_score_is_told_of_the_pool_and_of_the_subset() {
    // Score, tokens that carry loss, tokens, norm, loss. By rank, 1 the lowest:
    //
    //         score  supervised  tokens  norm  loss
    //     a       5           2       5     2   2.5
    //     b       4           1       3     2   2.5
    //     c       3           4       4     2   4.5
    //     d       2           3       1     4   1
    //     e       1           5       2     5   4.5
    let rows = [
        (0.9, 20, 500, 1.0, 1.0),
        (0.7, 10, 300, 1.0, 1.0),
        (0.5, 40, 400, 1.0, 2.0),
        (0.3, 30, 100, 2.0, 0.5),
        (0.1, 50, 200, 3.0, 2.0),
    ];
    let row = |(n, (score, n_supervised, n_tokens, norm, loss))| {
        let row = score_row(n, "pool", &[score, score - 1.0]);
        ScoreRow { n_supervised, n_tokens, norm, loss, ..row }
    };
    let mut rows: Vec<ScoreRow> = (0..).zip(rows).map(row).collect();
    // What has no rank goes along with nothing.
    let outlier = ScoreRow {
        n_supervised: 1_000,
        n_tokens: 1,
        norm: 0.0,
        loss: f32::NAN,
        ..score_row(5, "pool", &[])
    };
    rows.push(flagged(outlier));
    let pool = pool_of(&["t/a", "t/b"], rows);
    let summary = quoting(0, &pool, &pool.top("3"), facts());
    let PoolAndSubset { pool, subset } = summary.correlations;
    for (found, expected) in [
        // d: 3, 3, −1, −1, −4.
        (pool.n_supervised, Some(1.0 - 36.0 / 20.0)),
        // d: 0, 1, −1, 1, −1.
        (pool.n_tokens, Some(1.0 - 4.0 / 20.0)),
        // Differences from the mean rank, of the scores 2, 1, 0, −1, −2, of the norms
        // −1, −1, −1, 1, 2: products sum to −8, squares to 10 and 8.
        (pool.norm, Some(-8.0 / 80_f64.sqrt())),
        // Of the losses −½, −½, 1½, −2, 1½: products −2½, squares 10 and 9.
        (pool.loss, Some(-2.5 / 90_f64.sqrt())),
        // Of a, b and c alone. d: 1, 1, −2.
        (subset.n_supervised, Some(1.0 - 6.0 / 4.0)),
        // d: 0, 1, −1.
        (subset.n_tokens, Some(1.0 - 2.0 / 4.0)),
        // All three have the same.
        (subset.norm, None),
        // Of the scores 1, 0, −1, of the losses −½, −½, 1: products −1½, squares 2 and 1½.
        (subset.loss, Some(-1.5 / 3_f64.sqrt())),
    ] {
        assert_eq!(found.is_some(), expected.is_some(), "{:?}", summary.correlations);
        approx::assert_abs_diff_eq!(found.unwrap_or(0.0), expected.unwrap_or(0.0), epsilon = 1e-12);
    }
    let page = page(&summary);
    for line in [
        "Supervised tokens</th><td>−0.80</td><td>−0.50</td>",
        "All tokens</th><td>+0.80</td><td>+0.50</td>",
        "Gradient norm</th><td>−0.89</td><td>–</td>",
        "Loss</th><td>−0.26</td><td>−0.87</td>",
    ] {
        assert!(page.contains(line), "{line}");
    }
}

/// Twenty rows, two of them without a rank, to select five of.
fn planted() -> ScoredPool {
    // How many rows, of what source, by what scores.
    let plan: [(usize, &str, [f32; 3]); 6] = [
        // 4 of 20 are sums: 3 of the 5 best, and all best for `a`.
        (3, "sums", [0.9, 0.1, 0.0]),
        (1, "sums", [0.2, 0.1, 0.0]),
        // 12 of 20 are tales: 2 of the 5 best, one for `a` and one for `b`.
        (1, "tales", [0.8, 0.1, 0.0]),
        (1, "tales", [0.1, 0.8, 0.0]),
        (10, "tales", [0.1, 0.3, 0.0]),
        // 4 of 20 are notes: none of the best; 2 have a rank, for `b`.
        (2, "notes", [0.0, 0.2, 0.1]),
    ];
    let rows = plan.into_iter().flat_map(|(n, source, scores)| vec![(source, scores); n]);
    let mut rows: Vec<ScoreRow> =
        (0..).zip(rows).map(|(n, (source, scores))| score_row(n, source, &scores)).collect();
    rows.extend([18, 19].map(|n| flagged(score_row(n, "notes", &[]))));
    pool_of(&["t/a", "t/b", "t/c"], rows)
}

#[test]
fn lift_is_the_share_of_the_subset_over_that_of_the_pool() {
    let pool = planted();
    let summary = quoting(0, &pool, &pool.top("25%"), facts());
    let sources = summary.sources.iter().map(|of| {
        (of.source.as_str(), (of.n_pool, of.n_selected), [of.pool_share, of.subset_share, of.lift])
    });
    assert_shares(
        sources,
        [
            ("sums", (4, 3), [0.2, 0.6, 3.0]),
            ("tales", (12, 2), [0.6, 0.4, 2.0 / 3.0]),
            ("notes", (4, 0), [0.2, 0.0, 0.0]),
        ],
    );
    // Of the 18 that have a rank `a` is the best subtask of 5, `b` of 13, `c` of none.
    let subtasks = summary.subtasks.iter().map(|of| {
        let lift = of.lift.unwrap_or(f64::INFINITY);
        (
            of.subtask.as_str(),
            (of.n_ranked, of.n_selected),
            [of.ranked_share, of.subset_share, lift],
        )
    });
    assert_shares(
        subtasks,
        [
            ("t/a", (5, 4), [5.0 / 18.0, 0.8, 2.88]),
            ("t/b", (13, 1), [13.0 / 18.0, 0.2, 3.6 / 13.0]),
            ("t/c", (0, 0), [0.0, 0.0, f64::INFINITY]),
        ],
    );
    let text = text(&summary);
    let table = text.split("\n\n").find(|block| block.starts_with("Source")).unwrap();
    insta::assert_snapshot!(table, @r"
    Source  pool  share  selected  share  lift
    sums       4  20.0%         3  60.0%  3.0×
    tales     12  60.0%         2  40.0%  0.7×
    notes      4  20.0%         0   0.0%  0.0×
    ");
}

#[test]
fn what_rows_were_taken_for_counts_in_shares_and_not_in_correlations() {
    let pool = planted();
    let by_score = pool.top("25%");
    let mut in_turn = by_score.clone();
    for place in &mut in_turn {
        place.subtask = 2;
        place.score = pool.scores.rows[place.position].by_subtask[2];
    }
    let [by_score, in_turn] = [by_score, in_turn].map(|of| quoting(0, &pool, &of, facts()));
    let n_selected = |of: &Summary| -> Vec<u64> {
        of.subtasks.iter().map(|subtask| subtask.n_selected).filter(|n| *n > 0).collect()
    };
    let n_rows = n_selected(&by_score).iter().sum::<u64>();
    assert!(n_selected(&by_score).len() > 1, "taken for several");
    assert_eq!(n_selected(&in_turn), [n_rows], "taken for one");
    assert_eq!(in_turn.correlations, by_score.correlations);
    assert!(by_score.correlations.subset.n_tokens.is_some());
}

/// Names, counts, and shares with the lift, in order.
type Shares<'a> = (&'a str, (u64, u64), [f64; 3]);

#[track_caller]
fn assert_shares<'a, const N: usize>(
    found: impl Iterator<Item = Shares<'a>>,
    expected: [Shares<'_>; N],
) {
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), N, "{found:?}");
    for ((name, counts, shares), expected) in found.into_iter().zip(expected) {
        assert_eq!((name, counts), (expected.0, expected.1));
        for (share, expected) in shares.into_iter().zip(expected.2) {
            approx::assert_relative_eq!(share, expected, epsilon = 1e-12);
        }
    }
}

#[test]
fn the_quoted_rows_are_those_around_the_cut() {
    let pool = ScoredPool::new(400);
    let selected = pool.top("20");
    let summary = summary(&pool, &selected, facts());
    let ranks = |quotes: &[less_select::report::Quote]| -> Vec<usize> {
        quotes.iter().map(|quote| quote.rank).collect()
    };
    // Of 40 rows, half and then a quarter each; there are no 20 that were selected and
    // are not the best of them.
    assert_eq!(ranks(&summary.best), (1..=20).collect::<Vec<_>>());
    assert_eq!(ranks(&summary.last_in), [0; 0]);
    assert_eq!(ranks(&summary.below_cut), (21..=30).collect::<Vec<_>>());
    let few = quoting(8, &pool, &selected, facts());
    assert_eq!(ranks(&few.best), [1, 2, 3, 4]);
    assert_eq!(ranks(&few.last_in), [19, 20]);
    assert_eq!(ranks(&few.below_cut), [21, 22]);
    assert!(few.best.iter().chain(&few.last_in).all(|quote| quote.selected));
    assert!(few.below_cut.iter().all(|quote| !quote.selected));
    assert!(quoting(0, &pool, &selected, facts()).best.is_empty());
    let best = &pool.records[selected[0].position];
    assert!(best.messages[0].content.starts_with(&summary.best[0].prompt));
}

#[test]
fn a_selection_of_short_answers_is_warned_of() {
    let mut pool = ScoredPool::new(400);
    for row in &mut pool.scores.rows[1..] {
        row.by_subtask = vec![1.0 / row.n_supervised as f32; 2];
        row.norm = 1.0;
    }
    let mut run = facts();
    run.notes.push("2 of 20 rows do not alternate user and assistant turns".to_owned());
    let summary = summary(&pool, &pool.top("5%"), run);
    insta::assert_snapshot!(summary.warnings.join("\n"), @r"
    2 of 20 rows do not alternate user and assistant turns
    selected answers have 3 supervised tokens on average, the pool's 26: the selection may prefer short answers
    the score follows answer length (rank correlation −1.00 over the pool)
    the score follows total length (rank correlation −0.89 over the pool)
    1 example has no rank: zero gradient (1)
    ");
}

#[test]
fn report_json_has_the_numbers() {
    let pool = ScoredPool::new(100);
    let summary = summary(&pool, &pool.top("5"), facts());
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    write(&summary, &json, &dir.path().join("report.html")).unwrap();
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["format"], 1);
    assert_eq!(report["run"]["budget"], "0.05");
    assert_eq!(report["size"]["n_selected"], 5);
    assert_eq!(report["best"].as_array().unwrap().len(), 5);
    assert_eq!(report["flagged"][0]["reason"], "zero gradient");
}

#[test]
fn the_page_needs_nothing_from_anywhere() {
    let pool = ScoredPool::new(100);
    let page = page(&summary(&pool, &pool.top("10%"), facts()));
    for reference in ["http://", "https://", "src=", "<link", "@import", "url(", "fetch("] {
        assert!(!page.contains(reference), "the page has `{reference}`");
    }
    // Its examples, and what searches them.
    assert_eq!(page.matches("<script").count(), 2);
    for part in [
        "<h1>gsm8k from a mixture</h1>",
        "lowest selected 0.",
        "lora.rank",
        "epoch-2",
        "zero gradient",
    ] {
        assert!(page.contains(part), "the page lacks `{part}`");
    }
    // The film was <b>slow</b>: from a row.
    assert!(!page.contains("<b>"));
}

#[test]
fn hostile_text_stays_text() {
    let mut pool = ScoredPool::new(20);
    let hostile =
        "</p></main><script>alert(1)</script>\u{1b}]0;owned\u{7}\u{202e}\0 \"'{{ 7*7 }}\r\n\u{9b}2J"
            .to_owned() + &"x".repeat(3_000_000);
    for (row, record) in pool.scores.rows.iter_mut().zip(&mut pool.records) {
        row.source.clone_from(&hostile);
        record.messages = turns(&[("user", &hostile), ("assistant", &hostile)]);
    }
    pool.scores.subtasks[1].clone_from(&hostile);
    pool.scores.rows[0].flag = Some(hostile.clone());
    let mut run = facts();
    run.name.clone_from(&hostile);
    run.notes.push(hostile.clone());
    run.subset = PathBuf::from(hostile.replace('\0', ""));
    run.stages[0].summary.clone_from(&hostile);
    run.settings.insert(hostile.clone(), Value::String(hostile));
    let summary = summary(&pool, &pool.top("30%"), run);

    let page = page(&summary);
    assert!(page.len() < 300_000, "{} bytes", page.len());
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("</main").count(), 1);
    assert!(page.contains("{{ 7*7 }}"));
    let is_plain = |character: char| !character.is_control() || character == '\n';
    assert!(page.chars().all(is_plain) && !page.contains('\u{202e}'));
    let text = text(&summary);
    assert!(text.chars().all(is_plain) && !text.contains('\u{202e}'));
    assert!(text.lines().all(|line| line.chars().count() < 500));
}

#[test]
fn a_pool_of_one_and_an_empty_selection_have_a_report() {
    let mut pool = ScoredPool::new(2);
    pool.scores.rows.remove(0);
    pool.records.remove(0);
    for selected in [pool.top("1"), Vec::new()] {
        let summary = summary(&pool, &selected, facts());
        let page = page(&summary);
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
        assert!(!text(&summary).contains("NaN"));
    }
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let pool = ScoredPool::new(20);
    let summary = summary(&pool, &pool.top("2"), facts());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let json = dir.path().join("report.json");
    let error = write(&summary, &json, &dir.path().join("file/report.html")).unwrap_err();
    let message = error.to_string().replace(dir.path().to_str().unwrap(), "<dir>");
    insta::assert_snapshot!(message, @"failed to create directory `<dir>/file`: File exists (os error 17)");
}

#[test]
fn the_page_carries_the_listed_rows_as_they_are() {
    let pool = ScoredPool::new(100);
    let summary = summary(&pool, &pool.top("30%"), facts());
    let page = page(&summary);
    let start = "<script type=\"application/json\" id=\"listed\">";
    let json = page.split(start).nth(1).unwrap().split("</script>").next().unwrap();
    let listed: Vec<Value> = serde_json::from_str(json).unwrap();
    let quotes = summary.best.iter().chain(&summary.last_in).chain(&summary.below_cut);
    let quotes: Vec<_> = quotes.collect();
    assert_eq!((listed.len(), quotes.len()), (40, 40));
    for (row, quote) in listed.iter().zip(quotes) {
        assert_eq!(row["id"], quote.id);
        assert_eq!(row["prompt"], quote.prompt);
        assert_eq!(row["selected"], quote.selected);
        assert_eq!(row["facts"][1], quote.source);
    }
    assert!(json.contains("\\u003cb\\u003eslow"), "markup of a row is escaped");
}

#[test]
fn subtasks_past_the_25th_are_on_the_page_too() {
    let crowded = crowded();
    let page = page(&summary(&crowded, &crowded.top("20%"), facts()));
    // Names may be broken over lines.
    let page = page.replace("<wbr>", "").replace("&#x2f;", "/");
    let section = page.split(r#"<h2 id="subtasks">"#).nth(1).unwrap();
    let (first, rest) = section.split_once("More subtasks (25)").unwrap();
    let rest = rest.split("</details>").next().unwrap();
    for subtask in &crowded.scores.subtasks {
        let row = format!(r#"<th scope="row">{subtask}</th>"#);
        assert_eq!(first.matches(&row).count() + rest.matches(&row).count(), 1, "{subtask}");
    }
}

/// Leaves pages to look at, which `scripts/browser` opens.
#[test]
fn pages_to_look_at_are_written() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    let write_as = |name: &str, summary: &Summary| {
        let dir = dir.join(name);
        write(summary, &dir.join("report.json"), &dir.join("report.html")).unwrap();
        assert!(dir.join("report.html").is_file());
    };
    let pool = ScoredPool::new(400);
    write_as("plain", &summary_of(400, &pool, &pool.top("5%"), facts(), Some(diagnostics())));
    let large = ScoredPool::new(20_000);
    write_as("large", &quoting(10_000, &large, &large.top("40%"), facts()));
    let crowded = crowded();
    let mut run = facts();
    run.n_rejected = 1_204;
    run.rejected = Rejected::of((0..1_204).map(|line| {
        let reason = if line % 3 == 0 { "no assistant turn in the conversation" } else { "not valid json: expected value at line 1 column 12" };
        Ok(json!({ "file": "/data/pools/a-rather-long-folder-name/part-00017-of-00256.jsonl.zst", "line": line, "reason": reason }).to_string())
    }))
    .unwrap();
    write_as("crowded", &summary(&crowded, &crowded.top("20%"), run));
}

/// Fifty subtasks, thirty sources with long names.
fn crowded() -> ScoredPool {
    let mut pool = ScoredPool::new(3_000);
    for (row, n) in pool.scores.rows.iter_mut().zip(0_u16..) {
        let source = n * 7 % 31;
        row.source =
            format!("instruction-mixture-{source:02}/a_rather_long_name_of_a_source_{source}");
        if row.flag.is_none() {
            let base = row.by_subtask[0];
            let influence =
                |task: u16| base + 0.2 * f32::from(task * (source + 3) % 17) / 17.0 - 0.1;
            row.by_subtask = (0..50).map(influence).collect();
        }
    }
    let name = |task| format!("mmlu/a_subject_with_a_long_name_that_goes_on_{task:02}");
    pool.scores.subtasks = (0..50).map(name).collect();
    pool
}
