//! Random projections from gradients of millions of coordinates to rows of a
//! few thousand that keep inner products.
//!
//! Every entry of the matrix P: R^`grad_dim` → R^`proj_dim` is a function of
//! the seed, the checkpoint, the parameter's name and the coordinate's index
//! in it, so it is the same on every machine, for every thread count and batch,
//! and independent from one checkpoint to the next. A parameter's entries come
//! from the `ChaCha8` keystream `w[0], w[1], …` (32-bit words, addressed with 64
//! bits and more) under the key `["projection", checkpoint, parameter]` of the
//! [`Seed`]. With D = `proj_dim`, coordinate i and output j:
//!
//! ```text
//! sjlt        P[j, i] = ±1     if j = the top log2(D) bits of w[i], else 0
//! rademacher  P[j, i] = ±1/√D  by bit j mod 32 of w[i·D/32 + j/32]
//! none        P       = identity
//! srht        P       = 1/√k · S·H·E with k = min(n, D), block by block
//! ```
//!
//! A set bit means minus; `sjlt` takes the lowest bit of its word. All have
//! E⟨Px, Py⟩ = ⟨x, y⟩ with an error of about 1/√D relative to ‖x‖·‖y‖
//! (Charikar et al., 2002, for the sparse one; Achlioptas, 2003, for signs;
//! Ailon and Chazelle, 2006, and Tropp, 2011, for the Hadamard transform).
//! Because an `sjlt` bucket is made of top bits, adding neighboring outputs
//! of an `sjlt` to D gives the `sjlt` to D/2: a stored row can be read at any
//! smaller power of two.
//!
//! `srht` cuts a parameter into blocks of 2^14 coordinates; each, and so the
//! last, is padded with zeros to a power of two n. E is the diagonal of the
//! coordinates' signs, bit i mod 32 of `w[i/32]`. H is the n × n Walsh–Hadamard
//! matrix of ±1 in natural order. S has a ±1 where one of k distinct outputs
//! of H meets one of k distinct sums, and is 0 elsewhere: with n ≥ D sum t takes
//! the output at place t of a random order of n, with n < D output t goes to the
//! sum at place t of a random order of D. Orders are Fisher and Yates', exchange
//! t going `s[t]`·(max(n, D) − t)/2^32 places ahead, where s is the keystream
//! whose stream number is the block's, counted from 1; the lowest bit of `s[t]`
//! is the sign in S. Within a block the error is that of choosing D of n outputs
//! without replacement, and none where n ≤ D. Between blocks the signs of S are
//! independent, so the variance is the sum over outputs j of
//! `E (Px)_j² · E (Py)_j²`, which is ‖x‖²·‖y‖²/D. Without those signs the first
//! coordinates of two blocks, for which H has nothing but ones, would meet with
//! a variance of one.
//!
//! Memory: `sjlt` keeps its keystream, 4 bytes × `grad_dim`; `srht` k choices of
//! 4 bytes a block and a bit a coordinate; `rademacher` makes 2 MB blocks of
//! signs, one a thread, and keeps none.

pub mod fidelity;
mod hadamard;
mod rademacher;
mod sjlt;
mod srht;

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::gradient::layout::ParamLayout;
use crate::seed::Seed;
use rademacher::Rademacher;
#[cfg(feature = "torch")]
pub(crate) use sjlt::SignedBuckets;
use sjlt::Sjlt;
use srht::Srht;

/// How gradients are made short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionKind {
    /// Sparse Johnson–Lindenstrauss: each coordinate is added, with a random
    /// sign, to one random output (`CountSketch`).
    Sjlt,
    /// Subsampled randomized Hadamard transform: blocks of coordinates are
    /// spread over all outputs.
    Srht,
    /// Dense ±1/√`proj_dim` signs.
    Rademacher,
    /// No projection: rows are whole gradients. For small models and tests.
    None,
}

impl std::str::FromStr for ProjectionKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "sjlt" => Ok(Self::Sjlt),
            "srht" => Ok(Self::Srht),
            "rademacher" => Ok(Self::Rademacher),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

/// The `projection` and `proj-dim` settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProjectionSettings {
    /// Which projection.
    pub kind: ProjectionKind,
    /// Length of a projected row: a power of two, at least 64. Ignored by `none`.
    pub proj_dim: usize,
}

impl ProjectionSettings {
    /// Length of a projected row of a gradient over `layout`.
    pub fn row_length(&self, layout: &ParamLayout) -> usize {
        match self.kind {
            ProjectionKind::None => layout.grad_dim(),
            ProjectionKind::Sjlt | ProjectionKind::Srht | ProjectionKind::Rademacher => {
                self.proj_dim
            }
        }
    }
}

/// Version of the definitions in the module page; part of the fingerprint.
const VERSION: u32 = 1;

/// 32 hex digits that are equal for equal matrices, known before there is one.
pub fn projection_fingerprint(
    settings: ProjectionSettings,
    seed: Seed,
    checkpoint: &str,
    layout: &ParamLayout,
) -> String {
    let identity = serde_json::json!({
        "version": VERSION,
        "kind": settings.kind,
        "proj-dim": settings.row_length(layout),
        "seed": seed,
        "checkpoint": checkpoint,
        "layout": layout.fingerprint(),
    });
    let hash = blake3::derive_key("less-select projection v1", identity.to_string().as_bytes());
    blake3::Hash::from(hash).to_hex()[..32].to_owned()
}

/// `proj_dim` is no power of two between 64 and 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("projection to {proj_dim} dimensions: not a power of two between 64 and 2^31")]
pub struct ProjectionError {
    /// The length asked for.
    pub proj_dim: usize,
}

/// The projection of one checkpoint's gradients.
#[derive(Debug)]
pub struct Projection {
    matrix: Matrix,
    layout: ParamLayout,
    proj_dim: usize,
    fingerprint: String,
}

#[derive(Debug)]
enum Matrix {
    Sjlt(Sjlt),
    Srht(Srht),
    Rademacher(Rademacher),
    None,
}

impl Projection {
    /// The projection of gradients over `layout` at the checkpoint named
    /// `checkpoint`. Computes the tables of `sjlt` and `srht`, in parallel over
    /// parameters.
    ///
    /// # Errors
    ///
    /// If `proj_dim` is no power of two between 64 and 2^31 (but for `none`).
    pub fn new(
        settings: ProjectionSettings,
        seed: Seed,
        checkpoint: &str,
        layout: &ParamLayout,
    ) -> Result<Self, ProjectionError> {
        let ProjectionSettings { kind, proj_dim } = settings;
        let is_allowed = proj_dim.is_power_of_two() && (64..=1 << 31).contains(&proj_dim);
        if kind != ProjectionKind::None && !is_allowed {
            return Err(ProjectionError { proj_dim });
        }
        let fingerprint = projection_fingerprint(settings, seed, checkpoint, layout);
        let proj_dim = settings.row_length(layout);
        let keys = layout
            .params()
            .iter()
            .map(|param| seed.key(&["projection", checkpoint, &param.name]))
            .collect::<Vec<_>>();
        let matrix = match kind {
            ProjectionKind::Sjlt => Matrix::Sjlt(Sjlt::new(&keys, layout, proj_dim)),
            ProjectionKind::Srht => Matrix::Srht(Srht::new(&keys, layout, proj_dim)),
            ProjectionKind::Rademacher => Matrix::Rademacher(Rademacher::new(keys, proj_dim)),
            ProjectionKind::None => Matrix::None,
        };
        Ok(Self { matrix, layout: layout.clone(), proj_dim, fingerprint })
    }

    /// The parameters it projects.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Length of a projected row; `grad_dim` for `none`.
    pub fn proj_dim(&self) -> usize {
        self.proj_dim
    }

    /// 32 hex digits that are equal for equal matrices: inner products of rows
    /// mean something only where they agree.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Bucket and sign of every coordinate of a parameter, where the projection
    /// is `sjlt`.
    #[cfg(feature = "torch")]
    pub(crate) fn signed_buckets(&self, param_idx: usize) -> Option<SignedBuckets<'_>> {
        match &self.matrix {
            Matrix::Sjlt(sjlt) => Some(sjlt.signed_buckets(param_idx)),
            Matrix::Srht(_) | Matrix::Rademacher(_) | Matrix::None => None,
        }
    }

    /// Adds one parameter's part of the projection of several vectors to `rows`.
    ///
    /// `rows` is `[n × proj_dim]`, f32, row-major; start it at zero and call
    /// this once a parameter. `write(row, range, out)` must write that row's
    /// coordinates `range`, counted within the parameter, to `out`: so vectors
    /// are made piece by piece where they are consumed and are never whole in
    /// memory. It is called in parallel, once for every row and range.
    ///
    /// Runs on the current rayon pool. Every output is an f32 sum in the order
    /// of coordinates, the same for any number of threads and rows.
    ///
    /// # Panics
    ///
    /// If `rows` is no whole number of rows, or there is no such parameter.
    pub fn accumulate(
        &self,
        param_idx: usize,
        rows: &mut [f32],
        write: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    ) {
        assert!(rows.len().is_multiple_of(self.proj_dim), "whole rows of {}", self.proj_dim);
        let param = &self.layout.params()[param_idx];
        let len = param.n_coordinates();
        match &self.matrix {
            Matrix::Rademacher(rademacher) => rademacher.add(param_idx, len, rows, &write),
            Matrix::Sjlt(sjlt) => self.in_pieces(len, PIECE, rows, &write, |range, buffer, row| {
                let values = &buffer[..range.len()];
                sjlt.add(param_idx, range, values, row);
            }),
            Matrix::Srht(srht) => {
                self.in_pieces(len, srht::BLOCK, rows, &write, |range, buffer, row| {
                    srht.add(param_idx, range, buffer, row);
                });
            }
            Matrix::None => self.in_pieces(len, PIECE, rows, &write, |range, buffer, row| {
                let row = &mut row[param.offset..][range];
                row.iter_mut().zip(buffer).for_each(|(sum, value)| *sum += *value);
            }),
        }
    }

    /// Walks the coordinates `0..len` of every row in order: `write` fills the
    /// beginning of a buffer with a piece, `add` adds it to the row.
    ///
    /// Rows are shared out among threads; a thread takes a piece of all its rows
    /// before the next piece, so that what rows have in common (tables, moments)
    /// comes from memory once.
    fn in_pieces(
        &self,
        len: usize,
        piece: usize,
        rows: &mut [f32],
        write: &(impl Fn(usize, Range<usize>, &mut [f32]) + Sync),
        add: impl Fn(Range<usize>, &mut [f32], &mut [f32]) + Sync,
    ) {
        if rows.is_empty() {
            return;
        }
        let share = (rows.len() / self.proj_dim).div_ceil(rayon::current_num_threads());
        let shares = rows.par_chunks_mut(share * self.proj_dim).enumerate();
        shares.for_each(|(share_idx, rows)| {
            let mut buffer = vec![0.0; piece.min(len.next_power_of_two())];
            for start in (0..len).step_by(piece) {
                let range = start..len.min(start + piece);
                for (row_idx, row) in rows.chunks_exact_mut(self.proj_dim).enumerate() {
                    let values = &mut buffer[..range.len()];
                    write(share_idx * share + row_idx, range.clone(), values);
                    add(range.clone(), &mut buffer, row);
                }
            }
        });
    }
}

/// Coordinates handled at once for one row: 4 KB, well inside the first cache.
const PIECE: usize = 1024;
