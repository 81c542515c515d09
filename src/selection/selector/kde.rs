//! How crowded it is around a pool row.

use super::RowCosines;

/// Where the kernel ends, as a distance of unit rows. A cosine of 0.72 is that
/// far.
const WIDTH: f64 = 0.75;

/// Rows compared with all others at once.
const BLOCK_ROWS: usize = 64;

/// The density around each of `rows` among all of them, with the kernel of
/// Epanechnikov: 1 for a row that is alone, n for n that are the same.
///
/// ```text
/// ρ(z) = Σ_{z' ∈ rows} max(0, 1 − ‖z − z'‖² / 0.75²)        ‖z − z'‖² = 2 − 2 cos(z, z')
/// ```
///
/// All pairs are compared: n² cosines for n rows.
pub fn densities(cosines: &dyn RowCosines, rows: &[usize]) -> Vec<f64> {
    let mut densities = vec![0.0; rows.len()];
    for (queries, block) in rows.chunks(BLOCK_ROWS).zip((0..).step_by(BLOCK_ROWS)) {
        let found = cosines.cosines(queries, rows);
        for (row, found) in found.chunks_exact(queries.len()).enumerate() {
            for (query, cosine) in found.iter().enumerate() {
                // Rounding and quantization leave a row's own cosine near one.
                let is_itself = row == block + query;
                let cosine = if is_itself { 1.0 } else { f64::from(cosine.min(1.0)) };
                densities[block + query] += (1.0 - (2.0 - 2.0 * cosine) / (WIDTH * WIDTH)).max(0.0);
            }
        }
    }
    densities
}

#[cfg(test)]
mod tests {
    use super::super::super::toy::Vectors;
    use super::*;

    #[test]
    fn a_row_alone_has_one_and_copies_count() {
        let at = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        let mut rows = vec![at(0.0); 70];
        rows.extend([at(90.0), at(180.0), at(180.0)]);
        let all: Vec<usize> = (0..rows.len()).collect();
        let found = densities(&Vectors(rows), &all);
        for (found, expected) in found.iter().zip([vec![70.0; 70], vec![1.0, 2.0, 2.0]].concat()) {
            approx::assert_abs_diff_eq!(*found, expected, epsilon = 1e-4);
        }
    }

    #[test]
    fn the_kernel_falls_to_zero_at_its_width() {
        let at = |cosine: f32| vec![cosine, (1.0 - cosine * cosine).sqrt()];
        let of = |cosine: f32| densities(&Vectors(vec![at(1.0), at(cosine)]), &[0, 1])[0];
        approx::assert_abs_diff_eq!(of(0.86), 1.0 + 1.0 - 0.28 / 0.5625, epsilon = 1e-4);
        assert!((of(0.7) - 1.0).abs() < 1e-9);
    }
}
