//! The gradient store: projected per-example gradients on disk.
//!
//! A store holds the rows of one table (pool or target) at one checkpoint, in
//! a folder of shards, with a list of those that count
//! ([`shard_list`]). A shard is two files, named by a hash of the store's header
//! and one of the shard's examples:
//!
//! ```text
//! shard-1b04c2d8-90b5e1f3a7c6d824.arrow
//!                     Arrow IPC, one record batch, rows in order of id:
//!                       id            fixed_size_binary(16)
//!                       KIND          the row at unit length, see below
//!                       KIND.scale    f32      of i8, i4 and i1 rows only
//!                       KIND.norm     f32      length before it was made one
//!                       loss          f32      mean token loss, nats
//!                       n_supervised  u32
//!                       flag          utf8?    why the row must not be ranked
//! shard-1b04c2d8-90b5e1f3a7c6d824.json
//!                     its marker: file name, blake3 checksum, bytes, rows, fingerprint
//! ```
//!
//! with the KIND columns once for every [`GradientKind`] stored. D = `proj_dim`
//! coordinates are written as
//!
//! ```text
//! f32   fixed_size_list<f32>[D]              4 D bytes a row
//! f16   fixed_size_list<f16>[D]              2 D
//! i8    fixed_size_list<i8>[D]               D + 4       −127 to 127 times KIND.scale
//! i4    fixed_size_binary(16·ceil(D/32))     D/2 + 4     −7 to 7 times KIND.scale
//! i1    fixed_size_binary(4·ceil(D/32))      D/8 + 4     ±KIND.scale
//! ```
//!
//! `i4` keeps 32 coordinates in 16 bytes: byte j has the code of coordinate j in
//! its low four bits and of j + 16 in its high four, as two's complement. `i1`
//! keeps 8 coordinates a byte, the first in the lowest bit; a set bit means minus.
//!
//! The codes c of a row x and its scale s are chosen so that x ≈ s·c. For codes
//! of several bits a clip a is tried from the row's largest magnitude down to
//! twice its root mean square, by a factor of 2^(−1/4) each time:
//!
//! ```text
//! i8, i4    c_j = round(x_j · L/a) in −L..=L        L = 127, 7
//! i1        c_j = −1 if x_j < 0, else 1
//!           s   = ⟨x, x⟩ / ⟨c, x⟩
//! ```
//!
//! and the codes kept are those most parallel to x, with the greatest
//! ⟨c, x⟩²/⟨c, c⟩. For normal coordinates that leaves steps near the best of a
//! uniform grid (Max, *Quantizing for Minimum Distortion*, 1960: 0.335 standard
//! deviations for 16 levels); a row with few large coordinates gets longer ones.
//!
//! The scale is not the one of least error, ⟨c, x⟩/⟨c, c⟩, but that of
//! `RaBitQ` (Gao and Long, SIGMOD 2024): ⟨s·c, x⟩ is ‖x‖², so the error s·c − x
//! is perpendicular to x, and where that is all that is known of its direction,
//! as with randomly projected rows, ⟨s·c, q⟩ is ⟨x, q⟩ on average for every
//! query q. QLESS (arXiv 2502.01703) quantizes both sides of LESS, with one
//! largest magnitude for a whole store; here the query stays f32 and the scale
//! is the row's own.
//!
//! A flagged row holds zeros. The Arrow schema has one metadata key,
//! `less-select`, whose value is the [`StoreHeader`](shard::StoreHeader) as JSON;
//! all shards of a store have the same, but for the kinds of gradient, of which some may
//! have more than others. Any Arrow reader opens the data file.
//!
//! Both files are written atomically, the marker last: a shard is committed
//! when a marker names a file with its checksum. Reading proves exactly that
//! over the whole file before it hands out a row, so a shard is complete and
//! unaltered or it is an error. Rows are then read from the memory map without
//! a copy.
//!
//! Compatibility: [`FORMAT`] grows when an older reader would misread a file,
//! and a reader refuses every other format than its own, and a dtype that it does
//! not know.

mod checked_file;
mod decode;
mod dtype;
pub mod gradient_store;
pub mod inner_products;
mod quantize;
pub mod shard;
pub mod shard_list;
pub mod unit_rows;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::gradient::direction::GradientKind;

pub use checked_file::Proof;
pub(crate) use checked_file::{CheckedFile, commit, commit_blocks, list_type, lists};
pub use dtype::StoreDtype;

/// Version of the file format.
pub const FORMAT: u32 = 2;

/// Which of the two tables a store's rows belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The training pool.
    Pool,
    /// The target examples.
    Target,
}

impl Split {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pool, Self::Target];

    /// The split's name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Target => "target",
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Why a row must not be ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// The loss is NaN or infinite.
    NonFiniteLoss,
    /// A coordinate of the gradient or of its direction is NaN or infinite.
    NonFiniteGradient,
    /// The gradient, or its projection, is zero everywhere.
    ZeroGradient,
}

impl Flag {
    /// The reason as files and reports state it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NonFiniteLoss => "non-finite loss",
            Self::NonFiniteGradient => "non-finite gradient",
            Self::ZeroGradient => "zero gradient",
        }
    }
}

/// A file or folder of a store that cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
#[error("stored gradients `{}`", path.display())]
pub struct StoreError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: StoreErrorKind,
}

/// What is wrong with a file or folder of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Nothing says which shards make the store.
    #[error("missing: the gradients have not been collected")]
    NoList,
    /// No marker says that the file is complete.
    #[error("is not committed: there is no marker `{0}`")]
    NotCommitted(String),
    /// The marker or header is not the JSON it should be.
    #[error("damaged marker or header")]
    Json(#[from] serde_json::Error),
    /// The marker names another file.
    #[error("its marker is of `{0}`")]
    OtherFile(String),
    /// The file is shorter or longer than when it was committed.
    #[error("has {found} bytes instead of {expected}")]
    Length {
        /// Bytes according to the marker.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Its bytes are not those that were committed.
    #[error("does not have the checksum of its marker: its bytes were altered")]
    Checksum,
    /// Its bytes are whole but no Arrow file that can be read.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// It is an Arrow file, but not one of ours.
    #[error("{0}")]
    Layout(&'static str),
    /// It was written in another format.
    #[error("has format {0}; this version reads format {FORMAT}")]
    Format(u32),
    /// Two things that must come from one computation do not.
    #[error("{what} is `{found}`, but `{expected}` in {elsewhere}")]
    Mismatch {
        /// The part of the header that differs.
        what: &'static str,
        /// What it is here.
        found: String,
        /// What it is there.
        expected: String,
        /// Where it is what was expected.
        elsewhere: String,
    },
    /// Rows do not stand in order of id.
    #[error("row {0} is not in order of id")]
    Order(usize),
    /// The store has no gradients of this kind.
    #[error("holds no `{0}` gradients")]
    NoKind(GradientKind),
}

impl StoreErrorKind {
    /// Whether the file may be good and the system is at fault.
    fn is_denied(&self) -> bool {
        matches!(self, Self::Io(err) if err.kind() != std::io::ErrorKind::NotFound)
    }

    /// Names the place of the error.
    pub(crate) fn at(self, path: &Path) -> StoreError {
        StoreError { path: path.to_owned(), kind: self }
    }
}
