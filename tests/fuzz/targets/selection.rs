//! What was selected, and where that is in a table of scores.
#![no_main]

use less_select::influence::scores::{ScoreRow, ScoreTable};
use less_select::pool::ExampleId;
use less_select::selection::SelectionFile;
use less_select_fuzz as fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = fuzz::file("selection.json", bytes);
    let Ok(file) = SelectionFile::read(&path) else { return };
    let mut scores = scores();
    let Ok(selected) = file.apply(&mut scores, &path) else { return };
    for place in selected {
        let row = &scores.rows[place.position];
        assert!(place.subtask < row.by_subtask.len() && row.flag.is_none());
    }
});

/// The table of the seed's rows; the last has no score.
fn scores() -> ScoreTable {
    let row = |id| ScoreRow {
        id: ExampleId([id; 16]),
        source: "pool".to_owned(),
        n_tokens: 10,
        n_supervised: 5,
        loss: 1.0,
        norm: 1.0,
        flag: (id == 3).then(|| "zero gradient".to_owned()),
        by_subtask: if id == 3 { Vec::new() } else { vec![0.5, 0.25] },
    };
    ScoreTable {
        subtasks: vec!["a".to_owned(), "b".to_owned()],
        rows: (0..4).map(row).collect(),
    }
}
