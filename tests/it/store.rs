//! A store gives back what was written, or an error.

use std::path::Path;

use half::f16;
use less_select::gradient::direction::GradientKind;
use less_select::pool::ExampleId;
use less_select::store::gradient_store::GradientStore;
use less_select::store::shard::{KindRows, Shard, ShardRows, StoreHeader, shard_path, write_shard};
use less_select::store::shard_list::{ListedShard, ShardList};
use less_select::store::{FORMAT, Flag, Split, StoreDtype, StoreError, StoreErrorKind};
use proptest::prelude::*;

const PROJ_DIM: usize = 4;

fn header() -> StoreHeader {
    StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype: StoreDtype::F32,
        format: FORMAT,
        gradient: "gradient".to_owned(),
        kinds: vec![GradientKind::AdamV, GradientKind::Sgd],
        layout: "layout".to_owned(),
        proj_dim: PROJ_DIM,
        projection: "projection".to_owned(),
        split: Split::Pool,
    }
}

fn rows(first_id: u8, n_rows: u8) -> ShardRows {
    let n = usize::from(n_rows);
    let kind = |scale: f32| KindRows {
        unit: (0..n * PROJ_DIM).map(|i| (i as f32 * 0.37 * scale).sin()).collect(),
        norms: (0..n).map(|i| scale + i as f32).collect(),
    };
    ShardRows {
        ids: (first_id..first_id + n_rows).map(|byte| ExampleId([byte; 16])).collect(),
        kinds: vec![kind(1.0), kind(2.0)],
        loss: (0..n).map(|i| 1.5 + i as f32).collect(),
        n_supervised: (0..u32::from(n_rows)).collect(),
        flags: (0..n).map(|i| (i == 1).then_some(Flag::ZeroGradient)).collect(),
    }
}

/// Two shards of three and two rows.
fn write_store(dir: &Path, header: &StoreHeader) {
    write_shard(dir, header, "a", rows(10, 3)).unwrap();
    write_shard(dir, header, "b", rows(20, 2)).unwrap();
    write_list(dir, &["a", "b"]);
}

fn write_list(dir: &Path, fingerprints: &[&str]) {
    let shards = fingerprints
        .iter()
        .map(|name| ListedShard { fingerprint: (*name).to_owned(), rows: Vec::new() });
    let list = ShardList { folder: "".into(), made_for: String::new(), shards: shards.collect() };
    list.write(dir).unwrap();
}

/// Everything a shard holds, in comparable form.
fn read(dir: &Path, shard: &str) -> Result<ShardRows, StoreError> {
    let shard = Shard::open(&shard_path(dir, shard))?;
    let kinds = shard.header().kinds.iter().map(|kind| {
        let columns = shard.kind(*kind).unwrap();
        KindRows { unit: columns.unit.decode(0..shard.n_rows()), norms: columns.norms.to_vec() }
    });
    let flags = (0..shard.n_rows()).map(|row| match shard.flag(row) {
        None => None,
        Some("zero gradient") => Some(Flag::ZeroGradient),
        Some("non-finite gradient") => Some(Flag::NonFiniteGradient),
        Some("non-finite loss") => Some(Flag::NonFiniteLoss),
        Some(other) => panic!("unknown flag `{other}`"),
    });
    Ok(ShardRows {
        ids: shard.ids().collect(),
        kinds: kinds.collect(),
        loss: shard.loss().to_vec(),
        n_supervised: shard.n_supervised().to_vec(),
        flags: flags.collect(),
    })
}

#[track_caller]
fn message(result: Result<impl std::fmt::Debug, StoreError>, dir: &Path) -> String {
    let error = result.unwrap_err();
    let message = format!("{error}: {}", error.kind);
    message.replace(&*dir.to_string_lossy(), "DIR")
}

#[test]
fn a_store_is_its_shards_in_order() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    let store = GradientStore::open(dir.path()).unwrap();
    assert_eq!(store.n_rows(), 5);
    assert_eq!(store.header(), &header());
    assert_eq!(store.ids().collect::<Vec<_>>(), [rows(10, 3).ids, rows(20, 2).ids].concat());
    assert_eq!(store.shards()[0].fingerprint(), "a");
    assert_eq!(store.shards()[0].n_flagged(), 1);
    assert!(store.require(GradientKind::Sgd).is_ok());
    insta::assert_snapshot!(
        message(store.require(GradientKind::Adam), dir.path()),
        @"stored gradients `DIR`: holds no `adam` gradients"
    );
}

#[test]
fn a_stored_file_has_the_same_bytes_every_time_and_one_header() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_store(a.path(), &header());
    write_store(b.path(), &header());
    for name in ["shard-a.arrow", "shard-a.json", "shard-b.arrow"] {
        let read = |dir: &Path| fs_err::read(dir.join(name)).unwrap();
        assert_eq!(read(a.path()), read(b.path()));
    }
    let file = fs_err::File::open(shard_path(a.path(), "a")).unwrap();
    let reader = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
    let schema = reader.schema();
    let [(key, value)] = schema.metadata().iter().collect::<Vec<_>>()[..] else {
        panic!("one metadata key");
    };
    assert_eq!(key, "less-select");
    insta::assert_snapshot!(value, @r#"{"checkpoint":"epoch-1","dtype":"f32","format":2,"gradient":"gradient","kinds":["adam-v","sgd"],"layout":"layout","proj_dim":4,"projection":"projection","split":"pool"}"#);
}

#[test]
fn a_marker_says_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    let marker = fs_err::read_to_string(dir.path().join("shard-b.json")).unwrap();
    let checksum = less_select::fs::checksum(&shard_path(dir.path(), "b")).unwrap();
    insta::assert_snapshot!(marker.replace(&checksum, "CHECKSUM"), @r#"
    {
      "blake3": "CHECKSUM",
      "bytes": 3066,
      "file": "shard-b.arrow",
      "fingerprint": "b",
      "rows": 2
    }
    "#);
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    let path = shard_path(dir.path(), "a");
    let whole = fs_err::read(&path).unwrap();
    for length in (0..whole.len()).step_by(5).chain([whole.len() - 1]) {
        fs_err::write(&path, &whole[..length]).unwrap();
        assert!(read(dir.path(), "a").is_err(), "cut at {length} of {}", whole.len());
    }
    fs_err::write(&path, [whole.as_slice(), b"\0"].concat()).unwrap();
    assert!(read(dir.path(), "a").is_err(), "one byte too many");
    fs_err::write(&path, &whole).unwrap();
    assert_eq!(read(dir.path(), "a").unwrap(), rows(10, 3));
}

#[test]
fn a_file_altered_in_any_byte_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in StoreDtype::ALL {
        write_store(dir.path(), &StoreHeader { dtype, ..header() });
        let path = shard_path(dir.path(), "a");
        let mut bytes = fs_err::read(&path).unwrap();
        for at in 0..bytes.len() {
            let flipped = 1 << (at % 8);
            bytes[at] ^= flipped;
            fs_err::write(&path, &bytes).unwrap();
            assert!(read(dir.path(), "a").is_err(), "{dtype}, byte {at} of {}", bytes.len());
            bytes[at] ^= flipped;
        }
    }
}

#[test]
fn a_marker_altered_or_cut_anywhere_gives_an_error_or_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    let marker = dir.path().join("shard-a.json");
    let whole = fs_err::read(&marker).unwrap();
    let check = |bytes: &[u8]| {
        fs_err::write(&marker, bytes).unwrap();
        if let Ok(found) = read(dir.path(), "a") {
            assert_eq!(found, rows(10, 3));
        }
    };
    for at in 0..whole.len() {
        check(&whole[..at]);
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        check(&altered);
    }
}

#[test]
fn a_shard_without_its_marker_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    fs_err::remove_file(dir.path().join("shard-b.json")).unwrap();
    insta::assert_snapshot!(message(GradientStore::open(dir.path()), dir.path()), @"stored gradients `DIR/shard-b.arrow`: is not committed: there is no marker `shard-b.json`");
}

#[test]
fn a_shard_in_anothers_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    for extension in ["arrow", "json"] {
        let [from, to] =
            ["shard-a", "shard-b"].map(|stem| dir.path().join(stem).with_extension(extension));
        fs_err::copy(from, to).unwrap();
    }
    insta::assert_snapshot!(message(GradientStore::open(dir.path()), dir.path()), @"stored gradients `DIR/shard-b.arrow`: its marker is of `shard-a.arrow`");
}

#[test]
fn a_row_is_found_where_it_is_first() {
    let dir = tempfile::tempdir().unwrap();
    write_shard(dir.path(), &header(), "a", rows(10, 3)).unwrap();
    write_shard(dir.path(), &header(), "b", rows(11, 4)).unwrap();
    write_list(dir.path(), &["a", "b"]);
    let store = GradientStore::open(dir.path()).unwrap();
    let id = |byte| ExampleId([byte; 16]);
    let places = store.places([13, 11, 10, 13].map(id)).unwrap();
    let places: Vec<_> = places.iter().map(|place| (place.shard, place.row)).collect();
    assert_eq!(places, [(1, 2), (0, 1), (0, 0), (1, 2)]);
    assert_eq!(store.places([id(14), id(15)]), Err(id(15)));
}

#[test]
fn shards_of_different_projections_refuse_to_meet() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path(), &header());
    let other = StoreHeader { projection: "another".to_owned(), ..header() };
    write_shard(dir.path(), &other, "b", rows(20, 2)).unwrap();
    insta::assert_snapshot!(message(GradientStore::open(dir.path()), dir.path()), @"stored gradients `DIR/shard-b.arrow`: projection fingerprint is `another`, but `projection` in the first shard");
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let header = StoreHeader { format: FORMAT + 1, ..header() };
    write_store(dir.path(), &header);
    insta::assert_snapshot!(message(GradientStore::open(dir.path()), dir.path()), @"stored gradients `DIR/shard-a.arrow`: has format 3; this version reads format 2");
}

#[test]
fn columns_that_are_not_the_headers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let result = write_shard(
        dir.path(),
        &StoreHeader { proj_dim: PROJ_DIM + 1, ..header() },
        "a",
        rows(10, 3),
    );
    assert!(matches!(result.unwrap_err().kind, StoreErrorKind::Arrow(_)));
    assert!(!shard_path(dir.path(), "a").exists());
}

#[test]
fn ids_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = rows(10, 3);
    rows.ids.swap(1, 2);
    write_shard(dir.path(), &header(), "a", rows).unwrap();
    insta::assert_snapshot!(message(Shard::open(&shard_path(dir.path(), "a")), dir.path()), @"stored gradients `DIR/shard-a.arrow`: row 2 is not in order of id");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_read_back_are_those_written_to_the_bit(
        unit in prop::collection::vec(-1f32..=1.0, PROJ_DIM..10 * PROJ_DIM),
        norm: f32,
    ) {
        let n_rows = unit.len() / PROJ_DIM;
        let mut written = rows(1, n_rows as u8);
        written.kinds[0].unit = unit[..n_rows * PROJ_DIM].to_vec();
        written.kinds[0].norms[0] = norm;
        let dir = tempfile::tempdir().unwrap();
        write_shard(dir.path(), &header(), "a", written.clone()).unwrap();
        let found = read(dir.path(), "a").unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&found.kinds[0].unit), bits(&written.kinds[0].unit));
        prop_assert_eq!(bits(&found.kinds[0].norms), bits(&written.kinds[0].norms));

        let header = StoreHeader { dtype: StoreDtype::F16, ..header() };
        write_shard(dir.path(), &header, "a", written.clone()).unwrap();
        let shard = Shard::open(&shard_path(dir.path(), "a")).unwrap();
        let found = shard.kind(GradientKind::AdamV).unwrap().unit.decode(0..n_rows);
        let rounded = written.kinds[0].unit.iter().map(|value| f16::from_f32(*value).to_f32());
        prop_assert_eq!(found, rounded.collect::<Vec<_>>());
    }
}
