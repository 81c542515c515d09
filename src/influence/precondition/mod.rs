//! Other inner products between the pool's rows and the target's.
//!
//! A cosine follows whatever makes gradients alike: a format, a length, a language
//! that most of the pool shares. With a positive semidefinite M in place of the
//! identity some directions count for less, and others not at all. Nothing is stored
//! anew, and no gradient is computed. With the pool's unit rows x and the target's q:
//!
//! ```text
//! pool      ⟨x, Mq⟩ / ‖Mq‖            M = (R + λI)⁻¹           TRAK
//! whiten    ⟨x, Mq⟩ / (‖x‖_M ‖q‖_M)   M = (R + λI)⁻¹           TrackStar
//! target    ⟨x, Mq⟩ / (‖x‖_M ‖q‖_M)   M = VVᵀ                  GIST
//!
//! ‖a‖²_M = ⟨a, Ma⟩       R = Σ xxᵀ / n, λ = DAMPING · tr(R) / min(n, d)
//! ```
//!
//! with n rows of the pool at a checkpoint, of d coordinates each, and the leading
//! right singular vectors V of the target's rows. λ is a part of the mean of those
//! eigenvalues of R that can be above zero, and keeps directions that hardly any row
//! has from deciding everything. `DataInf` (Kwon et al., ICLR 2024) damps by a tenth
//! of a mean, too.
//!
//! `pool` solves for the target's rows alone and leaves the pool's as they are; the
//! other two are cosines, for which every row's ‖x‖_M is needed.

#[cfg(feature = "linalg")]
mod lapack;
mod pool;
#[cfg(feature = "linalg")]
mod target;
#[cfg(feature = "linalg")]
mod whiten;

use ndarray::Array2;
use rayon::prelude::*;

use super::index::TargetIndex;
use super::{InfluenceError, places};
use crate::gradient::direction::GradientKind;
use crate::pool::table::TableRow;
use crate::progress::Observer;
use crate::store::gradient_store::{GradientStore, RowPlace};

/// λ as a part of the mean eigenvalue.
const DAMPING: f64 = 0.1;

/// Which inner product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precondition {
    /// The plain one.
    None,
    /// By the inverse of the damped second moment of the pool's rows, the pool's rows at
    /// the length they have.
    Pool,
    /// As `Pool`, and the pool's rows at unit length by the same inner product.
    Whiten,
    /// In the subspace of the target's rows.
    Target,
}

impl std::str::FromStr for Precondition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "pool" => Ok(Self::Pool),
            "whiten" => Ok(Self::Whiten),
            "target" => Ok(Self::Target),
            _ => Err(()),
        }
    }
}

/// A target that is ready for a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Preconditioned {
    /// Every row and centroid q as Mq, divided by its length; a row of length zero
    /// stays zero.
    pub index: TargetIndex,
    /// What inner products with the pool's rows have to be divided by, in order of the
    /// table; `None` is one everywhere.
    pub lengths: Option<Vec<f64>>,
}

impl Precondition {
    /// Whether the program has it: `whiten` and `target` take feature `linalg`.
    pub fn is_built_in(self) -> bool {
        cfg!(feature = "linalg") || !matches!(self, Self::Whiten | Self::Target)
    }

    /// Makes a checkpoint's target ready for the pool's rows in `table`. Flagged rows of
    /// the pool count for nothing.
    ///
    /// # Errors
    ///
    /// If `pool` lacks a row of the table, its rows are too long, an equation cannot be
    /// solved, or [`InfluenceError::Interrupted`].
    ///
    /// # Panics
    ///
    /// If gradients of `kind` are not stored, or it is not
    /// [built in](Self::is_built_in).
    pub fn apply(
        self,
        index: TargetIndex,
        pool: &GradientStore,
        table: &[TableRow],
        kind: GradientKind,
        observer: &dyn Observer,
    ) -> Result<Preconditioned, InfluenceError> {
        let rows =
            || Ok::<_, InfluenceError>(PoolRows { pool, places: places(pool, table)?, kind });
        match self {
            Self::None => Ok(Preconditioned { index, lengths: None }),
            Self::Pool => pool::apply(index, rows()?, observer),
            #[cfg(feature = "linalg")]
            Self::Whiten => whiten::apply(index, &rows()?, observer),
            #[cfg(feature = "linalg")]
            Self::Target => target::apply(index, &rows()?, observer),
            #[cfg(not(feature = "linalg"))]
            Self::Whiten | Self::Target => panic!("{self:?} takes feature `linalg`"),
        }
    }
}

/// The pool's stored rows, in order of a table.
struct PoolRows<'a> {
    pool: &'a GradientStore,
    places: Vec<RowPlace>,
    kind: GradientKind,
}

impl PoolRows<'_> {
    /// Coordinates of a row.
    fn dim(&self) -> usize {
        self.pool.header().proj_dim
    }

    fn is_flagged(&self, RowPlace { shard, row }: RowPlace) -> bool {
        self.pool.shards()[shard].flag(row).is_some()
    }

    /// The rows that count.
    fn unflagged(&self) -> Vec<RowPlace> {
        self.places.iter().copied().filter(|place| !self.is_flagged(*place)).collect()
    }

    fn row(&self, RowPlace { shard, row }: RowPlace) -> Vec<f64> {
        let shard = &self.pool.shards()[shard];
        let unit = shard.kind(self.kind).expect("it is stored").unit;
        unit.decode(row..row + 1).into_iter().map(f64::from).collect()
    }

    /// `[n × proj_dim]`.
    fn block(&self, places: &[RowPlace]) -> Array2<f64> {
        let values: Vec<f64> = places.iter().flat_map(|place| self.row(*place)).collect();
        Array2::from_shape_vec((places.len(), self.dim()), values).expect("rows of one length")
    }

    /// λ of the second moment of the rows at `places`.
    fn damping(&self, places: &[RowPlace]) -> f64 {
        let square = |place: &RowPlace| self.row(*place).iter().map(|value| value * value).sum();
        let squares: Vec<f64> = places.par_iter().map(square).collect();
        let n_eigenvalues = places.len().min(self.dim());
        let trace = squares.iter().sum::<f64>() / places.len().max(1) as f64;
        DAMPING * trace / n_eigenvalues.max(1) as f64
    }
}

/// `index` with all of its rows, and every centroid of
/// [`CosineOfMean`](super::Aggregation::CosineOfMean), as `change` makes them,
/// `[n × proj_dim]`; centroids of the mean of cosines are means of those rows.
fn with_rows(
    mut index: TargetIndex,
    mut change: impl FnMut(Array2<f64>) -> Result<Array2<f64>, InfluenceError>,
) -> Result<TargetIndex, InfluenceError> {
    for rows in [&mut index.rows.unit, &mut index.cosine_of_mean] {
        let changed = change(rows.mapv(f64::from))?;
        *rows = changed.as_standard_layout().mapv(|value| value as f32);
    }
    index.average_rows();
    Ok(index)
}

/// Divides a row by `length`, unless that is zero.
fn divide(mut row: ndarray::ArrayViewMut1<'_, f64>, length: f64) {
    if length > 0.0 {
        row /= length;
    }
}
