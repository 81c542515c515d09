//! Collecting gradients: whole or in parts, stopped or not, the same bytes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use less_select::gradient::PerExampleGradients;
use less_select::gradient::collect::{CollectError, Collected};
use less_select::gradient::direction::GradientKind;
use less_select::gradient::measure::Measure;
use less_select::gradient::shard_plan::Part;
use less_select::pool::ExampleId;
use less_select::progress::{Event, Observer, Silent};
use less_select::projection::ProjectionKind;
use less_select::store::gradient_store::GradientStore;
use less_select::store::shard::shard_path;
use less_select::store::shard_list::ShardList;
use less_select::store::{Split, StoreDtype};
use proptest::prelude::*;

use crate::faulty::{Fault, Faulty, Narrow, TooManyRows};
use crate::support::committed_shards;
use crate::toy::{self, Setup, Table};

/// The list of a store and its committed shards, with their bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let list = ShardList::read(dir).unwrap();
    let shards = list.shards.iter().map(|shard| shard_path(dir, &shard.fingerprint));
    let files = shards.flat_map(|shard| [shard.with_extension("json"), shard]);
    files
        .chain([ShardList::path(dir)])
        .filter(|path| path.exists())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs_err::read(path).unwrap())
        })
        .collect()
}

fn collected(setup: &Setup, table: &Table) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    setup.collect(table, Split::Pool, 1, dir.path());
    files(dir.path())
}

#[test]
fn rows_stand_in_order_of_id_with_the_gradient_of_their_own_example() {
    let table = toy::pool(40, 1);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup { kinds: vec![GradientKind::Sgd], ..Setup::default() };
    setup.collect(&table, Split::Pool, 1, dir.path());
    let store = GradientStore::open(dir.path()).unwrap();
    let ids: Vec<ExampleId> = table.examples.iter().map(|example| example.id).collect();
    assert_eq!(store.ids().collect::<Vec<_>>(), ids);

    let mut model = toy::model(1);
    let mut examples = table.examples.iter();
    for shard in store.shards() {
        let sgd = shard.kind(GradientKind::Sgd).unwrap();
        for row in 0..shard.n_rows() {
            let mut gradient = Vec::new();
            let losses = model
                .backward(&[examples.next().unwrap()], &mut |_, rows| gradient.extend(rows))
                .unwrap();
            assert_eq!(shard.loss()[row].to_bits(), losses[0].loss.to_bits());
            assert_eq!(shard.n_supervised()[row], losses[0].n_supervised);
            let unit = sgd.unit.decode(row..row + 1);
            for (unit, value) in unit.iter().zip(&gradient) {
                approx::assert_relative_eq!(unit * sgd.norms[row], value, max_relative = 1e-6);
            }
            let length: f32 = unit.iter().map(|value| value * value).sum();
            approx::assert_relative_eq!(length, 1.0, epsilon = 1e-5);
        }
    }
}

#[test]
fn many_workers_write_the_bytes_of_one_in_any_order() {
    let table = toy::pool(100, 2);
    let setup = Setup { shard_rows: 8, ..Setup::default() };
    let alone = collected(&setup, &table);
    for order in [[0, 1, 2], [2, 0, 1]] {
        let dir = tempfile::tempdir().unwrap();
        for index in order {
            let part = Part::new(index, NonZeroUsize::new(3).unwrap()).unwrap();
            let worker = Setup { part, n_threads: 1 + index, ..setup.clone() };
            worker.collect(&table, Split::Pool, 1, dir.path());
        }
        assert!(files(dir.path()) == alone);
    }
}

#[test]
fn what_is_committed_is_not_computed_again() {
    let table = toy::pool(50, 3);
    let n_rows = table.rows.len();
    let dir = tempfile::tempdir().unwrap();
    let first = Setup::default().collect(&table, Split::Pool, 1, dir.path());
    assert_eq!(first, Collected { n_rows, ..Collected::default() });
    let mut never = Faulty::new(1, [(table.examples[0].id, Fault::Fails)]);
    let again = Setup::default()
        .collect_with(&mut never, &table, Split::Pool, 1, dir.path(), &Silent)
        .unwrap();
    assert_eq!(again, Collected { n_rows, n_present: n_rows, ..Collected::default() });
}

#[test]
fn damaged_missing_and_outdated_shards_are_made_anew() {
    let table = toy::pool(64, 4);
    let whole = collected(&Setup::default(), &table);
    let dir = tempfile::tempdir().unwrap();
    // Made from other gradients: every shard is outdated.
    let other = Setup { kinds: vec![GradientKind::Sgd], ..Setup::default() };
    other.collect(&table, Split::Pool, 1, dir.path());
    let redone = Setup::default().collect(&table, Split::Pool, 1, dir.path());
    assert_eq!(redone.n_present, 0);
    assert!(files(dir.path()) == whole);

    let shards = ShardList::read(dir.path()).unwrap().shards;
    let path = |shard: usize| shard_path(dir.path(), &shards[shard].fingerprint);
    fs_err::remove_file(path(0).with_extension("json")).unwrap();
    let mut bytes = fs_err::read(path(2)).unwrap();
    bytes[1000] ^= 1;
    fs_err::write(path(2), bytes).unwrap();
    let redone = Setup::default().collect(&table, Split::Pool, 1, dir.path());
    assert_eq!(redone.n_rows - redone.n_present, 32);
    assert!(files(dir.path()) == whole);
}

#[test]
fn an_interrupted_collection_keeps_its_shards_and_goes_on_to_the_same_bytes() {
    let table = toy::pool(64, 5);
    let whole = collected(&Setup::default(), &table);
    for n_batches in [0, 1, 7, 15] {
        let dir = tempfile::tempdir().unwrap();
        let observer = StopAfter { n_batches, n_seen: AtomicUsize::new(0) };
        let stopped = Setup::default().collect_with(
            &mut toy::model(1),
            &table,
            Split::Pool,
            1,
            dir.path(),
            &observer,
        );
        assert!(matches!(stopped, Err(CollectError::Interrupted)));
        let kept = committed_shards(dir.path()).len() * 16;
        let resumed = Setup::default().collect(&table, Split::Pool, 1, dir.path());
        assert_eq!(resumed.n_present, kept);
        assert!(files(dir.path()) == whole);
    }
}

#[test]
fn rows_that_must_not_be_ranked_are_flagged_with_the_reason_and_hold_zeros() {
    let table = toy::pool(30, 6);
    let id = |row: usize| table.examples[row].id;
    let mut model = Faulty::new(
        1,
        [
            (id(0), Fault::Gradient(f32::NAN)),
            (id(1), Fault::Gradient(f32::INFINITY)),
            (id(2), Fault::Gradient(0.0)),
            (id(3), Fault::Loss(f32::NAN)),
            // Finite, but its length is not.
            (id(4), Fault::Gradient(f32::MAX)),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup { projection: ProjectionKind::Sjlt, shard_rows: 30, ..Setup::default() };
    let collected =
        setup.collect_with(&mut model, &table, Split::Pool, 1, dir.path(), &Silent).unwrap();
    assert_eq!(collected.n_flagged, 5);
    let store = GradientStore::open(dir.path()).unwrap();
    let shard = &store.shards()[0];
    let flags: Vec<_> = (0..6).map(|row| shard.flag(row)).collect();
    let expected = [
        Some("non-finite gradient"),
        Some("non-finite gradient"),
        Some("zero gradient"),
        Some("non-finite loss"),
        Some("non-finite gradient"),
        None,
    ];
    assert_eq!(flags, expected);
    for kind in GradientKind::ALL {
        let columns = shard.kind(kind).unwrap();
        let unit = columns.unit.decode(0..6);
        assert!(unit[..5 * 64].iter().all(|value| *value == 0.0));
        assert!(unit[5 * 64..].iter().any(|value| *value != 0.0));
        assert_eq!(columns.norms[..5], [0.0; 5]);
    }
}

#[test]
fn a_failing_backward_pass_names_the_rows() {
    let table = toy::pool(20, 7);
    let mut model = Faulty::new(1, [(table.examples[17].id, Fault::Fails)]);
    let dir = tempfile::tempdir().unwrap();
    let error = Setup::default()
        .collect_with(&mut model, &table, Split::Target, 2, dir.path(), &Silent)
        .unwrap_err();
    let (first, last) = (table.examples[16].id, table.examples.last().unwrap().id);
    let expected =
        format!("failed to differentiate rows {first} to {last} of the target at `epoch-2`");
    assert_eq!(error.to_string(), expected);
    assert_eq!(committed_shards(dir.path()).len(), 1, "the first shard stays");
}

#[test]
fn too_little_memory_halves_the_batches_and_changes_no_byte() {
    let table = toy::pool(40, 10);
    let setup = Setup { batch_tokens: 300, ..Setup::default() };
    let whole = collected(&setup, &table);
    let dir = tempfile::tempdir().unwrap();
    let (mut narrow, observer) = (Narrow::new(3), Recorder::default());
    setup.collect_with(&mut narrow, &table, Split::Pool, 1, dir.path(), &observer).unwrap();
    assert!(files(dir.path()) == whole);
    let events = observer.events.into_inner().unwrap_or_else(PoisonError::into_inner);
    let warnings: Vec<&String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Warning { message } => Some(message),
            _ => None,
        })
        .collect();
    // 16 rows, 8, 4 and then what fits.
    insta::assert_snapshot!(warnings[0], @"too little memory for 15 rows of up to 19 tokens at once; going on with batches of at most 152 tokens (`batch-tokens` sets this from the start)");
    assert!(warnings.len() <= 4, "it learns: {warnings:?}");
}

#[test]
fn a_row_that_alone_does_not_fit_is_an_error() {
    let table = toy::pool(20, 11);
    let dir = tempfile::tempdir().unwrap();
    let failed = Setup::default().collect_with(
        &mut Narrow::new(0),
        &table,
        Split::Pool,
        1,
        dir.path(),
        &Silent,
    );
    assert!(matches!(failed, Err(CollectError::Backward { source: TooManyRows, .. })));
}

#[test]
fn a_kind_that_needs_moments_is_refused_without_them() {
    let setup = Setup::default();
    let projection = setup.projection(1, toy::model(1).layout());
    let measure = |kinds| Measure { kinds, moments: None, projection: &projection };
    insta::assert_snapshot!(
        measure(&[GradientKind::Sgd, GradientKind::AdamV]).check().unwrap_err(),
        @"`adam-v` gradients need the optimizer's moments, and this checkpoint has none"
    );
    assert!(measure(&[GradientKind::Sgd]).check().is_ok());
}

#[test]
fn progress_counts_the_rows_of_the_part_to_its_end() {
    let table = toy::pool(40, 8);
    let n_rows = table.rows.len() as u64;
    let dir = tempfile::tempdir().unwrap();
    let observer = Recorder::default();
    Setup::default()
        .collect_with(&mut toy::model(1), &table, Split::Pool, 1, dir.path(), &observer)
        .unwrap();
    let events = observer.events.into_inner().unwrap_or_else(PoisonError::into_inner);
    let dones: Vec<u64> = events
        .iter()
        .map(|event| match event {
            Event::Progress { what, done, total, .. } if what == "pool, epoch-1" => {
                assert_eq!(*total, n_rows);
                *done
            }
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert!(dones.is_sorted() && dones.last() == Some(&n_rows));
}

/// What a collection computes when the pool changes.
#[test]
fn a_pool_that_grew_costs_its_new_rows() {
    let (early, late) = (toy::pool(60, 12), toy::pool(9, 13));
    let examples = early.examples.iter().chain(&late.examples).cloned();
    let grown = toy::table(examples.map(|example| (example, "toy", None)));
    let dir = tempfile::tempdir().unwrap();
    Setup::default().collect(&early, Split::Pool, 1, dir.path());
    let before = committed_shards(dir.path());
    // A model that fails at every row that is stored already.
    let stored = early.examples.iter().map(|example| (example.id, Fault::Fails));
    let mut model = Faulty::new(1, stored);
    let setup = Setup::default();
    let collected =
        setup.collect_with(&mut model, &grown, Split::Pool, 1, dir.path(), &Silent).unwrap();
    let (n_rows, n_present) = (grown.rows.len(), early.rows.len());
    assert_eq!(collected, Collected { n_rows, n_present, ..Collected::default() });
    assert_eq!(committed_shards(dir.path()).len(), before.len() + 1);
    let store = GradientStore::open(dir.path()).unwrap();
    assert!(store.places(grown.rows.iter().map(|row| row.id)).is_ok());
}

#[test]
fn rows_that_left_the_pool_cost_nothing_and_a_shard_of_none_is_dropped() {
    let table = toy::pool(60, 14);
    let dir = tempfile::tempdir().unwrap();
    Setup::default().collect(&table, Split::Pool, 1, dir.path());
    let mut never = Faulty::new(1, table.examples.iter().map(|example| (example.id, Fault::Fails)));
    // Some rows of the first shard, and all of the last ones.
    let kept = Table { rows: table.rows[5..32].to_vec(), examples: table.examples[5..32].to_vec() };
    let collected = Setup::default()
        .collect_with(&mut never, &kept, Split::Pool, 1, dir.path(), &Silent)
        .unwrap();
    assert_eq!(collected, Collected { n_rows: 27, n_present: 27, ..Collected::default() });
    let store = GradientStore::open(dir.path()).unwrap();
    assert_eq!(store.shards().len(), 2);
    let gone = table.rows[59].id;
    assert_eq!(store.places([gone]), Err(gone));
}

#[test]
fn a_damaged_shard_taken_over_from_before_is_computed_again() {
    let (early, late) = (toy::pool(30, 15), toy::pool(9, 16));
    let examples = early.examples.iter().chain(&late.examples).cloned();
    let grown = toy::table(examples.map(|example| (example, "toy", None)));
    let dir = tempfile::tempdir().unwrap();
    Setup::default().collect(&early, Split::Pool, 1, dir.path());
    Setup::default().collect(&grown, Split::Pool, 1, dir.path());
    // Some of the first rows have left: the first shard cannot be made again.
    let now = Table { rows: grown.rows[3..].to_vec(), examples: grown.examples[3..].to_vec() };
    Setup::default().collect(&now, Split::Pool, 1, dir.path());
    let taken_over = ShardList::read(dir.path()).unwrap().shards[0].clone();
    let path = shard_path(dir.path(), &taken_over.fingerprint);
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    assert!(GradientStore::open(dir.path()).is_err());
    let redone = Setup::default().collect(&now, Split::Pool, 1, dir.path());
    assert_eq!(redone.n_rows - redone.n_present, taken_over.n_rows());
    let store = GradientStore::open(dir.path()).unwrap();
    assert!(store.places(now.rows.iter().map(|row| row.id)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// The model's own rows do not depend on the batch, so nothing may.
    #[test]
    fn bytes_depend_on_neither_batches_nor_threads(
        batch_tokens in 1usize..300,
        n_threads in 1usize..4,
        projection in prop::sample::select(vec![
            ProjectionKind::Sjlt, ProjectionKind::Rademacher, ProjectionKind::None,
        ]),
        dtype in prop::sample::select(StoreDtype::ALL.to_vec()),
    ) {
        let table = toy::pool(40, 9);
        let kinds = vec![GradientKind::Adam, GradientKind::Sgd];
        let plain = Setup { kinds, projection, dtype, ..Setup::default() };
        let other = Setup { batch_tokens, n_threads, ..plain.clone() };
        prop_assert!(collected(&plain, &table) == collected(&other, &table));
    }
}

/// Asks to stop after so many batches.
struct StopAfter {
    n_batches: usize,
    n_seen: AtomicUsize,
}

impl Observer for StopAfter {
    fn notify(&self, _event: Event) {
        self.n_seen.fetch_add(1, Ordering::Relaxed);
    }

    fn is_interrupted(&self) -> bool {
        self.n_seen.load(Ordering::Relaxed) >= self.n_batches
    }
}

/// Remembers what it is told.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Observer for Recorder {
    fn notify(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
