//! Files that are complete or absent, and their checksums.
//!
//! Everything the tool writes goes through [`write_atomic`]: a reader never
//! sees half a file, whatever kills the writer.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

/// How names of files and folders begin that are not whole yet. What is left of
/// them belongs to a process that was killed.
pub const UNFINISHED: &str = ".writing-";

/// Removes what killed processes left unfinished in the folder `dir` and below.
/// Nobody else may be writing there.
///
/// # Errors
///
/// If a folder cannot be read or an entry not be removed.
pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        match (is_folder, is_unfinished) {
            (true, true) => fs::remove_dir_all(entry.path())?,
            (false, true) => fs::remove_file(entry.path())?,
            (true, false) => remove_unfinished(&entry.path())?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
///
/// If it cannot be removed.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes `path` by filling a temporary sibling, flushing it to the disk and
/// renaming it over `path`. The folder is made if it is missing.
///
/// # Errors
///
/// The I/O error of any step, which names `path`, or else whatever `fill`
/// returns. `path` is then as it was before.
pub fn write_atomic<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), E>,
) -> Result<(), E> {
    let dir = parent(path);
    fs::create_dir_all(dir)?;
    let failed = |err: &io::Error| named("write", path, err);
    let (file, temp) = temp_file(dir).map_err(|err| failed(&err))?.into_parts();
    let output = Output { file: fs::File::from_parts(file, path), failure: None };
    let mut writer = BufWriter::with_capacity(1 << 20, output);
    let filled = fill(&mut writer).and_then(|()| Ok(writer.flush()?));
    if let Some(failure) = writer.get_mut().failure.take() {
        return Err(failure.into());
    }
    filled?;
    writer.get_ref().file.sync_all()?;
    temp.persist(path).map_err(|err| failed(&err.error))?;
    sync_dir(dir)?;
    Ok(())
}

/// A file that keeps the error it could not be written with: an encoder that
/// writes to it wraps a full disk beyond recognition.
struct Output {
    file: fs::File,
    failure: Option<io::Error>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|err| match err.kind() {
            io::ErrorKind::Interrupted => err,
            kind => {
                self.failure = Some(err);
                kind.into()
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A temporary file that others may read as the umask allows: what it becomes
/// is not private.
fn temp_file(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(UNFINISHED).tempfile_in(dir)
}

/// Writes `value` as indented JSON, atomically.
///
/// # Errors
///
/// The I/O error of any step.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let json = as_json(value)?;
    write_atomic(path, |out| out.write_all(&json))
}

/// The bytes that [`write_json`] writes.
///
/// # Errors
///
/// If `value` cannot be written as JSON.
pub fn as_json(value: &impl serde::Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value)?;
    json.push(b'\n');
    Ok(json)
}

/// What is in the folder `dir`, in order of name; one that is not there is empty.
///
/// # Errors
///
/// If it cannot be read.
pub fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Makes a rename inside `dir` last through a power cut.
///
/// # Errors
///
/// The I/O error of opening or flushing the folder.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// The blake3 checksum of a file's bytes, as 64 hex digits.
///
/// # Errors
///
/// The I/O error of reading it.
pub fn checksum(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path).map_err(|err| named("read", path, &err))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn named(verb: &str, path: &Path, err: &io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("failed to {verb} `{}`: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_sibling() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        write_json(&path, &1).unwrap();
        let failed = write_atomic(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_no_matter_of_the_encoder() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = fs::File::from_parts(full.into_parts().0, "run/scores.parquet");
        let mut output = Output { file, failure: None };
        assert!(output.write(b"less").is_err());
        insta::assert_snapshot!(output.failure.unwrap(), @"failed to write to file `run/scores.parquet`: No space left on device (os error 28)");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_json(&ours, &1).unwrap();
        fs::write(&plain, "1").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn equal_bytes_have_equal_checksums() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
        fs::write(&a, "less").unwrap();
        fs::write(&b, "less").unwrap();
        fs::write(&c, "more").unwrap();
        assert_eq!(checksum(&a).unwrap(), checksum(&b).unwrap());
        assert_ne!(checksum(&a).unwrap(), checksum(&c).unwrap());
    }
}
