//! The sparse projection: one signed output a coordinate.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::gradient::layout::ParamLayout;

/// The keystream of every parameter, one word a coordinate. The word itself is
/// the table entry: its top bits are the bucket, its lowest bit is the sign.
#[derive(Debug)]
pub(super) struct Sjlt {
    words: Vec<Vec<u32>>,
    /// 32 − log2(`proj_dim`).
    shift: u32,
}

impl Sjlt {
    pub(super) fn new(keys: &[[u8; 32]], layout: &ParamLayout, proj_dim: usize) -> Self {
        let words = keys
            .par_iter()
            .zip(layout.params())
            .map(|(key, param)| {
                let mut keystream = ChaCha8Rng::from_seed(*key);
                (0..param.n_coordinates()).map(|_| keystream.next_u32()).collect()
            })
            .collect();
        Self { words, shift: 32 - proj_dim.ilog2() }
    }

    /// Adds the coordinates `range` of a parameter to one row.
    pub(super) fn add(
        &self,
        param_idx: usize,
        range: Range<usize>,
        values: &[f32],
        row: &mut [f32],
    ) {
        for (word, value) in self.words[param_idx][range].iter().zip(values) {
            // Flipping the sign bit is exact and needs no branch.
            let signed = f32::from_bits(value.to_bits() ^ (word << 31));
            row[(word >> self.shift) as usize] += signed;
        }
    }
}
