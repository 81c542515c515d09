//! `scores.parquet` gives back what was written, or an error.

use std::path::Path;

use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::pool::ExampleId;
use tempfile::TempDir;

/// Where `scores.parquet` stands in a test's folder.
fn scores_path(dir: &TempDir) -> std::path::PathBuf {
    Path::join(dir.path(), "scores.parquet")
}

fn score_row(byte: u8, by_subtask: &[f32], flag: Option<&str>) -> ScoreRow {
    ScoreRow {
        id: ExampleId([byte; 16]),
        source: "flan".to_owned(),
        n_tokens: 10 + u32::from(byte),
        n_supervised: 5,
        loss: 1.25,
        norm: 0.5,
        flag: flag.map(str::to_owned),
        by_subtask: by_subtask.to_vec(),
    }
}

#[test]
fn scores_read_back_are_those_written_with_the_same_bytes_every_time() {
    let table = ScoreTable {
        subtasks: vec!["essay".to_owned(), "quiz/a".to_owned()],
        rows: vec![
            score_row(1, &[0.25, -0.5], None),
            score_row(2, &[], Some("zero gradient")),
            score_row(3, &[-0.125, 0.75], None),
        ],
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    table.write(&scores_path(&a)).unwrap();
    table.write(&scores_path(&b)).unwrap();
    assert_eq!(ScoreTable::read(&scores_path(&a)).unwrap(), table);
    assert!(fs_err::read(scores_path(&a)).unwrap() == fs_err::read(scores_path(&b)).unwrap());

    let file = fs_err::File::open(scores_path(&a)).unwrap().into_parts().0;
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
    let batches = reader.collect::<Result<Vec<_>, _>>().unwrap();
    insta::assert_snapshot!(as_json_lines(&batches), @r#"
    {"id":"01010101010101010101010101010101","source":"flan","score":0.25,"subtask":"essay","n_tokens":11,"n_supervised":5,"loss":1.25,"norm":0.5,"subtask:essay":0.25,"subtask:quiz/a":-0.5}
    {"id":"02020202020202020202020202020202","source":"flan","n_tokens":12,"n_supervised":5,"loss":1.25,"norm":0.5,"flag":"zero gradient"}
    {"id":"03030303030303030303030303030303","source":"flan","score":0.75,"subtask":"quiz/a","n_tokens":13,"n_supervised":5,"loss":1.25,"norm":0.5,"subtask:essay":-0.125,"subtask:quiz/a":0.75}
    "#);
}

/// The rows as lines of JSON, nulls left out.
fn as_json_lines(batches: &[arrow::array::RecordBatch]) -> String {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap()
}

#[test]
fn a_loss_that_is_not_finite_is_null_on_disk() {
    let mut row = score_row(1, &[], Some("non-finite loss"));
    row.loss = f32::INFINITY;
    let table = ScoreTable { subtasks: vec!["quiz".to_owned()], rows: vec![row] };
    let dir = tempfile::tempdir().unwrap();
    table.write(&scores_path(&dir)).unwrap();
    assert!(ScoreTable::read(&scores_path(&dir)).unwrap().rows[0].loss.is_nan());
}

#[test]
fn a_row_without_a_score_on_one_of_the_subtasks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = scores_path(&dir);
    let subtasks = vec!["essay".to_owned(), "quiz".to_owned()];
    ScoreTable { subtasks, rows: vec![score_row(1, &[0.5], None)] }.write(&path).unwrap();
    let error = ScoreTable::read(&path).unwrap_err();
    insta::assert_snapshot!(error.kind, @"row `01010101010101010101010101010101` has no score on some of the subtasks");
}

#[test]
fn what_is_no_table_of_scores_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = scores_path(&dir);
    assert!(ScoreTable::read(&path).is_err(), "missing");
    let table = ScoreTable {
        subtasks: vec!["quiz".to_owned()],
        rows: (0..100).map(|byte| score_row(byte, &[f32::from(byte).sin()], None)).collect(),
    };
    table.write(&path).unwrap();
    let whole = fs_err::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs_err::write(&path, &whole[..length]).unwrap();
        assert!(ScoreTable::read(&path).is_err(), "cut at {length}");
    }
    let batch = arrow::array::RecordBatch::try_from_iter([(
        "id",
        std::sync::Arc::new(arrow::array::StringArray::from(vec!["x"])) as arrow::array::ArrayRef,
    )])
    .unwrap();
    let file = fs_err::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let error = ScoreTable::read(&path).unwrap_err();
    insta::assert_snapshot!(error.kind, @"does not have the columns of a score table");
}
