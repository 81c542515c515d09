//! How a stored row's coordinates are written.

use serde::{Deserialize, Serialize};

/// How a stored row's coordinates are written. Queries are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreDtype {
    /// 4 bytes a coordinate.
    F32,
    /// 2 bytes a coordinate; unit rows lose nothing that ranking sees.
    F16,
    /// 1 byte a coordinate: −127 to 127 times the row's scale.
    I8,
    /// Half a byte a coordinate: −7 to 7 times the row's scale.
    I4,
    /// A bit a coordinate: plus or minus the row's scale.
    I1,
}

/// Coordinates that packed codes are laid out by.
pub(super) const GROUP: usize = 32;

impl StoreDtype {
    /// All of them, from the longest to the shortest.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::I8, Self::I4, Self::I1];

    /// The name in settings and headers.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
            Self::I4 => "i4",
            Self::I1 => "i1",
        }
    }

    /// Bytes of a row of `proj_dim` coordinates, with its scale.
    pub fn row_bytes(self, proj_dim: usize) -> usize {
        let scale = if self.has_scale() { size_of::<f32>() } else { 0 };
        let codes = match self {
            Self::F32 => proj_dim * size_of::<f32>(),
            Self::F16 => proj_dim * size_of::<half::f16>(),
            Self::I8 => proj_dim,
            Self::I4 | Self::I1 => self.packed_bytes(proj_dim),
        };
        codes + scale
    }

    /// Whether rows have a scale beside their codes.
    pub(super) fn has_scale(self) -> bool {
        matches!(self, Self::I8 | Self::I4 | Self::I1)
    }

    /// Columns of the rows of a kind: codes, and scales if they have them.
    pub(super) fn n_columns(self) -> usize {
        1 + usize::from(self.has_scale())
    }

    /// Bytes of the packed codes of a row: whole groups.
    pub(super) fn packed_bytes(self, proj_dim: usize) -> usize {
        let bits = if self == Self::I1 { 1 } else { 4 };
        proj_dim.div_ceil(GROUP) * GROUP * bits / 8
    }
}

impl std::fmt::Display for StoreDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for StoreDtype {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or(())
    }
}
