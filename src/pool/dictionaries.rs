//! A look at a Parquet file's dictionaries before the parquet crate takes memory
//! for them.
//!
//! A page of a dictionary says how many values it has, and the parquet crate
//! makes room for as many before it reads any: a file of three kilobytes could
//! ask for 8 GB. So each dictionary is unpacked once before, and its number held
//! to its bytes. Of the other pages only the headers are read.

use std::sync::Arc;

use fs_err::File;
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::serialized_reader::SerializedPageReader;

/// Refuses a Parquet file with a dictionary of more values than bytes. Any other
/// damage is left for the reader to find, if it does not keep from looking.
///
/// # Errors
///
/// If there is such a dictionary, or the pages cannot be followed.
pub(super) fn check_dictionaries(file: &File) -> Result<(), ParquetError> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file.file())?;
    let file = Arc::new(file.try_clone()?.into_parts().0);
    for group in metadata.row_groups() {
        let n_rows = usize::try_from(group.num_rows()).unwrap_or(0);
        for column in group.columns() {
            let pages = SerializedPageReader::new(Arc::clone(&file), column, n_rows, None)?;
            check_pages(pages)?;
        }
    }
    Ok(())
}

fn check_pages(mut pages: impl PageReader) -> Result<(), ParquetError> {
    while let Some(page) = pages.peek_next_page()? {
        if !page.is_dict {
            pages.skip_next_page()?;
        } else if let Some(Page::DictionaryPage { buf, num_values, .. }) = pages.get_next_page()?
            && num_values as usize > buf.len()
        {
            let n_bytes = buf.len();
            let problem = format!("a dictionary of {num_values} values has {n_bytes} bytes");
            return Err(ParquetError::General(problem));
        }
    }
    Ok(())
}
