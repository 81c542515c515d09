//! Rows in a byte, half a byte or a bit a coordinate: the codes and scales that
//! [`store`](super) defines.

use rayon::prelude::*;

use super::dtype::{GROUP, StoreDtype};

/// Between one clip that is tried and the next: 2^(−1/4).
const CLIP_STEP: f64 = 0.840_896_415_253_714_5;

/// Codes `[n × codes of a row]` and scales `[n]`.
pub(super) type Quantized<T> = (Vec<T>, Vec<f32>);

/// `i8` codes of rows of `proj_dim` coordinates.
pub(super) fn to_i8(rows: &[f32], proj_dim: usize) -> Quantized<i8> {
    quantize(rows, proj_dim, proj_dim, |row, codes| uniform(row, 127, codes))
}

/// `i4` codes, two a byte: of a group's 32, byte j has number j in its low half
/// and number j + 16 in its high half, as two's complement.
pub(super) fn to_i4(rows: &[f32], proj_dim: usize) -> Quantized<u8> {
    quantize(rows, proj_dim, StoreDtype::I4.packed_bytes(proj_dim), |row, packed| {
        let mut codes = vec![0; row.len().next_multiple_of(GROUP)];
        let scale = uniform(row, 7, &mut codes);
        let (groups, _) = codes.as_chunks::<GROUP>();
        for (bytes, group) in packed.chunks_exact_mut(GROUP / 2).zip(groups) {
            let (low, high) = group.split_at(GROUP / 2);
            for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
                *byte = low.cast_unsigned() & 15 | high.cast_unsigned() << 4;
            }
        }
        scale
    })
}

/// `i1` codes, eight a byte, the first in the lowest bit; a set bit is −1.
pub(super) fn to_i1(rows: &[f32], proj_dim: usize) -> Quantized<u8> {
    quantize(rows, proj_dim, StoreDtype::I1.packed_bytes(proj_dim), |row, bytes| {
        for (byte, coordinates) in bytes.iter_mut().zip(row.chunks(8)) {
            let bits = coordinates.iter().enumerate();
            *byte = bits.fold(0, |byte, (bit, x)| byte | u8::from(*x < 0.0) << bit);
        }
        let sum_of_magnitudes = row.iter().map(|x| f64::from(x.abs())).sum();
        scale(square(row), sum_of_magnitudes)
    })
}

/// Rows in parallel on the current rayon pool; `write` makes a row's codes,
/// which are zeros before, and gives its scale.
fn quantize<T: Clone + Default + Send>(
    rows: &[f32],
    proj_dim: usize,
    n_codes: usize,
    write: impl Fn(&[f32], &mut [T]) -> f32 + Sync,
) -> Quantized<T> {
    let rows = rows.par_chunks_exact(proj_dim);
    let mut codes = vec![T::default(); rows.len() * n_codes];
    let scales = codes.par_chunks_exact_mut(n_codes).zip(rows);
    let scales = scales.map(|(codes, row)| write(row, codes)).collect();
    (codes, scales)
}

/// Writes a row's codes on the uniform grid that fits it best; gives its scale.
fn uniform(row: &[f32], limit: i8, codes: &mut [i8]) -> f32 {
    let largest = row.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let square = square(row);
    let least = 2.0 * (square / row.len() as f64).sqrt();
    let clips = std::iter::successors(Some(f64::from(largest)), |clip| {
        Some(clip * CLIP_STEP).filter(|clip| *clip >= least)
    });
    let fits = clips.map(|clip| {
        let grid = Grid { limit, per_unit: f64::from(limit) / clip };
        (grid, grid.fit(row))
    });
    let best =
        fits.reduce(|best, next| if next.1.quality() > best.1.quality() { next } else { best });
    let (grid, fit) = best.expect("there is a first clip");
    for (code, x) in codes.iter_mut().zip(row) {
        *code = grid.code(*x);
    }
    scale(square, fit.with_row)
}

/// Codes −`limit` to `limit`, `per_unit` of them a unit.
#[derive(Clone, Copy)]
struct Grid {
    limit: i8,
    per_unit: f64,
}

/// Inner products of a row's codes: with the row, and with themselves.
#[derive(Clone, Copy)]
struct Fit {
    with_row: f64,
    with_codes: f64,
}

impl Grid {
    /// The nearest code, halves away from zero.
    fn code(self, x: f32) -> i8 {
        let code = f64::from(x) * self.per_unit;
        ((code + 0.5_f64.copysign(code)) as i8).clamp(-self.limit, self.limit)
    }

    fn fit(self, row: &[f32]) -> Fit {
        let (mut with_row, mut with_codes) = (0.0, 0.0);
        for x in row {
            let code = f64::from(self.code(*x));
            with_row += code * f64::from(*x);
            with_codes += code * code;
        }
        Fit { with_row, with_codes }
    }
}

impl Fit {
    /// Grows with the cosine between row and codes.
    fn quality(self) -> f64 {
        self.with_row * self.with_row / self.with_codes
    }
}

fn square(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

/// ⟨x, x⟩ / ⟨c, x⟩; zero for a row of zeros.
fn scale(square: f64, with_row: f64) -> f32 {
    if with_row > 0.0 { (square / with_row) as f32 } else { 0.0 }
}
