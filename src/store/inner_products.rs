//! Inner products of stored rows with f32 queries.
//!
//! Rows are decoded where they are multiplied: with few queries in registers, once
//! for each; with more a piece of some rows at a time, in the first cache. No f32
//! copy of a row is ever in memory.
//!
//! The sum has one order. Coordinate i is added to partial sum i mod 16, in f32;
//! after every 1024 coordinates the partial sums are added in pairs and go to a
//! sum in f64, which at the end is multiplied by the row's scale. Products and
//! sums are rounded one by one (no fused multiply-add). So an inner product is a
//! function of the row and the query: threads, blocks, the queries beside it and
//! the processor's vector instructions change nothing.

#![expect(clippy::inline_always, reason = "code is compiled for the target it is inlined into")]

use multiversion::multiversion;

use super::decode::{Element, padded};
use super::dtype::GROUP;

/// Partial sums of an inner product.
const LANES: usize = 16;

/// Groups whose partial sums are f32: 1024 coordinates, 4 KB of a query.
const PIECE: usize = 32;

/// Rows multiplied together, so that a piece of a query is read once for all of
/// them, and no sum waits for the one before it.
const TILE_ROWS: usize = 4;

/// Up to so many queries it is faster to decode a row anew for each (measured by
/// `benches/scoring.rs`).
const FEW_QUERIES: usize = 4;

/// Vectors of one length, ready for inner products with stored rows.
#[derive(Clone, Debug)]
pub struct Queries {
    /// `[n × groups of a query]`, the last group of each filled up with zeros.
    groups: Vec<[f32; GROUP]>,
    n_rows: usize,
    /// Coordinates of a query.
    length: usize,
}

impl Queries {
    /// Copies `rows`.
    ///
    /// # Panics
    ///
    /// If they are not of one length.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let (mut groups, mut n_rows, mut length) = (Vec::new(), 0, None);
        for row in rows {
            assert_eq!(*length.get_or_insert(row.len()), row.len(), "queries of one length");
            groups.extend(row.chunks(GROUP).map(padded::<f32, GROUP>));
            n_rows += 1;
        }
        Self { groups, n_rows, length: length.unwrap_or_default() }
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Coordinates of a query.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn query(&self, query: usize) -> &[[f32; GROUP]] {
        let n_groups = self.groups.len() / self.n_rows;
        &self.groups[query * n_groups..][..n_groups]
    }
}

/// Adds ⟨row, query⟩, scales left out, to `sums`, `[n_rows × n_queries]`.
/// A row is `row_len` elements.
///
/// Compiled for each of these targets with everything it calls. A closure would
/// be compiled without their vector instructions: hence the plain loops below.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub(super) fn add_inner_products<T: Element<N>, const N: usize>(
    rows: &[T],
    row_len: usize,
    queries: &Queries,
    sums: &mut [f64],
) {
    let mut tiles = rows.chunks_exact(TILE_ROWS * row_len);
    let mut tile_sums = sums.chunks_exact_mut(TILE_ROWS * queries.len());
    for (rows, sums) in tiles.by_ref().zip(tile_sums.by_ref()) {
        add_tile::<T, N, TILE_ROWS>(rows, queries, sums);
    }
    let rows = tiles.remainder().chunks_exact(row_len);
    let sums = tile_sums.into_remainder().chunks_exact_mut(queries.len());
    for (row, sums) in rows.zip(sums) {
        add_tile::<T, N, 1>(row, queries, sums);
    }
}

/// Adds the products of `R` rows, piece by piece.
#[inline(always)]
fn add_tile<T: Element<N>, const N: usize, const R: usize>(
    rows: &[T],
    queries: &Queries,
    sums: &mut [f64],
) {
    let row_len = rows.len() / R;
    let rows: [_; R] = std::array::from_fn(|row| rows[row * row_len..][..row_len].as_chunks::<N>());
    let n_groups = rows[0].0.len();
    for start in (0..n_groups).step_by(PIECE) {
        let end = n_groups.min(start + PIECE);
        add_piece(rows.map(|(groups, _)| &groups[start..end]), start, queries, sums);
    }
    if !rows[0].1.is_empty() {
        let tails = rows.map(|(_, tail)| [padded(tail)]);
        add_piece(tails.each_ref().map(|tail| &tail[..]), n_groups, queries, sums);
    }
}

/// Adds the products of a piece of `R` rows that begins at group `start`.
#[inline(always)]
fn add_piece<T: Element<N>, const N: usize, const R: usize>(
    rows: [&[[T; N]]; R],
    start: usize,
    queries: &Queries,
    sums: &mut [f64],
) {
    let n_groups = rows[0].len();
    if queries.len() <= FEW_QUERIES {
        for at in 0..queries.len() {
            let query = &queries.query(at)[start..start + n_groups];
            add(products(rows, query), at, queries, sums);
        }
        return;
    }
    let mut decoded = [[[0.0; GROUP]; PIECE]; R];
    for (decoded, row) in decoded.iter_mut().zip(rows) {
        for (decoded, group) in decoded.iter_mut().zip(row) {
            *decoded = T::decode(group);
        }
    }
    let rows = decoded.each_ref().map(|row| &row[..n_groups]);
    for at in 0..queries.len() {
        let query = &queries.query(at)[start..start + n_groups];
        add(products(rows, query), at, queries, sums);
    }
}

/// Adds the products of `R` rows with query number `at` to their sums.
#[inline(always)]
fn add<const R: usize>(products: [f32; R], at: usize, queries: &Queries, sums: &mut [f64]) {
    for (sums, product) in sums.chunks_exact_mut(queries.len()).zip(products) {
        sums[at] += f64::from(product);
    }
}

/// The products of a piece of `R` rows with a piece of a query.
#[inline(always)]
fn products<T: Element<N>, const N: usize, const R: usize>(
    rows: [&[[T; N]]; R],
    query: &[[f32; GROUP]],
) -> [f32; R] {
    let rows = rows.map(|row| &row[..query.len()]);
    let mut sums = [[0.0; LANES]; R];
    for (at, query) in query.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            add_lanes(sums, &T::decode(&row[at]), query);
        }
    }
    sums.map(sum_of_lanes)
}

/// By index, for zipped arrays do not become vector instructions.
#[inline(always)]
fn add_lanes(sums: &mut [f32; LANES], values: &[f32; GROUP], query: &[f32; GROUP]) {
    for start in [0, LANES] {
        for lane in 0..LANES {
            sums[lane] += values[start + lane] * query[start + lane];
        }
    }
}

/// The second half is added to the first until one is left.
#[inline(always)]
fn sum_of_lanes(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    sums[0]
}
