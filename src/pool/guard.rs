//! Damaged Parquet files as errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fs_err::File;
use parquet::errors::ParquetError;

use super::dictionaries::check_dictionaries;
use super::footer::check_levels;

/// Refuses a Parquet file that would take the parquet crate more stack or memory
/// than follows from its size. To be called before that crate gets the file, under
/// [`guarded`].
///
/// # Errors
///
/// If it would, or its footer or pages cannot be followed.
pub(crate) fn check(file: &File) -> Result<(), ParquetError> {
    check_levels(file.file())?;
    check_dictionaries(file)
}

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
