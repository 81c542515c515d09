//! Inner products of stored rows with f32 queries.
//!
//! Rows are decoded where they are multiplied: with one query in registers, with
//! several a piece of a row at a time, in the first cache. No f32 copy of a row
//! is ever in memory.
//!
//! The sum has one order. Coordinate i is added to partial sum i mod 16, in f32;
//! after every 1024 coordinates the partial sums are added in pairs and go to a
//! sum in f64, which at the end is multiplied by the row's scale. Products and
//! sums are rounded one by one (no fused multiply-add). So an inner product is a
//! function of the row and the query: threads, blocks, the queries beside it and
//! the processor's vector instructions change nothing.

use multiversion::multiversion;

use super::decode::{Element, padded};
use super::dtype::GROUP;

/// Partial sums of an inner product.
const LANES: usize = 16;

/// Groups whose partial sums are f32: 1024 coordinates, 4 KB of a query.
const PIECE: usize = 32;

/// Rows multiplied together where there are several queries, so that a piece of
/// a query is read once for all of them.
const TILE_ROWS: usize = 2;

/// Vectors of one length, ready for inner products with stored rows.
#[derive(Clone, Debug)]
pub struct Queries {
    /// `[n × groups of a query]`, the last group of each filled up with zeros.
    groups: Vec<[f32; GROUP]>,
    n_queries: usize,
}

impl Queries {
    /// Copies `rows`, all of the same length.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let (mut groups, mut n_queries) = (Vec::new(), 0);
        for row in rows {
            groups.extend(row.chunks(GROUP).map(padded::<f32, GROUP>));
            n_queries += 1;
        }
        Self { groups, n_queries }
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.n_queries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n_queries == 0
    }

    #[inline(always)]
    fn query(&self, query: usize) -> &[[f32; GROUP]] {
        let n_groups = self.groups.len() / self.n_queries;
        &self.groups[query * n_groups..][..n_groups]
    }
}

/// Adds ⟨row, query⟩, scales left out, to `sums`, `[n_rows × n_queries]`.
/// A row is `row_len` elements.
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
    let piece = |query: usize| &queries.query(query)[start..start + n_groups];
    if queries.len() == 1 {
        add(sums, 1, 0, products(rows, [piece(0)]));
        return;
    }
    let mut decoded = [[[0.0; GROUP]; PIECE]; R];
    for (decoded, row) in decoded.iter_mut().zip(rows) {
        for (decoded, group) in decoded.iter_mut().zip(row) {
            *decoded = T::decode(group);
        }
    }
    let rows = decoded.each_ref().map(|row| &row[..n_groups]);
    let n_pairs = queries.len() / 2;
    for query in (0..n_pairs).map(|pair| 2 * pair) {
        add(sums, queries.len(), query, products(rows, [piece(query), piece(query + 1)]));
    }
    if queries.len() % 2 == 1 {
        let query = queries.len() - 1;
        add(sums, queries.len(), query, products(rows, [piece(query)]));
    }
}

/// Adds the products of `R` rows and `Q` queries from `query` on to theirs among
/// the sums of `n_queries`.
#[inline(always)]
fn add<const R: usize, const Q: usize>(
    sums: &mut [f64],
    n_queries: usize,
    query: usize,
    products: [[f32; Q]; R],
) {
    for (sums, products) in sums.chunks_exact_mut(n_queries).zip(products) {
        for (sum, product) in sums[query..].iter_mut().zip(products) {
            *sum += f64::from(product);
        }
    }
}

/// The products of a piece of `R` rows and `Q` queries.
#[inline(always)]
fn products<T: Element<N>, const N: usize, const R: usize, const Q: usize>(
    rows: [&[[T; N]]; R],
    queries: [&[[f32; GROUP]]; Q],
) -> [[f32; Q]; R] {
    let n_groups = rows[0].len();
    let rows = rows.map(|row| &row[..n_groups]);
    let queries = queries.map(|query| &query[..n_groups]);
    let mut sums = [[[0.0; LANES]; Q]; R];
    for at in 0..n_groups {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let values = T::decode(&row[at]);
            for (sums, query) in sums.iter_mut().zip(queries) {
                add_lanes(sums, &values, &query[at]);
            }
        }
    }
    sums.map(|sums| sums.map(sum_of_lanes))
}

#[inline(always)]
fn add_lanes(sums: &mut [f32; LANES], values: &[f32; GROUP], query: &[f32; GROUP]) {
    let (values, _) = values.as_chunks::<LANES>();
    let (query, _) = query.as_chunks::<LANES>();
    for (values, query) in values.iter().zip(query) {
        for ((sum, value), query) in sums.iter_mut().zip(values).zip(query) {
            *sum += value * query;
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
