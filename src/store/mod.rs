//! The gradient store: projected per-example gradients on disk.

use serde::{Deserialize, Serialize};

/// How a stored row's coordinates are written. Queries are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreDtype {
    /// 4 bytes a coordinate.
    F32,
    /// 2 bytes a coordinate; unit rows lose nothing that ranking sees.
    F16,
}

impl std::str::FromStr for StoreDtype {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => Err(()),
        }
    }
}
