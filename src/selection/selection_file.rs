//! `selection.json`: what was selected, and what was not for another reason than
//! its score. Later stages read it instead of selecting again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::limits::Taken;
use super::{Selected, Selector};
use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::pool::ExampleId;

/// Version of the file; rises when a field changes its meaning.
const FORMAT: u32 = 1;

/// A selection on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectionFile {
    format: u32,
    /// The order in which rows were taken.
    pub selector: Selector,
    /// What gave way and what the user should know, a sentence each, without a
    /// final period.
    pub notes: Vec<String>,
    /// The subset folders of single targets, by target, where they are asked for.
    pub by_target: BTreeMap<String, String>,
    /// Rows that could not be taken, and why, in order of id.
    pub left_out: BTreeMap<ExampleId, String>,
    /// Near-duplicates among those, each with the row that is kept.
    #[serde(default)]
    pub near_duplicate_of: BTreeMap<ExampleId, ExampleId>,
    /// Pool sources that reached their cap, in order of name.
    #[serde(default)]
    pub capped: Vec<String>,
    /// In order of rank, which begins at 1.
    pub selected: Vec<SelectedRow>,
}

/// A row that was selected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectedRow {
    /// Which one.
    pub id: ExampleId,
    /// Its influence on the subtask it was taken for.
    pub score: f32,
    /// Position in the score table's subtasks.
    pub subtask: usize,
    /// Position among the target examples of the files of cosines of the one it was
    /// taken for, where rows were not taken by score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<usize>,
}

impl SelectionFile {
    /// What was selected of `scores`, with what was `taken` of them.
    pub fn new(scores: &ScoreTable, taken: &Taken, selector: Selector) -> Self {
        let row = |row: &Selected| SelectedRow {
            id: scores.rows[row.position].id,
            score: row.score,
            subtask: row.subtask,
            example: row.example,
        };
        Self {
            format: FORMAT,
            selector,
            notes: taken.notes.clone(),
            by_target: BTreeMap::new(),
            left_out: BTreeMap::new(),
            near_duplicate_of: BTreeMap::new(),
            capped: taken.capped.clone(),
            selected: taken.rows.iter().map(row).collect(),
        }
    }

    /// Writes it, atomically.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        crate::fs::write_json(path, self)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If it is not there, or is no such file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs_err::read(path)?;
        let file: Self = serde_json::from_slice(&bytes).map_err(|err| damaged(path, &err))?;
        if file.format != FORMAT {
            return Err(damaged(path, &format!("format {} instead of {FORMAT}", file.format)));
        }
        Ok(file)
    }

    /// Whether it was made from `scores`, whose rows are in order of id: every row
    /// that was selected has the score there that it was selected with.
    pub fn is_of(&self, scores: &ScoreTable) -> bool {
        let is_of = |row: &SelectedRow| {
            let found = position(scores, row.id).map(|at| &scores.rows[at].by_subtask);
            found.and_then(|by_subtask| by_subtask.get(row.subtask)) == Some(&row.score)
        };
        self.selected.iter().all(is_of)
    }

    /// The rows as places in `scores`, whose rows are in order of id. Those that
    /// were left out get a flag there, unless they have one.
    ///
    /// # Errors
    ///
    /// If a row or its subtask is not in `scores`, or a row cannot have been selected of
    /// them: it has no score, or stands there twice.
    pub fn apply(&self, scores: &mut ScoreTable, path: &Path) -> io::Result<Vec<Selected>> {
        let missing = || damaged(path, &"it is of other scores");
        let mut is_selected = BTreeSet::new();
        for (id, reason) in &self.left_out {
            let at = position(scores, *id).ok_or_else(missing)?;
            scores.rows[at].flag.get_or_insert_with(|| reason.clone());
        }
        let place = |(rank, row): (usize, &SelectedRow)| {
            let position = position(scores, row.id).ok_or_else(missing)?;
            let ScoreRow { flag, by_subtask, .. } = &scores.rows[position];
            let is_of_these = flag.is_none() && row.subtask < by_subtask.len();
            if !is_of_these || !is_selected.insert(position) {
                return Err(missing());
            }
            let SelectedRow { score, subtask, example, .. } = *row;
            Ok(Selected { position, rank, score, subtask, example })
        };
        (1..).zip(&self.selected).map(place).collect()
    }
}

fn position(scores: &ScoreTable, id: ExampleId) -> Option<usize> {
    scores.rows.binary_search_by_key(&id, |row| row.id).ok()
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    let message = format!("`{}` is no selection this version can read: {why}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::super::{top, toy::table};
    use super::*;

    #[test]
    fn a_selection_read_back_is_the_one_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("selection.json");
        let mut scores = table(&["a", "b"], &[&[0.1, 0.2], &[0.5, 0.3], &[0.4, 0.9]]);
        let selected = top(&scores, "2".parse().unwrap());
        let left_out = BTreeMap::from([(scores.rows[0].id, "contaminated".to_owned())]);
        let taken = Taken { rows: selected.clone(), ..Taken::default() };
        let file = SelectionFile { left_out, ..SelectionFile::new(&scores, &taken, Selector::Top) };
        file.write(&path).unwrap();
        let read = SelectionFile::read(&path).unwrap();
        assert_eq!(read, file);
        assert!(read.is_of(&scores));
        assert_eq!(read.apply(&mut scores, &path).unwrap(), selected);
        let flags: Vec<_> = scores.rows.iter().map(|row| row.flag.as_deref()).collect();
        assert_eq!(flags, [Some("contaminated"), None, None]);

        let twice = SelectionFile { selected: [&file.selected[..]; 2].concat(), ..file.clone() };
        assert!(twice.apply(&mut scores.clone(), &path).is_err());
        let mut flagged = scores.clone();
        flagged.rows[1].flag = Some("zero gradient".to_owned());
        assert!(file.apply(&mut flagged, &path).is_err());
        scores.rows[1].by_subtask[0] = 0.6;
        assert!(!read.is_of(&scores));
        scores.rows.pop();
        assert!(!read.is_of(&scores));
        let failed = read.apply(&mut scores, Path::new("selection.json")).unwrap_err();
        insta::assert_snapshot!(failed, @"`selection.json` is no selection this version can read: it is of other scores");
    }
}
