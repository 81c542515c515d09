//! What is left of a row in each dtype, and its inner products.

use std::path::Path;

use less_select::gradient::direction::GradientKind;
use less_select::pool::ExampleId;
use less_select::seed::Seed;
use less_select::store::inner_products::Queries;
use less_select::store::shard::{KindRows, Shard, ShardRows, StoreHeader, shard_path, write_shard};
use less_select::store::{FORMAT, Split, StoreDtype};
use proptest::prelude::*;
use rand_chacha::rand_core::Rng;

const QUANTIZED: [StoreDtype; 3] = [StoreDtype::I8, StoreDtype::I4, StoreDtype::I1];

/// Writes rows to a shard.
fn write(rows: &[Vec<f32>], dtype: StoreDtype, dir: &Path) {
    let header = StoreHeader {
        checkpoint: "epoch-1".to_owned(),
        dtype,
        format: FORMAT,
        gradient: String::new(),
        kinds: vec![GradientKind::Sgd],
        layout: String::new(),
        proj_dim: rows[0].len(),
        projection: String::new(),
        split: Split::Pool,
    };
    let n = rows.len();
    let rows = ShardRows {
        ids: (0..n as u128).map(|row| ExampleId(row.to_be_bytes())).collect(),
        kinds: vec![KindRows { unit: rows.concat(), norms: vec![1.0; n] }],
        loss: vec![1.0; n],
        n_supervised: vec![1; n],
        flags: vec![None; n],
    };
    write_shard(dir, &header, "a", rows).unwrap();
}

/// The same, opened again.
fn stored(rows: &[Vec<f32>], dtype: StoreDtype) -> Shard {
    let dir = tempfile::tempdir().unwrap();
    write(rows, dtype, dir.path());
    Shard::open(&shard_path(dir.path(), "a")).unwrap()
}

fn decoded(rows: &[Vec<f32>], dtype: StoreDtype) -> Vec<Vec<f32>> {
    let shard = stored(rows, dtype);
    let unit = shard.kind(GradientKind::Sgd).unwrap().unit;
    (0..rows.len()).map(|row| unit.decode(row..row + 1)).collect()
}

fn inner_products(shard: &Shard, queries: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let queries = Queries::new(queries.iter().map(Vec::as_slice));
    let unit = shard.kind(GradientKind::Sgd).unwrap().unit;
    let products = unit.inner_products(0..shard.n_rows(), &queries);
    products.chunks(queries.len()).map(<[f64]>::to_vec).collect()
}

/// The slow, obvious inner product.
fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// Rows of unit length with nearly normal coordinates.
fn normal_rows(n_rows: usize, proj_dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = Seed(seed).stream(&["normal rows"]);
    let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
    let mut row = || -> Vec<f32> {
        let row: Vec<f64> =
            (0..proj_dim).map(|_| (0..12).map(|_| uniform()).sum::<f64>()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| (x / norm) as f32).collect()
    };
    (0..n_rows).map(|_| row()).collect()
}

/// 1 − cos² between a row and what is left of it.
fn loss(row: &[f32], decoded: &[f32]) -> f64 {
    1.0 - dot(row, decoded).powi(2) / (dot(row, row) * dot(decoded, decoded))
}

#[test]
fn rows_of_normal_coordinates_lose_what_theory_says() {
    // f16: 11 bits. i8: a step of 1/127 of about four deviations, squared, over
    // 12. i4: 0.0115 with the best 16 uniform levels (Max, 1960), a little more
    // with 15. i1: 1 − 2/π, give or take the luck of 8192 coordinates.
    let bounds = [
        (StoreDtype::F32, 0.0..1e-12),
        (StoreDtype::F16, 0.0..2f64.powi(-22)),
        (StoreDtype::I8, 2e-5..1.5e-4),
        (StoreDtype::I4, 0.0115..0.0145),
        (StoreDtype::I1, 0.343..0.383),
    ];
    let rows = normal_rows(10, 8192, 1);
    for (dtype, bounds) in bounds {
        for (row, decoded) in rows.iter().zip(decoded(&rows, dtype)) {
            let loss = loss(row, &decoded);
            assert!(bounds.contains(&loss.abs()), "{dtype}: {loss}");
        }
    }
}

#[test]
fn rows_of_few_large_coordinates_get_a_longer_step() {
    let mut row = normal_rows(1, 1024, 2).remove(0);
    for x in &mut row {
        *x *= 0.01;
    }
    row[..8].copy_from_slice(&[0.5, -0.4, 0.3, 0.5, -0.2, 0.3, 0.25, -0.15]);
    let rows = [row];
    // The small ones, a ten-thousandth of the square, are lost.
    for (dtype, bound) in [(StoreDtype::I8, 2e-4), (StoreDtype::I4, 0.01)] {
        let loss = loss(&rows[0], &decoded(&rows, dtype)[0]);
        assert!(loss < bound, "{dtype}: {loss}");
    }
}

#[test]
fn inner_products_are_right_on_average_in_every_dtype() {
    // The shortest projection there is; a query half of which is the row's
    // direction. The mean of n errors has a standard error of √(variance/n).
    const N_ROWS: usize = 2000;
    let rows = normal_rows(N_ROWS, 64, 3);
    let others = normal_rows(N_ROWS, 64, 4);
    for dtype in StoreDtype::ALL {
        let errors = rows.iter().zip(&others).zip(decoded(&rows, dtype));
        let errors: Vec<f64> = errors
            .map(|((row, other), decoded)| {
                let query: Vec<f32> =
                    row.iter().zip(other).map(|(x, y)| 0.5 * x + 0.866 * y).collect();
                dot(&decoded, &query) - dot(row, &query)
            })
            .collect();
        let mean = errors.iter().sum::<f64>() / N_ROWS as f64;
        let variance = errors.iter().map(|error| error * error).sum::<f64>() / N_ROWS as f64;
        let standard_error = (variance / N_ROWS as f64).sqrt();
        assert!(mean.abs() < 4.0 * standard_error + 1e-8, "{dtype}: {mean} ± {standard_error}");
    }
}

/// The order that `store::inner_products` promises, one number after the other.
fn in_order(row: &[f32], query: &[f32]) -> f64 {
    let pieces = row.chunks(1024).zip(query.chunks(1024));
    let sums = pieces.map(|(row, query)| {
        let mut partial = [0f32; 16];
        for (at, (x, y)) in row.iter().zip(query).enumerate() {
            partial[at % 16] += x * y;
        }
        for half in [8, 4, 2, 1] {
            for at in 0..half {
                partial[at] += partial[at + half];
            }
        }
        f64::from(partial[0])
    });
    sums.sum()
}

#[test]
fn vector_instructions_change_no_bit() {
    for proj_dim in [64, 2048, 2080] {
        let rows = normal_rows(7, proj_dim, 7);
        for n_queries in [1, 9] {
            let queries = normal_rows(n_queries, proj_dim, 8);
            for dtype in [StoreDtype::F32, StoreDtype::F16] {
                let products = inner_products(&stored(&rows, dtype), &queries);
                for (row, products) in decoded(&rows, dtype).iter().zip(products) {
                    let expected = queries.iter().map(|query| in_order(row, query).to_bits());
                    let found = products.iter().map(|product| product.to_bits());
                    assert!(found.eq(expected), "{dtype}, {proj_dim}, {n_queries} queries");
                }
            }
        }
    }
}

#[test]
fn rows_of_zeros_stay_zeros() {
    let rows = [vec![0.0; 100], vec![0.5; 100], vec![0.0; 100]];
    for dtype in StoreDtype::ALL {
        let decoded = decoded(&rows, dtype);
        assert_eq!([&decoded[0], &decoded[2]], [&rows[0]; 2], "{dtype}");
        assert_eq!(inner_products(&stored(&rows, dtype), &rows[1..2])[0], [0.0], "{dtype}");
    }
}

#[test]
fn a_file_is_as_long_as_its_rows_and_little_more() {
    const N_ROWS: usize = 100;
    let rows = normal_rows(N_ROWS, 1000, 6);
    for dtype in StoreDtype::ALL {
        let dir = tempfile::tempdir().unwrap();
        write(&rows, dtype, dir.path());
        let n_bytes = fs_err::metadata(shard_path(dir.path(), "a")).unwrap().len() as usize;
        let expected = N_ROWS * dtype.row_bytes(1000);
        // Ids, norms, losses, counts, flags, and the file's own words.
        assert!((expected..expected + N_ROWS * 40 + 2500).contains(&n_bytes), "{dtype}: {n_bytes}");
    }
}

#[test]
fn any_arrow_reader_sees_the_columns() {
    let schema = |dtype| -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        write(&normal_rows(2, 70, 5), dtype, dir.path());
        let file = fs_err::File::open(shard_path(dir.path(), "a")).unwrap();
        let reader = arrow::ipc::reader::FileReader::try_new(file, None).unwrap();
        let fields = reader.schema().fields().clone();
        let batch = reader.collect::<Result<Vec<_>, _>>().unwrap().remove(0);
        assert_eq!(batch.num_rows(), 2);
        let columns = fields.iter().filter(|field| field.name().starts_with("sgd"));
        columns.map(|field| format!("{} {}", field.name(), field.data_type())).collect()
    };
    insta::assert_snapshot!(
        StoreDtype::ALL.map(|dtype| format!("{dtype}: {}", schema(dtype).join(", "))).join("\n"),
        @"
    f32: sgd FixedSizeList(70 x non-null Float32), sgd.norm Float32
    f16: sgd FixedSizeList(70 x non-null Float16), sgd.norm Float32
    i8: sgd FixedSizeList(70 x non-null Int8), sgd.scale Float32, sgd.norm Float32
    i4: sgd FixedSizeBinary(48), sgd.scale Float32, sgd.norm Float32
    i1: sgd FixedSizeBinary(12), sgd.scale Float32, sgd.norm Float32
    "
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_left_of_a_row_has_its_square_as_product_with_it(
        row in prop::collection::vec(-1f32..=1.0, 64..200),
    ) {
        let square = dot(&row, &row);
        let rows = [row];
        for dtype in QUANTIZED {
            let product = dot(&decoded(&rows, dtype)[0], &rows[0]);
            // A scale is one f32, and so is each coordinate.
            prop_assert!((product - square).abs() <= 1e-6 * square, "{dtype}: {product}, {square}");
        }
    }

    #[test]
    fn a_row_loses_no_more_than_on_a_grid_that_clips_nothing(
        row in prop::collection::vec(-1f32..=1.0, 64..200),
    ) {
        let square = dot(&row, &row);
        let largest = row.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
        let rows = [row];
        for (dtype, limit) in [(StoreDtype::I8, 127.0), (StoreDtype::I4, 7.0)] {
            // Half a step in every coordinate.
            let bound = rows[0].len() as f64 * (largest / limit / 2.0).powi(2) / square;
            let loss = loss(&rows[0], &decoded(&rows, dtype)[0]);
            prop_assert!(loss <= bound, "{dtype}: {loss}, {bound}");
        }
    }

    #[test]
    fn the_opposite_row_has_the_opposite_codes(
        row in prop::collection::vec(prop_oneof![-1f32..=-1e-3, 1e-3..=1f32], 64..100),
    ) {
        let opposite = row.iter().map(|x| -x).collect();
        let rows = [row, opposite];
        for dtype in StoreDtype::ALL {
            let decoded = decoded(&rows, dtype);
            let opposite: Vec<f32> = decoded[1].iter().map(|x| -x).collect();
            prop_assert_eq!(&decoded[0], &opposite);
        }
    }

    #[test]
    fn inner_products_are_those_of_the_decoded_rows(
        proj_dim in prop_oneof![1usize..70, 1000usize..1100, Just(64), Just(2048)],
        n_rows in 1usize..6,
        n_queries in 1usize..6,
        seed: u64,
    ) {
        let rows = normal_rows(n_rows, proj_dim, seed);
        let queries = normal_rows(n_queries, proj_dim, !seed);
        for dtype in StoreDtype::ALL {
            let products = inner_products(&stored(&rows, dtype), &queries);
            for (row, products) in decoded(&rows, dtype).iter().zip(&products) {
                for (query, product) in queries.iter().zip(products) {
                    // Partial sums of 64 products in f32, of rows of unit length.
                    let error = (product - dot(row, query)).abs();
                    prop_assert!(error < 1e-6, "{dtype}, {proj_dim}: {error}");
                }
            }
        }
    }

    #[test]
    fn an_inner_product_does_not_depend_on_the_rows_and_queries_beside_it(
        proj_dim in prop_oneof![33usize..70, Just(2048)],
        n_rows in 1usize..6,
        n_queries in 1usize..6,
        seed: u64,
    ) {
        let rows = normal_rows(n_rows, proj_dim, seed);
        let queries = normal_rows(n_queries, proj_dim, !seed);
        for dtype in StoreDtype::ALL {
            let together = inner_products(&stored(&rows, dtype), &queries);
            for (row, together) in rows.iter().zip(&together) {
                let shard = stored(std::slice::from_ref(row), dtype);
                for (query, together) in queries.iter().zip(together) {
                    let alone = inner_products(&shard, std::slice::from_ref(query))[0][0];
                    prop_assert_eq!(alone.to_bits(), together.to_bits());
                }
            }
        }
    }
}
