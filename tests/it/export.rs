//! The dataset folder: what is in it, and what a failure leaves behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use fs_err as fs;
use less_select::method::Method;
use less_select::selection::Schema;
use less_select::selection::export::{Published, SubsetRow, publish};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::ChunkReader;
use serde_json::{Value, json};

use crate::scored_pool::ScoredPool;

fn provenance() -> Value {
    json!({ "less-select": "0.1.0", "settings": { "budget": "0.1", "gradient": "adam-v" } })
}

fn published(run_dir: &Path, rows: &[SubsetRow<'_>], schema: Schema) -> Published {
    publish(run_dir, rows, Method::Less, schema, &provenance()).unwrap()
}

fn reader(published: &Published) -> ParquetRecordBatchReaderBuilder<impl ChunkReader + 'static> {
    let file = fs::File::open(&published.data_file).unwrap().into_file();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap()
}

fn group_rows(metadata: &ParquetMetaData) -> Vec<i64> {
    metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect()
}

/// The data, as lines of JSON.
fn rows_of(published: &Published) -> Vec<Value> {
    let mut lines = arrow::json::ArrayWriter::new(Vec::new());
    for batch in reader(published).build().unwrap() {
        lines.write(&batch.unwrap()).unwrap();
    }
    lines.finish().unwrap();
    serde_json::from_slice(&lines.into_inner()).unwrap()
}

/// Names of everything below `dir`, hashes replaced.
fn tree(dir: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/");
            names.insert(name);
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    names
}

#[test]
fn the_folder_holds_what_trainers_look_for_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let subset = published(dir.path(), &ScoredPool::new(100).subset("10%"), Schema::Messages);
    let folder = subset.path.file_name().unwrap().to_str().unwrap();
    let data = subset.data_file.file_name().unwrap().to_str().unwrap();
    let names = tree(dir.path()).into_iter().collect::<Vec<_>>().join("\n");
    insta::with_settings!({ filters => FILTERS }, {
        insta::assert_snapshot!(names, @r"
        latest
        subset-<8 hex>
        subset-<8 hex>/README.md
        subset-<8 hex>/data
        subset-<8 hex>/data/train-00000-of-00001-<16 hex>.parquet
        subset-<8 hex>/dataset_info.json
        subset-<8 hex>/less-select.json
        ");
    });
    assert_eq!(fs::read_to_string(dir.path().join("latest")).unwrap(), format!("{folder}\n"));
    let card = fs::read_to_string(subset.path.join("README.md")).unwrap();
    assert!(card.contains(&format!("    path: data/{data}\n")), "{card}");
}

#[test]
fn names_are_hashes_of_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let first = published(dir.path(), &pool.subset("10%"), Schema::Messages);
    let again = published(dir.path(), &pool.subset("10%"), Schema::Messages);
    let other = published(dir.path(), &pool.subset("11%"), Schema::Messages);
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = published(elsewhere.path(), &pool.subset("10%"), Schema::Messages);

    assert_eq!(first, again);
    assert_eq!(first.path.file_name(), moved.path.file_name());
    assert_ne!(first.path, other.path);
    assert_ne!(first.data_file.file_name(), other.data_file.file_name());
    let hash = blake3::hash(&fs::read(&first.data_file).unwrap()).to_hex().to_string();
    assert!(first.data_file.to_str().unwrap().ends_with(&format!("-{}.parquet", &hash[..16])));
    let latest = fs::read_to_string(dir.path().join("latest")).unwrap();
    assert_eq!(dir.path().join(latest.trim_end()), other.path);
}

#[test]
fn the_messages_schema_has_every_column_in_rank_order() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let subset = pool.subset("10%");
    let rows = rows_of(&published(dir.path(), &subset, Schema::Messages));
    assert_eq!(rows.len(), 10);
    for (row, expected) in rows.iter().zip(&subset) {
        assert_eq!(row["id"], expected.id.to_string());
        assert_eq!(row["source"], expected.source);
        assert_eq!(row["less_rank"], expected.rank);
        assert_eq!(row["less_subtask"], expected.subtask);
        assert_eq!(row["less_score"].to_string(), expected.score.to_string());
        assert_eq!(row["messages"], json!(expected.record.messages));
    }
}

#[test]
fn column_types_are_those_every_reader_knows() {
    let dir = tempfile::tempdir().unwrap();
    for schema in Schema::ALL {
        let subset = published(dir.path(), &ScoredPool::new(100).subset("30%"), schema);
        for field in reader(&subset).schema().fields() {
            assert_plain(field.data_type());
        }
    }
}

/// No views, no large lists or strings, no dictionaries, no nulls.
fn assert_plain(data_type: &DataType) {
    match data_type {
        DataType::Boolean
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8 => {}
        DataType::List(item) => assert_plain(item.data_type()),
        DataType::Struct(fields) => fields.iter().for_each(|field| assert_plain(field.data_type())),
        other => panic!("{other} is not read everywhere"),
    }
}

#[test]
fn messages_only_has_no_other_column() {
    let dir = tempfile::tempdir().unwrap();
    let subset = published(dir.path(), &ScoredPool::new(100).subset("10%"), Schema::MessagesOnly);
    for row in rows_of(&subset) {
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), ["messages"]);
    }
}

#[test]
fn the_original_schema_keeps_what_the_rows_came_with() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let subset = pool.subset("30%");
    let published = published(dir.path(), &subset, Schema::Original);
    for (row, expected) in rows_of(&published).iter().zip(&subset) {
        assert_eq!(*row, Value::Object(expected.record.original.clone()));
    }
    insta::assert_snapshot!(published.notes.join("\n"), @r"
    trainers read `messages` differently beside `prompt`; the `messages` schema leaves such columns out
    sources differ in their columns, absent values are null: `gsm8k` has messages, level; `p3` has prompt, completion, task; `role-play` has instruction, input, output
    ");
}

#[test]
fn provenance_stands_in_the_folder_and_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let subset = published(dir.path(), &ScoredPool::new(100).subset("10%"), Schema::Messages);
    let text = fs::read_to_string(subset.path.join("less-select.json")).unwrap();
    let contents: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(contents["format"], 1);
    assert_eq!(contents["provenance"], provenance());
    assert_eq!(contents["subset"]["n_rows"], 10);
    assert_eq!(contents["subset"]["n_tokens"], subset.n_tokens);

    let reader = reader(&subset);
    let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let keys: Vec<&str> = metadata.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["less-select", "ARROW:schema"]);
    let value = metadata[0].value.as_ref().unwrap();
    assert_eq!(serde_json::from_str::<Value>(value).unwrap(), provenance());
}

#[test]
fn row_groups_are_bounded_compressed_and_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let mut rows = Vec::new();
    for _ in 0..230 {
        rows.extend(pool.subset("100%"));
    }
    let subset = published(dir.path(), &rows, Schema::Messages);
    let reader = reader(&subset);
    let groups = group_rows(reader.metadata());
    assert_eq!(groups, [10_000, 10_000, 2_770]);
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            assert_eq!(column.compression().to_string(), "ZSTD(ZstdLevel(1))");
            assert!(column.offset_index_offset().is_some());
            assert!(column.column_index_offset().is_some());
        }
    }
}

#[test]
fn row_groups_of_long_rows_are_bounded_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let mut rows = pool.subset("90");
    for row in &mut rows {
        row.record.messages[0].content = "long ".repeat(400_000);
    }
    let subset = published(dir.path(), &rows, Schema::MessagesOnly);
    let reader = reader(&subset);
    let groups = group_rows(reader.metadata());
    assert_eq!(groups, [40, 40, 10]);
}

#[test]
fn what_a_killed_run_left_is_removed_and_what_others_made_is_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(".writing-x1y2z3")).unwrap();
    fs::create_dir(dir.path().join("subset-of-mine")).unwrap();
    fs::write(dir.path().join("subset-of-mine/.writing-a1b2c3"), "half").unwrap();
    published(dir.path(), &ScoredPool::new(100).subset("10%"), Schema::Messages);
    less_select::fs::remove_unfinished(dir.path()).unwrap();
    let names = tree(dir.path());
    assert!(names.contains("subset-of-mine"));
    assert!(!names.iter().any(|name| name.contains(".writing")), "{names:?}");
}

#[test]
fn an_edited_card_is_kept_and_changed_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pool = ScoredPool::new(100);
    let subset = published(dir.path(), &pool.subset("10%"), Schema::Messages);
    fs::write(subset.path.join("README.md"), "my own words").unwrap();
    published(dir.path(), &pool.subset("10%"), Schema::Messages);
    assert_eq!(fs::read_to_string(subset.path.join("README.md")).unwrap(), "my own words");

    fs::write(&subset.data_file, "not parquet").unwrap();
    let before = tree(dir.path());
    let error =
        publish(dir.path(), &pool.subset("10%"), Method::Less, Schema::Messages, &provenance())
            .unwrap_err();
    insta::with_settings!({ filters => FILTERS }, {
        insta::assert_snapshot!(chain(&error, dir.path()), @r"
        failed to publish the subset in `<dir>`
        `<dir>/subset-<8 hex>/data/train-00000-of-00001-<16 hex>.parquet` is not the file that was published; remove its folder to publish it anew
        ");
    });
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn an_empty_subset_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let error = publish(&run_dir, &[], Method::Less, Schema::Messages, &provenance()).unwrap_err();
    insta::with_settings!({ filters => FILTERS }, {
        insta::assert_snapshot!(chain(&error, dir.path()), @r"
        failed to publish the subset in `<dir>/run`
        no example was selected
        ");
    });
    assert!(!run_dir.exists());
}

#[test]
fn a_run_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let run_dir = dir.path().join("file/run");
    let error = publish(
        &run_dir,
        &ScoredPool::new(100).subset("5"),
        Method::Less,
        Schema::Messages,
        &provenance(),
    )
    .unwrap_err();
    insta::with_settings!({ filters => FILTERS }, {
        insta::assert_snapshot!(chain(&error, dir.path()), @r"
        failed to publish the subset in `<dir>/file/run`
        failed to create directory `<dir>/file/run`: Not a directory (os error 20)
        ");
    });
}

#[test]
#[ignore = "mounts a small file system, which needs root"]
fn a_full_disk_is_named_and_leaves_nothing() {
    let disk = SmallDisk::mount();
    let pool = ScoredPool::new(20_000);
    let small = published(&disk.0, &pool.subset("10"), Schema::Messages);
    let before = tree(&disk.0);
    let error =
        publish(&disk.0, &pool.subset("100%"), Method::Less, Schema::Messages, &provenance())
            .unwrap_err();
    insta::with_settings!({ filters => FILTERS }, {
        insta::assert_snapshot!(chain(&error, &disk.0), @r"
        failed to publish the subset in `<dir>`
        failed to write to file `<dir>/.subset-unfinished-<random>/data/train.parquet`: No space left on device (os error 28)
        ");
    });
    assert_eq!(tree(&disk.0), before);
    assert_eq!(rows_of(&small).len(), 10);
}

/// A file system of 256 kB, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap().keep();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&dir).status();
        assert!(mount.unwrap().success(), "no right to mount");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// What differs between runs of a test.
const FILTERS: [(&str, &str); 3] = [
    ("unfinished-[A-Za-z0-9]+", "unfinished-<random>"),
    ("[0-9a-f]{16}", "<16 hex>"),
    ("[0-9a-f]{8}", "<8 hex>"),
];

/// An error with its causes, one a line; `dir` is where the test runs.
fn chain(error: &dyn std::error::Error, dir: &Path) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let lines: Vec<String> = causes.map(ToString::to_string).collect();
    lines.join("\n").replace(dir.to_str().unwrap(), "<dir>")
}

/// Leaves folders for `scripts/crosscheck/subset.py`: one of every
/// schema, and one that differs from another in its rows alone.
#[test]
fn folders_for_the_crosscheck_are_written() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crosscheck");
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    let pool = ScoredPool::new(2_000);
    for schema in Schema::ALL {
        let subset = published(&dir.join(schema.name()), &pool.subset("10%"), schema);
        assert_eq!(subset.n_rows, 200);
    }
    let smaller = published(&dir.join("messages"), &pool.subset("5%"), Schema::Messages);
    assert_eq!(smaller.n_rows, 100);
}
