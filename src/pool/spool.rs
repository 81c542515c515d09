//! Rows on their way from reading order to table order.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fs_err as fs;

use super::table::Entry;
use super::{ExampleId, PoolError};

/// A temporary file of rows and, in memory, where each stands in it: about a
/// hundred bytes a row. The file has no name and is gone when the spool is.
#[derive(Debug)]
pub(super) struct Spool {
    file: BufWriter<fs::File>,
    n_bytes: u64,
    places: Vec<Place>,
}

/// Ordered as tables are.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    id: ExampleId,
    source: String,
    subtask: Option<String>,
    start: u64,
    n_bytes: usize,
}

impl Spool {
    /// An empty spool on the disk that holds `dir`, which is made if missing.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // Errors name the folder: it is what the user can do something about.
        let file = fs::File::from_parts(tempfile::tempfile_in(dir)?, dir);
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, n_bytes: 0, places: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), PoolError> {
        let bytes = serde_json::to_vec(entry).map_err(io::Error::from)?;
        self.file.write_all(&bytes)?;
        self.places.push(Place {
            id: entry.example.id,
            source: entry.source.clone(),
            subtask: entry.subtask.clone(),
            start: self.n_bytes,
            n_bytes: bytes.len(),
        });
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The rows in table order.
    ///
    /// # Errors
    ///
    /// If they cannot be written out; of the iterator: if one cannot be read
    /// back.
    pub(super) fn into_sorted(
        mut self,
    ) -> io::Result<impl Iterator<Item = Result<Entry, PoolError>>> {
        self.places.sort_unstable();
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(self.places.into_iter().map(move |place| {
            let mut bytes = vec![0; place.n_bytes];
            file.seek(SeekFrom::Start(place.start))?;
            file.read_exact(&mut bytes)?;
            Ok(serde_json::from_slice(&bytes).map_err(io::Error::from)?)
        }))
    }
}
