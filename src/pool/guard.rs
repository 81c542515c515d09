//! Damaged Parquet files as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

/// Runs `decode`, which reads a Parquet file that may be damaged.
///
/// The parquet crate answers some flipped bits with a panic (arithmetic
/// overflow on page sizes, slices out of range). A file must not be able to
/// end the program, so a panic becomes an error here; what `decode` worked on
/// is dropped.
pub(crate) fn guarded<T, E: From<ParquetError>>(
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General("its pages contradict each other".to_owned()).into())
    })
}
