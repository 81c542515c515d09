//! The subsampled randomized Hadamard transform, block by block.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::hadamard::transform;
use crate::gradient::layout::{Param, ParamLayout};

/// Coordinates transformed together: 64 KB, inside the second cache.
pub(super) const BLOCK: usize = 1 << 14;

/// The tables of every block of every parameter.
#[derive(Debug)]
pub(super) struct Srht {
    params: Vec<Vec<Block>>,
}

/// One block: n outputs of the transform, n a power of two.
#[derive(Debug)]
struct Block {
    /// Signs of the coordinates, 32 a word.
    signs: Vec<u32>,
    /// min(n, `proj_dim`) choices, `index << 1 | sign`: choice t adds output
    /// `index` to sum t, or output t to sum `index` if there are more sums than
    /// outputs.
    choices: Vec<u32>,
}

impl Srht {
    pub(super) fn new(keys: &[[u8; 32]], layout: &ParamLayout, proj_dim: usize) -> Self {
        let params = keys.par_iter().zip(layout.params());
        Self { params: params.map(|(key, param)| blocks(*key, param, proj_dim)).collect() }
    }

    /// Adds the block `range` of a parameter, which `buffer` begins with, to one
    /// row. The buffer is overwritten.
    pub(super) fn add(
        &self,
        param_idx: usize,
        range: Range<usize>,
        buffer: &mut [f32],
        row: &mut [f32],
    ) {
        let block = &self.params[param_idx][range.start / BLOCK];
        let (values, _) = buffer.split_at_mut(range.len().next_power_of_two());
        values[range.len()..].fill(0.0);
        for (values, signs) in values.chunks_mut(32).zip(&block.signs) {
            for (bit, value) in values.iter_mut().enumerate() {
                *value = f32::from_bits(value.to_bits() ^ ((signs >> bit) << 31));
            }
        }
        transform(values);
        let scale = (1.0 / (block.choices.len() as f64).sqrt()) as f32;
        let signed = |value: f32, choice: u32| f32::from_bits(value.to_bits() ^ (choice << 31));
        if values.len() < row.len() {
            for (value, choice) in values.iter().zip(&block.choices) {
                row[(choice >> 1) as usize] += signed(value * scale, *choice);
            }
        } else {
            for (sum, choice) in row.iter_mut().zip(&block.choices) {
                *sum += signed(values[(choice >> 1) as usize] * scale, *choice);
            }
        }
    }
}

fn blocks(key: [u8; 32], param: &Param, proj_dim: usize) -> Vec<Block> {
    let len = param.n_coordinates();
    let mut signs = ChaCha8Rng::from_seed(key);
    (0..len)
        .step_by(BLOCK)
        .zip(1..)
        .map(|(start, stream)| {
            let n = BLOCK.min(len - start);
            Block {
                signs: (0..n.div_ceil(32)).map(|_| signs.next_u32()).collect(),
                choices: choices(key, stream, n.next_power_of_two(), proj_dim),
            }
        })
        .collect()
}

/// The first min(n, `proj_dim`) places of a random order of max(n, `proj_dim`)
/// (Fisher and Yates), each with a sign.
fn choices(key: [u8; 32], stream: u64, n: usize, proj_dim: usize) -> Vec<u32> {
    let mut keystream = ChaCha8Rng::from_seed(key);
    keystream.set_stream(stream);
    let n_places = n.max(proj_dim);
    let mut order: Vec<u32> = (0..n_places as u32).collect();
    (0..n.min(proj_dim))
        .map(|at| {
            let word = keystream.next_u32();
            let ahead = (u64::from(word) * (n_places - at) as u64) >> 32;
            order.swap(at, at + ahead as usize);
            order[at] << 1 | word & 1
        })
        .collect()
}
