//! The dense projection: a random sign for every pair of coordinate and output.

use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayViewMut2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Coordinates multiplied at once. Blocks begin at multiples of it, whatever
/// the batch, for its place decides how sums are rounded.
const BLOCK: usize = 256;

/// Outputs of one task: with [`BLOCK`], 2 MB of signs.
const TILE: usize = 2048;

#[derive(Debug)]
pub(super) struct Rademacher {
    keys: Vec<[u8; 32]>,
    proj_dim: usize,
}

impl Rademacher {
    pub(super) fn new(keys: Vec<[u8; 32]>, proj_dim: usize) -> Self {
        Self { keys, proj_dim }
    }

    /// Adds a parameter of `len` coordinates to all rows, block by block:
    /// `rows += (values/√proj_dim) · signs`, parallel over tiles of outputs.
    pub(super) fn add(
        &self,
        param_idx: usize,
        len: usize,
        rows: &mut [f32],
        write: &(impl Fn(usize, Range<usize>, &mut [f32]) + Sync),
    ) {
        let n_rows = rows.len() / self.proj_dim;
        let mut rows = ArrayViewMut2::from_shape((n_rows, self.proj_dim), rows)
            .expect("the caller asserted whole rows");
        let scale = (1.0 / (self.proj_dim as f64).sqrt()) as f32;
        let tile = TILE.min(self.proj_dim);
        for start in (0..len).step_by(BLOCK) {
            let block = start..len.min(start + BLOCK);
            let mut values = Array2::zeros((n_rows, block.len()));
            values.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(row, mut out)| {
                let out = out.as_slice_mut().expect("rows of a standard layout");
                write(row, block.clone(), out);
                for value in out {
                    *value *= scale;
                }
            });
            rows.axis_chunks_iter_mut(Axis(1), tile).into_par_iter().enumerate().for_each(
                |(tile_idx, mut outputs)| {
                    let signs = self.signs(param_idx, block.clone(), tile_idx * tile, tile);
                    // With a factor other than one, rounding would depend on
                    // a row's place in the batch.
                    general_mat_mul(1.0, &values, &signs, 1.0, &mut outputs);
                },
            );
        }
    }

    /// The signs of coordinates `block` (rows) and of the `n_outputs` outputs
    /// from `first_output` on (columns), ±1.
    fn signs(
        &self,
        param_idx: usize,
        block: Range<usize>,
        first_output: usize,
        n_outputs: usize,
    ) -> Array2<f32> {
        let mut keystream = ChaCha8Rng::from_seed(self.keys[param_idx]);
        let mut signs = Array2::zeros((block.len(), n_outputs));
        for (coordinate, mut signs) in block.zip(signs.rows_mut()) {
            let first_entry = coordinate as u128 * self.proj_dim as u128 + first_output as u128;
            keystream.set_word_pos(first_entry / 32);
            let signs = signs.as_slice_mut().expect("rows of a standard layout");
            for signs in signs.chunks_exact_mut(32) {
                let word = keystream.next_u32();
                for (bit, sign) in signs.iter_mut().enumerate() {
                    *sign = f32::from_bits(1f32.to_bits() | ((word >> bit) << 31));
                }
            }
        }
        signs
    }
}
