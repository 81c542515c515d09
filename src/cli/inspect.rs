//! `less-select inspect`: what is in a file or folder that a run wrote.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use serde_json::{Map, Value, json};

use super::Answer;
use super::exit::{CliError, with_causes};
use crate::checkpoint::{self, Checkpoint};
use crate::influence::example_scores::CosinesHeader;
use crate::influence::example_scores_file::{CosinesFile, is_cosines};
use crate::influence::index::TargetIndex;
use crate::pipeline::PipelineError;
use crate::pipeline::manifest::Manifest;
use crate::pool::guard::{check, guarded};
use crate::run_dir::RunDir;
use crate::store::shard::Shard;
use crate::tensor_file::TensorFile;

/// Rows shown of a table.
const SHOWN: usize = 3;
/// Characters shown of a line.
const WIDTH: usize = 160;

/// Says what `path` is and what is in it.
pub(super) fn inspect(path: &Path) -> Result<Answer, CliError> {
    let extension = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
    let json = match extension {
        _ if path.is_dir() => folder(path)?,
        "parquet" => table(path)?,
        "arrow" => shard(path)?,
        "safetensors" => tensors(path)?,
        // `lock` and `latest` have no ending.
        "json" | "jsonl" | "toml" | "html" | "md" | "txt" | "lock" | "" => return text(path),
        _ => return Err(not_ours(path, "no file of a run ends so")),
    };
    Ok(Answer::done(outline(&json), json))
}

fn folder(path: &Path) -> Result<Value, CliError> {
    let run = RunDir::new(path);
    if run.manifest().is_file() {
        let manifest = Manifest::read(&run)?;
        return Ok(json!({ "kind": "run", "stages": manifest.stages }));
    }
    if checkpoint::is_checkpoint(path) {
        return checkpoint_folder(path);
    }
    if path.join("dataset_info.json").is_file() {
        let tables = files_in(&path.join("data"))?.into_iter().map(|file| table(&file));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        return Ok(json!({ "kind": "subset", "files": tables }));
    }
    let shards: Vec<_> = files_in(path)?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|ext| ext == "arrow"))
        .map(|file| shard(&file))
        .collect::<Result<_, _>>()?;
    if shards.is_empty() {
        return Err(not_ours(path, "not a run, a checkpoint, a gradient store or a subset"));
    }
    Ok(json!({ "kind": "gradient store", "shards": shards }))
}

fn checkpoint_folder(path: &Path) -> Result<Value, CliError> {
    let checkpoint = Checkpoint::open(path).map_err(PipelineError::from)?;
    let files =
        files_in(path)?.into_iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors"));
    let tensors = files.map(|file| tensors(&file)).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "kind": "checkpoint",
        "label": checkpoint.label(),
        "mean learning rate": checkpoint.learning_rate(),
        "files": tensors,
    }))
}

/// Schema, size and first rows of a Parquet file.
fn table(path: &Path) -> Result<Value, CliError> {
    let file = fs_err::File::open(path)?;
    let read = || -> Result<Value, ParquetError> {
        check(&file)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.into_parts().0)?;
        let n_rows = builder.metadata().file_metadata().num_rows();
        let columns: Map<_, _> = builder
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), json!(field.data_type().to_string())))
            .collect();
        let reader = builder.with_limit(SHOWN).build()?;
        let rows = reader.map(|batch| as_json(&batch?)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(json!({
            "kind": "table", "file": path, "rows": n_rows, "columns": columns, "first rows": rows,
        }))
    };
    guarded(read).map_err(|err| not_ours(path, &err.to_string()))
}

fn as_json(batch: &RecordBatch) -> Result<Vec<Value>, ArrowError> {
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    writer.write(batch)?;
    writer.finish()?;
    let text = String::from_utf8_lossy(&lines);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Header and row facts of a gradient shard or an index; the checksum is
/// verified.
fn shard(path: &Path) -> Result<Value, CliError> {
    if is_cosines(path) {
        return cosines(path);
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if !stem.starts_with("shard-") {
        return index(path, stem.strip_suffix("-rows").unwrap_or(&stem));
    }
    let shard = Shard::open(path).map_err(PipelineError::from)?;
    Ok(json!({
        "kind": "gradient shard",
        "file": path,
        "rows": shard.n_rows(),
        "flagged": shard.n_flagged(),
        "header": shard.header(),
    }))
}

/// Whose cosines with whom a file holds.
fn cosines(path: &Path) -> Result<Value, CliError> {
    let file = CosinesFile::open(path).map_err(PipelineError::from)?;
    let CosinesHeader { checkpoint, weight, targets } = file.header();
    let subtasks = targets.subtasks.iter().zip(0..).map(|(name, subtask)| {
        let n_examples = targets.examples.iter().filter(|of| of.subtask == subtask).count();
        json!({ "subtask": name, "examples": n_examples })
    });
    Ok(json!({
        "kind": "cosines",
        "file": path,
        "rows": file.n_rows(),
        "checkpoint": checkpoint,
        "weight": weight,
        "subtasks": subtasks.collect::<Vec<_>>(),
    }))
}

/// The subtasks of a target's index.
fn index(path: &Path, checkpoint: &str) -> Result<Value, CliError> {
    let index =
        TargetIndex::open(crate::fs::parent(path), checkpoint).map_err(PipelineError::from)?;
    let subtasks = index.subtasks.iter().map(|subtask| {
        json!({ "subtask": subtask.name, "examples": subtask.n_examples, "flagged": subtask.n_flagged })
    });
    Ok(json!({
        "kind": "target index",
        "file": path,
        "header": index.store,
        "subtasks": subtasks.collect::<Vec<_>>(),
    }))
}

/// Names, types and shapes in a safetensors file.
fn tensors(path: &Path) -> Result<Value, CliError> {
    let file = TensorFile::open(path).map_err(|err| not_ours(path, &with_causes(&err)))?;
    let mut names = file.names();
    names.sort();
    let tensors: Map<_, _> = names
        .into_iter()
        .filter_map(|name| {
            let tensor = file.tensor(&name)?;
            let words = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            Some((name, json!(words)))
        })
        .collect();
    Ok(json!({ "kind": "tensors", "file": path, "tensors": tensors }))
}

fn text(path: &Path) -> Result<Answer, CliError> {
    let text = fs_err::read_to_string(path)?;
    let json = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
    Ok(Answer::done(text, json))
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = fs_err::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

fn not_ours(path: &Path, why: &str) -> CliError {
    CliError::NotOurs { path: path.display().to_string(), why: why.to_owned() }
}

/// JSON as an indented outline without its punctuation.
fn outline(value: &Value) -> String {
    let mut text = String::new();
    write_outline(&mut text, value, 0);
    text
}

fn write_outline(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().map(|item| ("-".to_owned(), item)).collect(),
        _ => return,
    };
    for (name, value) in entries {
        let nested = value.is_object()
            || value.as_array().is_some_and(|items| items.iter().any(Value::is_object));
        if nested && depth < 3 {
            writeln!(text, "{indent}{name}").expect("a string takes all");
            write_outline(text, value, depth + 1);
        } else {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(text, "{indent}{name:<14} {}", cut(&shown)).expect("a string takes all");
        }
    }
}

fn cut(text: &str) -> String {
    let line: String = text.chars().filter(|c| !c.is_control()).take(WIDTH + 1).collect();
    if line.chars().count() <= WIDTH {
        return line;
    }
    format!("{}…", line.chars().take(WIDTH).collect::<String>())
}
