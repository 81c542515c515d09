//! Reading an example table.

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::cast::AsArray;
use arrow::array::types::{UInt32Type, UInt64Type};
use arrow::array::{Array, RecordBatch};
use fs_err as fs;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::ChunkReader;

use super::{Example, ExampleId, Message, Origin, Record, TableRow, schema};
use crate::pool::PoolError;
use crate::pool::error::TableErrorKind;
use crate::pool::guard::{check, guarded};

/// A canonical table, its row heads in memory, the rest read on demand.
///
/// Every read opens the file anew, so a table may be shared between threads.
/// What is read is compared with the ids seen at opening: a file that was
/// damaged or replaced meanwhile is an error, never a wrong row.
#[derive(Debug)]
pub struct ExampleTable {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    rows: Vec<TableRow>,
}

impl ExampleTable {
    /// Opens a table that `ingest` wrote.
    ///
    /// # Errors
    ///
    /// If the file is missing, damaged or not such a table.
    pub fn open(path: &Path) -> Result<Self, PoolError> {
        let fail = |kind| PoolError::Table { path: path.to_owned(), kind };
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let file = fs::File::open(path)?;
        let (metadata, rows) = guarded(|| {
            check(&file)?;
            let file = file.into_parts().0;
            let metadata = ArrowReaderMetadata::load(&file, options)?;
            let rows = read_heads(file, &metadata)?;
            Ok((metadata, rows))
        })
        .map_err(fail)?;
        Ok(Self { path: path.to_owned(), metadata, rows })
    }

    /// The row heads, sorted by id (then, in a target, source and subtask).
    pub fn rows(&self) -> &[TableRow] {
        &self.rows
    }

    /// The examples at positions `range`, in order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or its tokens are not those of the ids.
    ///
    /// # Panics
    ///
    /// If the range ends past the last row.
    pub fn examples(&self, range: Range<usize>) -> Result<Vec<Example>, PoolError> {
        self.examples_at(&range.collect::<Vec<_>>())
    }

    /// The examples at `positions` (ascending).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or its tokens are not those of the ids.
    ///
    /// # Panics
    ///
    /// If a position is past the last row, or they do not ascend.
    pub fn examples_at(&self, positions: &[usize]) -> Result<Vec<Example>, PoolError> {
        self.read(&schema::EXAMPLE, positions, example)
    }

    /// The records at `positions` (ascending).
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    ///
    /// # Panics
    ///
    /// If a position is past the last row, or they do not ascend.
    pub fn records(&self, positions: &[usize]) -> Result<Vec<Record>, PoolError> {
        self.read(&schema::RECORD, positions, record)
    }

    /// Where the rows at `positions` (ascending) were read from.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    ///
    /// # Panics
    ///
    /// If a position is past the last row, or they do not ascend.
    pub fn origins(&self, positions: &[usize]) -> Result<Vec<Origin>, PoolError> {
        self.read(&schema::ORIGIN, positions, |batch, row, _| {
            let line = column(batch, "line").as_primitive::<UInt64Type>().value(row);
            Ok(Origin { file: text(batch, "file", row), line })
        })
    }

    /// Decodes the rows at `positions` with `decode(batch, row in the batch,
    /// position)`.
    fn read<T>(
        &self,
        columns: &[&str],
        positions: &[usize],
        decode: impl Fn(&RecordBatch, usize, usize) -> Result<T, TableErrorKind>,
    ) -> Result<Vec<T>, PoolError> {
        assert!(positions.last().is_none_or(|last| *last < self.rows.len()), "rows of the table");
        assert!(positions.is_sorted_by(|a, b| a < b), "ascending positions");
        let file = fs::File::open(&self.path)?.into_parts().0;
        let (groups, selection) = self.select(positions);
        let rows = guarded(|| {
            let reader = builder(file, &self.metadata, columns)
                .with_row_groups(groups)
                .with_row_selection(selection)
                .build()?;
            let mut rows = Vec::with_capacity(positions.len());
            for batch in reader {
                let batch = batch?;
                for row in 0..batch.num_rows() {
                    let Some(&position) = positions.get(rows.len()) else {
                        return Err(row_error(rows.len(), "more rows than at opening"));
                    };
                    if id(&batch, row, position)? != self.rows[position].id {
                        return Err(row_error(position, "another id than at opening"));
                    }
                    rows.push(decode(&batch, row, position)?);
                }
            }
            match positions.get(rows.len()) {
                Some(&missing) => Err(row_error(missing, "fewer rows than at opening")),
                None => Ok(rows),
            }
        });
        rows.map_err(|kind| PoolError::Table { path: self.path.clone(), kind })
    }

    /// The row groups that hold `positions`, and these as rows of those.
    fn select(&self, positions: &[usize]) -> (Vec<usize>, RowSelection) {
        let (mut groups, mut ranges) = (Vec::new(), Vec::new());
        let (mut group_start, mut n_selected) = (0, 0);
        let mut rest = positions;
        for (group, n_rows) in group_sizes(&self.metadata).enumerate() {
            let (here, later) =
                rest.split_at(rest.partition_point(|position| *position < group_start + n_rows));
            if !here.is_empty() {
                groups.push(group);
                ranges.extend(here.iter().map(|position| {
                    let row = position - group_start + n_selected;
                    row..row + 1
                }));
                n_selected += n_rows;
            }
            rest = later;
            group_start += n_rows;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), n_selected))
    }
}

fn read_heads(
    file: impl ChunkReader + 'static,
    metadata: &ArrowReaderMetadata,
) -> Result<Vec<TableRow>, TableErrorKind> {
    schema::check(metadata.schema())?;
    let mut rows: Vec<TableRow> = Vec::new();
    for batch in builder(file, metadata, &schema::HEAD).build()? {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let head = head(&batch, row, rows.len())?;
            if let Some(last) = rows.last() {
                check_order(last, &head).map_err(|problem| row_error(rows.len(), problem))?;
            }
            rows.push(head);
        }
    }
    if rows.len() == group_sizes(metadata).sum::<usize>() {
        Ok(rows)
    } else {
        Err(row_error(rows.len(), "the end, though the footer promises another number of rows"))
    }
}

/// Rows of every row group. A negative number, in a damaged footer, is none.
fn group_sizes(metadata: &ArrowReaderMetadata) -> impl Iterator<Item = usize> {
    let groups = metadata.metadata().row_groups().iter();
    groups.map(|group| usize::try_from(group.num_rows()).unwrap_or(0))
}

fn check_order(last: &TableRow, next: &TableRow) -> Result<(), &'static str> {
    let key = |row: &TableRow| (row.id, row.source.clone(), row.subtask.clone());
    if last.id == next.id && next.subtask.is_none() {
        return Err("the id of the row before it");
    }
    if key(last) >= key(next) { Err("out of order") } else { Ok(()) }
}

fn builder<T: ChunkReader + 'static>(
    file: T,
    metadata: &ArrowReaderMetadata,
    columns: &[&str],
) -> ParquetRecordBatchReaderBuilder<T> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask)
}

fn head(batch: &RecordBatch, row: usize, position: usize) -> Result<TableRow, TableErrorKind> {
    let number = |name| column(batch, name).as_primitive::<UInt32Type>().value(row);
    let subtask = column(batch, "subtask").as_string::<i32>();
    let head = TableRow {
        id: id(batch, row, position)?,
        source: text(batch, "source", row),
        subtask: subtask.is_valid(row).then(|| subtask.value(row).to_owned()),
        n_tokens: number("n_tokens"),
        n_supervised: number("n_supervised"),
        truncated: column(batch, "truncated").as_boolean().value(row),
    };
    if head.n_supervised == 0 || head.n_supervised >= head.n_tokens {
        return Err(row_error(position, "impossible token counts"));
    }
    Ok(head)
}

fn example(batch: &RecordBatch, row: usize, position: usize) -> Result<Example, TableErrorKind> {
    let token_ids = column(batch, "token_ids").as_list::<i32>().value(row);
    let supervised = column(batch, "supervised").as_list::<i32>().value(row);
    let token_ids = token_ids.as_primitive::<UInt32Type>().values().to_vec();
    let supervised: Vec<bool> = supervised.as_boolean().values().iter().collect();
    let id = id(batch, row, position)?;
    if token_ids.len() != supervised.len() || ExampleId::of(&token_ids, &supervised) != id {
        return Err(row_error(position, "its tokens are not those of its id"));
    }
    Ok(Example { id, token_ids, supervised })
}

fn record(batch: &RecordBatch, row: usize, position: usize) -> Result<Record, TableErrorKind> {
    let messages = column(batch, "messages").as_list::<i32>().value(row);
    let messages = messages.as_struct();
    let (roles, contents) =
        (messages.column(0).as_string::<i32>(), messages.column(1).as_string::<i32>());
    let messages = roles
        .iter()
        .zip(contents)
        .map(|(role, content)| Message {
            role: role.unwrap_or_default().to_owned(),
            content: content.unwrap_or_default().to_owned(),
        })
        .collect();
    let original = serde_json::from_str(&text(batch, "original", row))
        .map_err(|source| TableErrorKind::Original { row: position, source })?;
    Ok(Record { messages, original })
}

fn id(batch: &RecordBatch, row: usize, position: usize) -> Result<ExampleId, TableErrorKind> {
    let id = column(batch, "id").as_string::<i32>().value(row);
    id.parse().map_err(|()| row_error(position, "an id that is not 32 hex digits"))
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> String {
    column(batch, name).as_string::<i32>().value(row).to_owned()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).expect("the schema was checked at opening")
}

fn row_error(row: usize, problem: &'static str) -> TableErrorKind {
    TableErrorKind::Row { row, problem }
}
