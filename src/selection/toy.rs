//! Score tables, cosines and rows for the tests of selectors.

use std::ops::Range;

use super::selector::{RowCosines, TargetCosines};
use crate::influence::example_scores::{TargetExample, TargetExamples};
use crate::influence::scores::{ScoreRow, ScoreTable};
use crate::pool::ExampleId;

/// A row with ids counted from 0 and ten tokens each.
pub(super) fn table(subtasks: &[&str], rows: &[&[f32]]) -> ScoreTable {
    let row = |(id, by_subtask): (u8, &&[f32])| ScoreRow {
        id: ExampleId([id; 16]),
        source: "pool".to_owned(),
        n_tokens: 10,
        n_supervised: 1,
        loss: 1.0,
        norm: 1.0,
        flag: None,
        by_subtask: by_subtask.to_vec(),
    };
    ScoreTable {
        subtasks: subtasks.iter().map(ToString::to_string).collect(),
        rows: (0..).zip(rows).map(row).collect(),
    }
}

/// A matrix, and the subtask of each column.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) targets: TargetExamples,
    pub(super) rows: Vec<Vec<f32>>,
}

impl Matrix {
    pub(super) fn new(columns: &[u32], rows: &[&[f32]]) -> Self {
        let example = |(id, subtask): (u8, &u32)| TargetExample {
            id: ExampleId([id; 16]),
            subtask: *subtask,
        };
        let n_subtasks = columns.iter().max().map_or(0, |last| last + 1);
        let targets = TargetExamples {
            subtasks: (0..n_subtasks).map(|subtask| format!("target/{subtask}")).collect(),
            examples: (0..).zip(columns).map(example).collect(),
        };
        Self { targets, rows: rows.iter().map(|row| row.to_vec()).collect() }
    }

    /// The score table of the means over the subtasks.
    pub(super) fn scores(&self) -> ScoreTable {
        let mean = |row: &Vec<f32>, subtask: usize| {
            let own = self.targets.examples.iter().zip(row);
            let own = own.filter(|(of, _)| of.subtask as usize == subtask);
            let own: Vec<f32> = own.map(|(_, cosine)| *cosine).collect();
            own.iter().sum::<f32>() / own.len() as f32
        };
        let n_subtasks = self.targets.subtasks.len();
        let row = |row| (0..n_subtasks).map(|subtask| mean(row, subtask)).collect();
        let rows: Vec<Vec<f32>> = self.rows.iter().map(row).collect();
        let names: Vec<&str> = self.targets.subtasks.iter().map(String::as_str).collect();
        table(&names, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

impl TargetCosines for Matrix {
    fn targets(&self) -> &TargetExamples {
        &self.targets
    }

    fn n_rows(&self) -> usize {
        self.rows.len()
    }

    fn total(&self, rows: Range<usize>) -> Vec<f32> {
        self.rows[rows].concat()
    }
}

/// Rows of unit length.
#[derive(Debug)]
pub(super) struct Vectors(pub(super) Vec<Vec<f32>>);

impl RowCosines for Vectors {
    fn cosines(&self, queries: &[usize], rows: &[usize]) -> Vec<f32> {
        let product = |a: usize, b: usize| -> f32 {
            self.0[a].iter().zip(&self.0[b]).map(|(a, b)| a * b).sum()
        };
        rows.iter().flat_map(|row| queries.iter().map(|query| product(*row, *query))).collect()
    }
}
