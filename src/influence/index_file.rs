//! The target's index on disk.
//!
//! Two Arrow IPC files a checkpoint in `index/`, committed and proven whole
//! like the shards of the [store](crate::store):
//!
//! ```text
//! epoch-1.arrow        a row a subtask:
//!                        subtask          utf8
//!                        n_examples       u32
//!                        n_flagged        u32
//!                        mean-of-cosines  fixed_size_list<f32>[proj_dim]
//!                        cosine-of-mean   fixed_size_list<f32>[proj_dim]
//! epoch-1-rows.arrow   a row a usable target example, in order of id:
//!                        id               fixed_size_binary(16)
//!                        subtask          u32, position in epoch-1.arrow
//!                        sgd              fixed_size_list<f32>[proj_dim]   unit length
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryArray, Float32Array, RecordBatch, StringArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt32Type};
use arrow::error::ArrowError;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::index::{Subtask, TargetIndex, TargetRows};
use crate::pool::ExampleId;
use crate::store::shard::StoreHeader;
use crate::store::{
    CheckedFile, FORMAT, Proof, StoreError, StoreErrorKind, commit, list_type, lists,
};

/// The header both files carry.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexHeader {
    format: u32,
    store: StoreHeader,
}

impl TargetIndex {
    /// Writes the index into the folder `dir`, under the checkpoint's name.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let header = IndexHeader { format: FORMAT, store: self.store.clone() };
        let [subtasks, rows] = paths(dir, &self.store.checkpoint);
        let write = |path: &Path, batch: Result<RecordBatch, ArrowError>| {
            let batch = batch.map_err(|err| StoreErrorKind::from(err).at(path))?;
            commit(path, &header, &self.fingerprint, &batch)
        };
        // Rows first: `open` begins with the subtasks.
        write(&rows, self.rows_batch())?;
        write(&subtasks, self.subtasks_batch())
    }

    /// Reads the index of one checkpoint from the folder `dir`.
    ///
    /// # Errors
    ///
    /// If a file is not committed, cannot be read, is not what was committed in
    /// any byte, or does not belong to the other.
    pub fn open(dir: &Path, checkpoint: &str) -> Result<Self, StoreError> {
        let [subtasks_path, rows_path] = paths(dir, checkpoint);
        let subtasks = CheckedFile::<IndexHeader>::open(&subtasks_path, Proof::Checksum)?;
        let rows = CheckedFile::<IndexHeader>::open(&rows_path, Proof::Checksum)?;
        let proj_dim = subtasks.header.store.proj_dim;
        check(&subtasks, &subtasks_schema(proj_dim)).map_err(|kind| kind.at(&subtasks_path))?;
        check(&rows, &rows_schema(proj_dim)).map_err(|kind| kind.at(&rows_path))?;
        let n_subtasks = subtasks.batch.num_rows() as u32;
        let of = rows.batch.column(1).as_primitive::<UInt32Type>().values();
        let is_one_index = rows.header == subtasks.header
            && rows.fingerprint == subtasks.fingerprint
            && of.iter().all(|subtask| *subtask < n_subtasks);
        if !is_one_index {
            let kind = StoreErrorKind::Layout("does not belong to the subtasks beside it");
            return Err(kind.at(&rows_path));
        }
        let (ids, _) = rows.batch.column(0).as_fixed_size_binary().value_data().as_chunks();
        Ok(Self {
            subtasks: read_subtasks(&subtasks.batch),
            rows: TargetRows {
                ids: ids.iter().copied().map(ExampleId).collect(),
                subtasks: of.to_vec(),
                unit: matrix(&rows.batch, 2, proj_dim),
            },
            mean_of_cosines: matrix(&subtasks.batch, 3, proj_dim),
            cosine_of_mean: matrix(&subtasks.batch, 4, proj_dim),
            store: subtasks.header.store,
            fingerprint: subtasks.fingerprint,
        })
    }

    /// The data files of the index of one checkpoint in the folder `dir`.
    pub fn files(dir: &Path, checkpoint: &str) -> [PathBuf; 2] {
        paths(dir, checkpoint)
    }

    fn subtasks_batch(&self) -> Result<RecordBatch, ArrowError> {
        let names = self.subtasks.iter().map(|subtask| Some(&*subtask.name));
        let n_examples = self.subtasks.iter().map(|subtask| subtask.n_examples);
        let n_flagged = self.subtasks.iter().map(|subtask| subtask.n_flagged);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(names.collect::<StringArray>()),
            Arc::new(UInt32Array::from_iter_values(n_examples)),
            Arc::new(UInt32Array::from_iter_values(n_flagged)),
            column(&self.mean_of_cosines)?,
            column(&self.cosine_of_mean)?,
        ];
        RecordBatch::try_new(Arc::new(subtasks_schema(self.store.proj_dim)), columns)
    }

    fn rows_batch(&self) -> Result<RecordBatch, ArrowError> {
        let ids = self.rows.ids.iter().map(|id| id.0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids)?),
            Arc::new(UInt32Array::from(self.rows.subtasks.clone())),
            column(&self.rows.unit)?,
        ];
        RecordBatch::try_new(Arc::new(rows_schema(self.store.proj_dim)), columns)
    }
}

/// The files of subtasks and of rows.
fn paths(dir: &Path, checkpoint: &str) -> [PathBuf; 2] {
    ["", "-rows"].map(|suffix| dir.join(format!("{checkpoint}{suffix}.arrow")))
}

fn subtasks_schema(proj_dim: usize) -> Schema {
    let rows = list_type(DataType::Float32, proj_dim);
    Schema::new(vec![
        Field::new("subtask", DataType::Utf8, false),
        Field::new("n_examples", DataType::UInt32, false),
        Field::new("n_flagged", DataType::UInt32, false),
        Field::new("mean-of-cosines", rows.clone(), false),
        Field::new("cosine-of-mean", rows, false),
    ])
}

fn rows_schema(proj_dim: usize) -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(16), false),
        Field::new("subtask", DataType::UInt32, false),
        Field::new("sgd", list_type(DataType::Float32, proj_dim), false),
    ])
}

/// After this, columns are where and what `schema` says.
fn check(file: &CheckedFile<IndexHeader>, schema: &Schema) -> Result<(), StoreErrorKind> {
    if file.header.format != FORMAT {
        return Err(StoreErrorKind::Format(file.header.format));
    }
    if file.batch.schema().fields() != schema.fields() {
        return Err(StoreErrorKind::Layout("has other columns than an index"));
    }
    Ok(())
}

fn column(rows: &Array2<f32>) -> Result<ArrayRef, ArrowError> {
    let values = Float32Array::from_iter_values(rows.iter().copied());
    Ok(Arc::new(lists(Arc::new(values), rows.ncols())?))
}

fn matrix(batch: &RecordBatch, column: usize, proj_dim: usize) -> Array2<f32> {
    let values = batch.column(column).as_fixed_size_list().values().as_primitive::<Float32Type>();
    Array2::from_shape_vec((batch.num_rows(), proj_dim), values.values().to_vec())
        .expect("the schema was compared")
}

fn read_subtasks(batch: &RecordBatch) -> Vec<Subtask> {
    let names = batch.column(0).as_string::<i32>();
    let n_examples = batch.column(1).as_primitive::<UInt32Type>().values();
    let n_flagged = batch.column(2).as_primitive::<UInt32Type>().values();
    names
        .iter()
        .zip(n_examples.iter().zip(n_flagged))
        .map(|(name, (&n_examples, &n_flagged))| Subtask {
            name: name.unwrap_or_default().to_owned(),
            n_examples,
            n_flagged,
        })
        .collect()
}
