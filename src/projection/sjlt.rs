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

    #[cfg(feature = "torch")]
    pub(super) fn signed_buckets(&self, param_idx: usize) -> SignedBuckets<'_> {
        SignedBuckets { words: &self.words[param_idx], shift: self.shift }
    }

    /// Adds the coordinates `range` of a parameter to one row.
    pub(super) fn add(
        &self,
        param_idx: usize,
        range: Range<usize>,
        values: &[f32],
        row: &mut [f32],
    ) {
        let (words, last_words) = self.words[param_idx][range].as_chunks::<LANES>();
        let (values, last_values) = values.as_chunks::<LANES>();
        for (words, values) in words.iter().zip(values) {
            let outputs = words.map(|word| word >> self.shift);
            let signed: [f32; LANES] = std::array::from_fn(|at| signed(values[at], words[at]));
            for (output, value) in outputs.into_iter().zip(signed) {
                row[output as usize] += value;
            }
        }
        for (word, value) in last_words.iter().zip(last_values) {
            row[(word >> self.shift) as usize] += signed(*value, *word);
        }
    }
}

/// Where each coordinate of a parameter goes.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedBuckets<'a> {
    words: &'a [u32],
    shift: u32,
}

#[cfg(feature = "torch")]
impl SignedBuckets<'_> {
    /// Number of coordinates.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// Output and sign, ±1, of every coordinate.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.words.iter().map(|word| ((word >> self.shift) as usize, signed(1.0, *word)))
    }
}

/// Coordinates whose outputs and signs are found together, in vector registers,
/// before they are added one by one in order.
const LANES: usize = 8;

/// Flipping the sign bit is exact and needs no branch.
fn signed(value: f32, word: u32) -> f32 {
    f32::from_bits(value.to_bits() ^ (word << 31))
}
