//! Why rows were selected or were not, and whom target examples brought in.

use less_select::pool::table::ExampleTable;
use less_select::selection::SelectionFile;
use serde_json::Value;

use crate::support::{Said, TestRun, message_row, pool_row};

/// A run without a model: its scores are the same on every machine.
fn bm25(more: &[&str]) -> TestRun {
    let run = TestRun::new(24);
    let selector = if more.is_empty() { &["--selector", "top"][..] } else { more };
    let said = run.run(&[&["--method", "bm25"], selector].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    run
}

#[track_caller]
fn told(said: Said) -> String {
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.stdout
}

fn json(run: &TestRun, args: &[&str]) -> Value {
    let said = told(run.say(&[&["explain", "--json"], args].concat()));
    serde_json::from_str(&said).unwrap()
}

fn pool_ids(run: &TestRun) -> Vec<String> {
    let table = ExampleTable::open(&run.path("run/pool/pool.parquet")).unwrap();
    table.rows().iter().map(|row| row.id.to_string()).collect()
}

#[test]
fn a_selected_row_is_told_with_what_it_is_like() {
    let run = bm25(&[]);
    insta::assert_snapshot!(told(run.say(&["explain", "pool.jsonl:7"])), @"
    Row     2fb62dc7cd4ea7dc6c019c394d493df7 of pool
            pool.jsonl:7
            12 of 36 tokens supervised

            user       What is 42 + 16?
            assistant  42 + 16 = 58.

    Place   selected, number 3 of 6; 24 were ranked

    Subtask          score
    target/sums     0.4875
    target/letters  0.0161

    Nearest target examples
      0.5031  319d4bc26aae  target/sums
              What is 40 + 2?
              → 40 + 2 = 42.
      0.4718  96e4579c9c30  target/sums
              What is 7 + 6?
              → 7 + 6 = 13.
      0.0161  1cb7245cbca0  target/letters
              Spell cat.
              → c, a, t
    ");
}

#[test]
fn a_row_that_is_not_selected_is_told_with_its_rank() {
    let run = bm25(&[]);
    insta::assert_snapshot!(told(run.say(&["explain", "pool.jsonl:3"])), @"
    Row     254d1ef51091ab38b546552c83e11889 of pool
            pool.jsonl:3
            24 of 48 tokens supervised

            user       Tell me story 2.
            assistant  Once upon a time there were 14 owls.

    Place   not selected: its score is number 19 of 24, 6 were selected, the lowest with 0.3953

    Subtask          score
    target/letters  0.1424
    target/sums     0.0917

    Nearest target examples
      0.1556  319d4bc26aae  target/sums
              What is 40 + 2?
              → 40 + 2 = 42.
      0.1424  1cb7245cbca0  target/letters
              Spell cat.
              → c, a, t
      0.0277  96e4579c9c30  target/sums
              What is 7 + 6?
              → 7 + 6 = 13.
    ");
}

/// What is told of a row's place, of the first row that has such a one.
fn place(run: &TestRun, is: &str) -> String {
    let ids = pool_ids(run);
    let id = ids.iter().find(|id| json(run, &[id])["place"]["is"] == is).unwrap();
    let said = told(run.say(&["explain", id]));
    let place = said.lines().skip_while(|line| !line.starts_with("Place"));
    place.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn where_examples_take_turns_the_turn_is_told() {
    let run = bm25(&["--selector", "round-robin"]);
    insta::assert_snapshot!(place(&run, "selected"), @"
    Place   selected, number 1 of 6: number 1 of the rows nearest to 1cb7245cbca0 (target/letters),
            whose turns took rows down to number 3; its score is number 9 of 24
    ");
    insta::assert_snapshot!(place(&run, "below-cut"), @"
    Place   not selected: number 9 of the rows nearest to 319d4bc26aae (target/sums),
            whose turns took rows down to number 2; its score is number 17 of 24
    ");
    let file = SelectionFile::read(&run.path("run/selection.json")).unwrap();
    let mut places = Vec::new();
    for row in &file.selected {
        let of = &json(&run, &[&row.id.to_string()])["standing"];
        assert!(of["place"].as_u64() <= of["taken_to"].as_u64(), "{of}");
        places.push((of["example"].to_string(), of["place"].as_u64().unwrap()));
    }
    // In an example's turns its list is gone down.
    places.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(places.windows(2).all(|of| of[0].0 != of[1].0 || of[0].1 < of[1].1), "{places:?}");
    let served = ["target:1", "target:2", "target:3"].map(|words| {
        let of = json(&run, &["--target-example", words]);
        (of["subtasks"][0].to_string(), of["served"]["n_taken"].as_u64().unwrap())
    });
    // Subtasks take turns, and in them examples.
    for subtask in ["letters", "sums"] {
        let own = served.iter().filter(|(of, _)| of.contains(subtask));
        assert_eq!(own.map(|(_, n_taken)| n_taken).sum::<u64>(), 3, "{served:?}");
    }
}

#[test]
fn where_neighbors_count_the_lists_are_told() {
    let run = bm25(&["--selector", "knn", "--neighbors", "4"]);
    insta::assert_snapshot!(place(&run, "selected"), @"
    Place   selected, number 6 of 6: among the 4 nearest rows of 1 of the target's 3 examples,
            number 1 of those nearest to 1cb7245cbca0 (target/letters); its score is number 9 of 24
    ");
    insta::assert_snapshot!(place(&run, "below-cut"), @"
    Place   not selected: among the 4 nearest rows of 0 of the target's 3 examples,
            number 9 of those nearest to 319d4bc26aae (target/sums); its score is number 17 of 24
    ");
}

#[test]
fn an_example_of_the_target_is_told_with_the_rows_it_brought_in() {
    let run = bm25(&[]);
    insta::assert_snapshot!(told(run.say(&["explain", "--target-example", "target.jsonl:2"])), @"
    Target  96e4579c9c3042c6093cd9e4b60d7e3e of target/sums
            target.jsonl:2
            10 of 32 tokens supervised

            user       What is 7 + 6?
            assistant  7 + 6 = 13.

    Served  by 1 of 6 selected rows, which are more like it than like any other example
            mean cosine 0.4546 with the selected rows, 0.1809 with the pool

    Nearest selected rows
      0.6404  42b869803b65  pool, number 1
              What is 26 + 17?
              → 26 + 17 = 43.
      0.4737  4b110cb4f929  pool, number 2
              What is 13 + 24?
              → 13 + 24 = 37.
      0.4718  2fb62dc7cd4e  pool, number 3
              What is 42 + 16?
              → 42 + 16 = 58.
      0.4383  52704544ca6d  pool, number 4
              What is 47 + 25?
              → 47 + 25 = 72.
      0.3929  d12d2dc3a4fb  pool, number 6
              What is 34 + 1?
              → 34 + 1 = 35.

    Nearest of the others
      0.3212  16caa25497de  pool
              What is 5 + 9?
              → 5 + 9 = 14.
      0.3199  733c48b2c475  pool
              What is 21 + 8?
              → 21 + 8 = 29.
      0.1399  d0cc5864b5a9  pool
              Spell number 16.
              → n, u, m, b, e, r
      0.1155  b95b837308d0  pool
              Tell me story 8.
              → Once upon a time there were 6 owls.
      0.1096  6bfe3116695c  pool
              Tell me story 17.
              → Once upon a time there were 19 owls.
    ");
}

#[test]
fn a_row_is_known_by_the_beginning_of_its_id_its_file_and_its_source() {
    let run = bm25(&[]);
    let row = json(&run, &["pool.jsonl:7"]);
    let id = row["id"].as_str().unwrap();
    let file = row["file"].as_str().unwrap().to_owned() + ":7";
    for words in [id, &id[..8], &id[..8].to_uppercase(), "pool:7", &file] {
        assert_eq!(json(&run, &[words]), row, "{words}");
    }
}

#[test]
fn a_row_that_is_none_or_several_is_told_so() {
    let run = bm25(&[]);
    let refused = |args: &[&str]| {
        let said = run.say(&[&["explain"], args].concat());
        assert_eq!(said.code, 2, "{}", said.stdout);
        said.stderr
    };
    insta::assert_snapshot!(refused(&["pool.jsonl:25"]), @"
    error: no row of the pool is `pool.jsonl:25`
    hint: a row is its id, 32 hex digits or the first few, or FILE:LINE or SOURCE:LINE; of rows with equal content the pool has one
    ");
    insta::assert_snapshot!(refused(&["--target-example", "no such thing"]), @"
    error: no row of the target is `no such thing`
    hint: a row is its id, 32 hex digits or the first few, or FILE:LINE or SOURCE:LINE; of rows with equal content the pool has one
    ");
    let ids = pool_ids(&run);
    let digit =
        ids.windows(2).find(|pair| pair[0][..1] == pair[1][..1]).unwrap()[0][..1].to_owned();
    let n = ids.iter().filter(|id| id.starts_with(&digit)).count();
    let said = refused(&[&digit]);
    assert!(said.contains(&format!("error: `{digit}` may be {n} rows of the pool: ")), "{said}");
}

#[test]
fn there_is_nothing_to_explain_before_a_selection() {
    let run = TestRun::new(12);
    let settings = ["--pool", "pool.jsonl", "--target", "target.jsonl"];
    let model = crate::whole_run::tiny_model().display().to_string();
    let said = run.say(&[&["explain", "pool:1", "--model", &model], &settings[..]].concat());
    assert_eq!(said.code, 4, "{}", said.stderr);
    insta::assert_snapshot!(said.stderr, @"
    error: `run` has no selection
    hint: run `less-select` first
    ");
}

#[test]
fn every_row_has_the_place_that_the_selection_gave_it() {
    let more: String = (24..30).map(|row| pool_row(row * 3) + "\n").collect();
    let run = TestRun::new(24);
    run.write("more.jsonl", &more);
    let pools = ["--pool", "pool.jsonl", "--pool", "more.jsonl"];
    let capped = ["--source-cap", "pool=50%", "--method", "bm25", "--selector", "top"];
    let args = [&pools[..], &capped].concat();
    assert_eq!(run.run(&args).code, 0);
    let file = SelectionFile::read(&run.path("run/selection.json")).unwrap();
    let (mut n_selected, mut n_not_taken) = (0, 0);
    for id in pool_ids(&run) {
        let row = json(&run, &[&id]);
        let rank = file.selected.iter().position(|row| row.id.to_string() == id);
        if let Some(rank) = rank {
            n_selected += 1;
            assert_eq!(row["place"]["is"], "selected");
            assert_eq!(row["place"]["rank"], rank + 1);
        } else {
            let is_above = row["score"].as_f64() > row["cut"].as_f64();
            n_not_taken += u32::from(is_above);
            let is = if is_above { "not-taken" } else { "below-cut" };
            assert_eq!(row["place"]["is"], is, "{row}");
            if is_above {
                assert_eq!(row["place"]["is_source_capped"], true);
            }
        }
    }
    assert_eq!(n_selected, file.selected.len());
    assert!(n_not_taken > 0, "the cap of the source decided of none: {file:?}");
}

#[test]
fn a_row_that_was_left_out_is_told_with_the_reason() {
    let run = TestRun::new(24);
    let words: Vec<String> = (0..40).map(|word| format!("word{word}")).collect();
    let row = message_row("", &words.join(" "), "That is what the test asks.");
    let pool: String = (0..24).map(|row| pool_row(row) + "\n").collect();
    run.write("pool.jsonl", &(pool + &row));
    run.write("test.jsonl", &row);
    assert_eq!(run.run(&["--method", "bm25", "--decontaminate", "test.jsonl"]).code, 0);
    let found = json(&run, &["pool.jsonl:25"]);
    assert_eq!(found["place"]["is"], "left-out");
    let reason = found["place"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("contaminated: says what is in"), "{reason}");
    let said = told(run.say(&["explain", "pool.jsonl:25"]));
    assert!(said.contains("Place   not selected: contaminated: says"), "{said}");
}

#[test]
fn a_near_duplicate_is_told_with_the_row_that_is_kept() {
    let run = TestRun::new(24);
    let words: Vec<String> = (0..40).map(|word| format!("word{word}")).collect();
    let row = |end: &str| message_row("", &words.join(" "), &format!("That is the answer{end}"));
    let pool: String = (0..22).map(|row| pool_row(row) + "\n").collect();
    run.write("pool.jsonl", &format!("{pool}{}\n{}\n", row("."), row("!")));
    let settings = ["--method", "length", "--near-duplicates", "80%", "--budget", "100%"];
    assert_eq!(run.run(&settings).code, 0);
    let two = ["pool.jsonl:23", "pool.jsonl:24"].map(|words| json(&run, &[words]));
    let [kept, other] = if two[0]["place"]["is"] == "selected" { [0, 1] } else { [1, 0] };
    assert_eq!(two[kept]["place"]["is"], "selected", "{two:?}");
    assert_eq!(two[other]["place"]["is"], "left-out", "{two:?}");
    assert_eq!(two[other]["place"]["near_duplicate_of"], two[kept]["id"]);
    let said = told(run.say(&["explain", two[other]["id"].as_str().unwrap()]));
    let kept = two[kept]["id"].as_str().unwrap();
    let expected = format!("Place   not selected: near-duplicate of a row that is kept, {kept}");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn every_selected_row_serves_one_example_of_the_target_most() {
    let run = bm25(&[]);
    let served = ["target:1", "target:2", "target:3"].map(|words| {
        let found = json(&run, &["--target-example", words]);
        assert_eq!(found["served"]["n_selected"], 6);
        found["served"]["n_nearest"].as_u64().unwrap()
    });
    assert_eq!(served.iter().sum::<u64>(), 6, "{served:?}");
}

#[test]
fn a_method_that_looks_at_no_target_has_less_to_say() {
    let run = TestRun::new(12);
    assert_eq!(run.run(&["--method", "length"]).code, 0);
    let row = json(&run, &["pool:1"]);
    assert_eq!(row["nearest_targets"], Value::Array(Vec::new()));
    assert_eq!(row["nearest_selected"], Value::Array(Vec::new()));
    assert_eq!(row["norm"], Value::Null);
    assert!(row["place"]["is"].is_string());
    let target = json(&run, &["--target-example", "target:1"]);
    assert_eq!(target["served"], Value::Null);
    let said = told(run.say(&["explain", "--target-example", "target:1"]));
    assert!(said.contains("There are no cosines with it"), "{said}");
}

#[cfg(feature = "torch")]
mod gradients {
    use approx::{assert_abs_diff_eq, assert_relative_eq};
    use less_select::first_pass::losses::Losses;
    use less_select::gradient::direction::GradientKind;
    use less_select::influence::example_scores::ExampleScores;
    use less_select::influence::example_scores_file::cosines_path;
    use less_select::influence::scores::ScoreTable;
    use less_select::store::gradient_store::GradientStore;

    use super::*;

    const CHECKPOINTS: [&str; 2] = ["epoch-1", "epoch-2"];

    /// All rows of the pool at a checkpoint, in order of id, as f32.
    fn rows(run: &TestRun, checkpoint: &str) -> Vec<Vec<f32>> {
        let store = run.path(&format!("run/gradients/{checkpoint}/pool"));
        let store = GradientStore::open(&store).unwrap();
        let table = ExampleTable::open(&run.path("run/pool/pool.parquet")).unwrap();
        let places = store.places(table.rows().iter().map(|row| row.id)).unwrap();
        let row = |place: &less_select::store::gradient_store::RowPlace| {
            let unit = store.shards()[place.shard].kind(GradientKind::AdamV).unwrap().unit;
            unit.decode(place.row..place.row + 1)
        };
        places.iter().map(row).collect()
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    #[test]
    fn the_numbers_of_a_row_are_those_of_the_run() {
        let run = TestRun::new(24);
        assert_eq!(run.run(&[]).code, 0);
        let ids = pool_ids(&run);
        let paths = CHECKPOINTS.map(|name| cosines_path(&run.path("run/cosines"), name));
        let examples = ExampleScores::open(&paths).unwrap();
        let stored = CHECKPOINTS.map(|checkpoint| rows(&run, checkpoint));
        let file = SelectionFile::read(&run.path("run/selection.json")).unwrap();
        for (position, id) in ids.iter().enumerate().step_by(5) {
            let row = json(&run, &[id]);
            let weights = [0, 1].map(|at| number(&row["checkpoints"][at]["weight"]));
            for subtask in row["subtasks"].as_array().unwrap() {
                let by_checkpoint = &subtask["by_checkpoint"];
                let sum = (0..2).map(|at| weights[at] * number(&by_checkpoint[at])).sum::<f64>();
                assert_abs_diff_eq!(sum, number(&subtask["score"]), epsilon = 1e-6);
            }
            let cosines = examples.total(position..position + 1);
            let highest = cosines.iter().copied().fold(f32::MIN, f32::max);
            assert_abs_diff_eq!(number(&row["nearest_targets"][0]["cosine"]), f64::from(highest));
            // The likeness of every selected row but itself, one product after the other.
            let likeness = |other: usize| -> f64 {
                let product = |rows: &Vec<Vec<f32>>| -> f64 {
                    let pairs = rows[position].iter().zip(&rows[other]);
                    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let products = stored.iter().map(product).zip(weights);
                products.map(|(product, weight)| product * weight).sum::<f64>().min(1.0)
            };
            let selected = file.selected.iter().map(|row| row.id.to_string());
            let others = selected.filter(|other| other != id);
            let mut expected: Vec<(String, f64)> = others
                .map(|other| {
                    let at = ids.iter().position(|id| *id == other).unwrap();
                    (other, likeness(at))
                })
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let found = row["nearest_selected"].as_array().unwrap();
            assert_eq!(found.len(), 5.min(expected.len()));
            for (found, (other, cosine)) in found.iter().zip(expected) {
                assert_eq!(found["id"], other);
                assert_abs_diff_eq!(number(&found["cosine"]), cosine, epsilon = 1e-5);
            }
        }
    }
    /// Of a number that was an f32.
    fn bits(value: &Value) -> u32 {
        (number(value) as f32).to_bits()
    }

    /// What the stores have of every row of the pool, as means over the checkpoints.
    fn losses_and_norms(run: &TestRun, ids: &[String]) -> Vec<[f64; 2]> {
        let paths = CHECKPOINTS.map(|name| cosines_path(&run.path("run/cosines"), name));
        let examples = ExampleScores::open(&paths).unwrap();
        let mut means = vec![[0.0; 2]; ids.len()];
        for (checkpoint, file) in CHECKPOINTS.iter().zip(&examples.checkpoints) {
            let store = run.path(&format!("run/gradients/{checkpoint}/pool"));
            let store = GradientStore::open(&store).unwrap();
            let ids = ids.iter().map(|id| id.parse().unwrap());
            for (means, place) in means.iter_mut().zip(store.places(ids).unwrap()) {
                let shard = &store.shards()[place.shard];
                let norms = shard.kind(GradientKind::AdamV).unwrap().norms;
                for (mean, value) in means.iter_mut().zip([shard.loss(), norms]) {
                    *mean += file.header().weight * f64::from(value[place.row]);
                }
            }
        }
        means
    }

    #[test]
    fn length_loss_and_norm_of_a_row_are_those_that_are_stored() {
        let run = TestRun::new(24);
        assert_eq!(run.run(&[]).code, 0);
        let table = ExampleTable::open(&run.path("run/pool/pool.parquet")).unwrap();
        let scores = ScoreTable::read(&run.path("run/scores.parquet")).unwrap();
        let ids = pool_ids(&run);
        let stored = losses_and_norms(&run, &ids);
        for (at, [loss, norm]) in stored.into_iter().enumerate().step_by(11) {
            let (head, row) = (&table.rows()[at], json(&run, &[&ids[at]]));
            assert_eq!(row["n_tokens"], head.n_tokens);
            assert_eq!(row["n_supervised"], head.n_supervised);
            assert!(loss > 0.0 && norm > 0.0, "{loss}, {norm}");
            assert_relative_eq!(number(&row["loss"]), loss, max_relative = 1e-6);
            assert_relative_eq!(number(&row["norm"]), norm, max_relative = 1e-6);
            let scored = &scores.rows[at];
            assert_eq!(
                [bits(&row["loss"]), bits(&row["norm"])],
                [scored.loss, scored.norm].map(f32::to_bits)
            );
            let facts = format!(
                "\n        {} of {} tokens supervised, loss {:.2}, norm {:.2}\n",
                head.n_supervised, head.n_tokens, scored.loss, scored.norm
            );
            let text = told(run.say(&["explain", &ids[at]]));
            assert!(text.contains(&facts), "{facts}{text}");
        }
    }

    #[test]
    fn a_method_by_loss_has_a_loss_to_tell_and_no_norm() {
        let run = TestRun::new(12);
        assert_eq!(run.run(&["--method", "perplexity"]).code, 0);
        let stored = Losses::read(&run.path("run/losses.parquet")).unwrap();
        for (id, loss) in stored.ids.iter().zip(stored.losses).step_by(5) {
            let id = id.to_string();
            let row = json(&run, &[&id]);
            assert_eq!(bits(&row["loss"]), loss.to_bits());
            assert_eq!(row["norm"], Value::Null);
            let text = told(run.say(&["explain", &id]));
            assert!(text.contains(&format!(" tokens supervised, loss {loss:.2}\n")), "{text}");
        }
    }
}
