//! Shards that carry the checksum of what they are, but are no shards.

use std::ops::Range;
use std::path::Path;

use fs_err as fs;
use less_select::gradient::direction::GradientKind;
use less_select::pool::ExampleId;
use less_select::store::shard::{KindRows, Shard, ShardRows, StoreHeader, shard_path, write_shard};
use less_select::store::shard_list::{ListedShard, ShardList};
use less_select::store::{FORMAT, Split, StoreDtype};
use serde_json::Value;

fn write(dir: &Path) {
    const PROJ_DIM: usize = 64;
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype: StoreDtype::I4,
        format: FORMAT,
        gradient: "gradient".to_owned(),
        kinds: vec![GradientKind::Sgd],
        layout: "layout".to_owned(),
        proj_dim: PROJ_DIM,
        projection: "projection".to_owned(),
        split: Split::Pool,
    };
    let rows = ShardRows {
        ids: vec![ExampleId([1; 16]), ExampleId([2; 16])],
        kinds: vec![KindRows { unit: vec![0.125; 2 * PROJ_DIM], norms: vec![1.0, 2.0] }],
        loss: vec![0.5, 1.5],
        n_supervised: vec![3, 4],
        flags: vec![None, None],
    };
    write_shard(dir, &header, "a", rows).unwrap();
}

/// Reads all there is; that is, looks for a panic.
fn read(dir: &Path) {
    let Ok(shard) = Shard::open(&shard_path(dir, "a")) else { return };
    let n_rows = shard.n_rows();
    assert_eq!((shard.loss().len(), shard.n_supervised().len()), (n_rows, n_rows));
    assert_eq!(shard.ids().count(), n_rows);
    let _ = (0..n_rows).filter_map(|row| shard.flag(row)).count();
    if let Some(rows) = shard.kind(GradientKind::Sgd) {
        assert_eq!(rows.norms.len(), n_rows);
        let _ = rows.unit.decode(0..n_rows);
    }
}

#[test]
fn a_shard_changed_together_with_its_marker_is_an_error_or_a_shard() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let path = shard_path(dir.path(), "a");
    let whole = fs::read(&path).unwrap();
    let marker = path.with_extension("json");
    let good: Value = serde_json::from_slice(&fs::read(&marker).unwrap()).unwrap();
    for place in 0..whole.len() {
        for byte in [0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[place] = byte;
            fs::write(&path, &changed).unwrap();
            let mut vouching = good.clone();
            vouching["blake3"] = blake3::hash(&changed).to_hex().to_string().into();
            fs::write(&marker, vouching.to_string()).unwrap();
            read(dir.path());
        }
    }
}

#[test]
fn a_list_of_shards_leads_nowhere_else_and_claims_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let read = |fingerprint: &str, rows: &[Range<usize>]| {
        let shard = ListedShard { fingerprint: fingerprint.to_owned(), rows: rows.to_vec() };
        let shards = vec![shard.clone(), shard];
        let list = ShardList { folder: "".into(), made_for: String::new(), shards };
        list.write(dir.path()).unwrap();
        ShardList::read(dir.path())
    };
    for name in ["", "../../etc/passwd", "/etc/passwd", "a/b"] {
        assert!(read(name, &[]).is_err(), "{name}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "what somebody may write")]
    for rows in [0..usize::MAX, 3..3, 5..2] {
        assert!(read("a", std::slice::from_ref(&rows)).is_err(), "{rows:?}");
    }
    assert!(read("a", &[7..9, 1..2]).is_err());
    let list = read("a", &[1..2, 7..9]).unwrap();
    assert_eq!(list.shards[0].positions(9), Some(vec![1, 7, 8]));
    assert_eq!(list.shards[0].positions(8), None);
}
