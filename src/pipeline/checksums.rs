//! Checksums of input files, computed once as long as a file stays the same.
//!
//! A model is gigabytes; hashing it at every start would make a run in which
//! nothing changed take seconds. A file whose path, size and modification time
//! are unchanged keeps the checksum it had. The cache carries one of itself: a
//! damaged one is an empty one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::{fs, sealed};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    bytes: u64,
    modified_ns: u128,
    checksum: String,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Cache {
    seen: BTreeMap<String, Seen>,
}

/// The checksums known to a run.
#[derive(Debug)]
pub struct Checksums {
    path: PathBuf,
    seen: BTreeMap<String, Seen>,
    changed: bool,
}

impl Checksums {
    /// Opens the cache at `path`; an absent or unreadable one is empty.
    pub fn open(path: PathBuf) -> Self {
        let Cache { seen } = sealed::read_json(&path).unwrap_or_default();
        Self { seen, path, changed: false }
    }

    /// Whether the cache at `path` is as it was saved.
    pub fn is_whole(path: &Path) -> bool {
        sealed::read_json::<Cache>(path).is_ok()
    }

    /// The blake3 checksum of `file`, 64 hex digits.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn of(&mut self, file: &Path) -> io::Result<String> {
        let key = std::path::absolute(file)?.display().to_string();
        let facts = fs_err::metadata(file)?;
        let modified = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (bytes, modified_ns) = (facts.len(), modified.as_nanos());
        if let Some(seen) = self.seen.get(&key)
            && (seen.bytes, seen.modified_ns) == (bytes, modified_ns)
        {
            return Ok(seen.checksum.clone());
        }
        let checksum = fs::checksum(file)?;
        self.seen.insert(key, Seen { bytes, modified_ns, checksum: checksum.clone() });
        self.changed = true;
        Ok(checksum)
    }

    /// Keeps what was learned.
    ///
    /// # Errors
    ///
    /// If the cache cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        if self.changed {
            let cache = Cache { seen: std::mem::take(&mut self.seen) };
            sealed::write_json(&self.path, &cache)?;
            self.seen = cache.seen;
            self.changed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_has_a_new_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weights");
        fs_err::write(&file, "one").unwrap();
        let mut checksums = Checksums::open(dir.path().join("checksums.json"));
        let first = checksums.of(&file).unwrap();
        assert_eq!(checksums.of(&file).unwrap(), first);
        checksums.save().unwrap();
        fs_err::write(&file, "another").unwrap();
        let mut reopened = Checksums::open(dir.path().join("checksums.json"));
        assert_ne!(reopened.of(&file).unwrap(), first);
    }
}
