//! Likeness of pool rows: the weighted cosine of what is stored.

use less_select::gradient::direction::GradientKind;
use less_select::influence::Aggregation;
use less_select::projection::ProjectionKind;
use less_select::selection::StoredRows;
use less_select::selection::selector::RowCosines;
use less_select::store::gradient_store::GradientStore;
use less_select::store::{Split, StoreDtype};

use crate::influence::World;
use crate::toy::{self, Setup};

/// Each row of all checkpoints one after the other, times the root of its weight.
fn slow_rows(stores: &[GradientStore], weights: [f64; 2], pool: &toy::Table) -> Vec<Vec<f64>> {
    let row = |id| {
        let parts = stores.iter().zip(weights).map(|(store, weight)| {
            let place = store.places([id]).unwrap()[0];
            let unit = store.shards()[place.shard].kind(GradientKind::AdamV).unwrap().unit;
            let row = unit.decode(place.row..place.row + 1);
            row.into_iter().map(|value| weight.sqrt() * f64::from(value)).collect::<Vec<_>>()
        });
        parts.flatten().collect()
    };
    pool.rows.iter().map(|head| row(head.id)).collect()
}

#[test]
fn likeness_is_the_cosine_of_all_checkpoints_rows_by_weight() {
    let (pool, target) = (toy::pool(40, 1), toy::target(2));
    for (dtype, epsilon) in [(StoreDtype::F32, 1e-6), (StoreDtype::I4, 0.02)] {
        let setup = Setup {
            projection: ProjectionKind::Rademacher,
            proj_dim: 512,
            dtype,
            ..Setup::default()
        };
        let world = World::new(&setup, &pool, &target, 2);
        let scores = world.score_as(&pool, GradientKind::AdamV, Aggregation::MeanOfCosines);
        let weights = [0.8, 0.2];
        let slow = slow_rows(&world.pools, weights, &pool);
        let exact =
            |a: usize, b: usize| slow[a].iter().zip(&slow[b]).map(|(a, b)| a * b).sum::<f64>();
        let stores = world.pools.into_iter().zip(weights).collect();
        let rows = StoredRows::new(stores, GradientKind::AdamV, &scores).unwrap();
        let (queries, others) = ([3, 17, 0], [39, 0, 3, 20]);
        let found = rows.cosines(&queries, &others);
        for (row, found) in others.into_iter().zip(found.chunks_exact(3)) {
            for (query, found) in queries.into_iter().zip(found) {
                let expected = exact(row, query).min(1.0);
                approx::assert_abs_diff_eq!(f64::from(*found), expected, epsilon = epsilon);
            }
        }
    }
}

/// The likeness of all rows of a pool, more than a thread takes at once, with three of
/// them: by one thread, by three, and asked for one by one.
fn likeness(dtype: StoreDtype, shard_rows: usize) -> [Vec<u32>; 3] {
    let (pool, target) = (toy::pool(150, 5), toy::target(6));
    let kinds = vec![GradientKind::AdamV];
    let setup = Setup { kinds, proj_dim: 256, dtype, shard_rows, ..Setup::default() };
    let world = World::new(&Setup { projection: ProjectionKind::Sjlt, ..setup }, &pool, &target, 2);
    let scores = world.score_as(&pool, GradientKind::AdamV, Aggregation::MeanOfCosines);
    let stores = world.pools.into_iter().zip([0.8, 0.2]).collect();
    let stored = StoredRows::new(stores, GradientKind::AdamV, &scores).unwrap();
    let (queries, rows) = ([140, 3, 77], (0..pool.rows.len()).collect::<Vec<_>>());
    let by_threads = |n_threads: usize| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        threads.install(|| stored.cosines(&queries, &rows))
    };
    let one = |row: &usize| queries.map(|query| stored.cosines(&[query], &[*row])[0]);
    let one_by_one = rows.iter().flat_map(one).collect();
    [by_threads(1), by_threads(3), one_by_one]
        .map(|found| found.into_iter().map(f32::to_bits).collect())
}

#[test]
fn likeness_depends_on_neither_shards_nor_threads_nor_what_else_is_asked_for() {
    for dtype in [StoreDtype::F32, StoreDtype::I4] {
        let [expected, three_threads, one_by_one] = likeness(dtype, 150);
        assert_eq!(three_threads, expected, "{dtype}");
        assert_eq!(one_by_one, expected, "{dtype}");
        assert_eq!(likeness(dtype, 3), [(); 3].map(|()| expected.clone()), "{dtype}");
    }
}

#[test]
fn a_row_that_is_not_stored_is_named() {
    let (pool, target) = (toy::pool(20, 3), toy::target(4));
    let world = World::new(&Setup::default(), &pool, &target, 1);
    let scores = world.score_as(&pool, GradientKind::AdamV, Aggregation::MeanOfCosines);
    let dir = tempfile::tempdir().unwrap();
    let mut fewer = pool;
    let (gone, _) = (fewer.rows.remove(7), fewer.examples.remove(7));
    Setup::default().collect(&fewer, Split::Pool, 1, dir.path());
    let store = GradientStore::open(dir.path()).unwrap();
    let missing = StoredRows::new(vec![(store, 1.0)], GradientKind::AdamV, &scores).err();
    assert_eq!(missing, Some(gone.id));
}
