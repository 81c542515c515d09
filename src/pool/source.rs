//! From the `pool` and `target` settings to files of rows.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::embedded::{self, EmbeddedFile};
use super::error::InputErrorKind;
use super::{PoolError, Source};

/// The file names that are understood, for messages.
pub(super) const KNOWN_NAMES: &str =
    ".jsonl, .ndjson, .json or .parquet, each plain or with .gz or .zst behind it";

/// How a file's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON: an array of rows, or a row a line.
    Json,
    /// Parquet.
    Parquet,
}

/// How a file's bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A file of rows.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    /// The source's name: as set, or the file's stem.
    pub(super) source: String,
    /// How messages and tables call the file.
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) packing: Packing,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Disk(PathBuf),
    Program(&'static [u8]),
}

impl InputFile {
    /// An error about this file.
    pub(super) fn fail(&self, kind: InputErrorKind) -> PoolError {
        PoolError::Input { path: self.name.clone(), kind }
    }

    /// Its size in bytes, packed; 0 if that cannot be told.
    pub(super) fn n_bytes(&self) -> u64 {
        match &self.place {
            Place::Disk(path) => fs::metadata(path).map_or(0, |metadata| metadata.len()),
            Place::Program(bytes) => bytes.len() as u64,
        }
    }

    /// Where it lies on the disk as it is read, if it does.
    pub(super) fn plain_path(&self) -> Option<&Path> {
        match (&self.place, self.packing) {
            (Place::Disk(path), Packing::Plain) => Some(path),
            _ => None,
        }
    }

    /// Its bytes, packed.
    pub(super) fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match &self.place {
            Place::Disk(path) => Box::new(fs::File::open(path)?),
            Place::Program(bytes) => Box::new(*bytes),
        })
    }
}

impl Source {
    /// Looks for the source's files and opens none.
    ///
    /// # Errors
    ///
    /// If there is no file, or one has a name that is not understood.
    pub fn check(&self) -> Result<(), PoolError> {
        files(self).map(|_| ())
    }

    /// What identifies the source's content: `NAME, FILE` and a checksum for
    /// each file. `of` computes the checksum of a file on disk.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), or whatever `of` returns.
    pub fn checksums(
        &self,
        mut of: impl FnMut(&Path) -> io::Result<String>,
    ) -> Result<Vec<(String, String)>, PoolError> {
        let identify = |file: InputFile| {
            let checksum = match &file.place {
                Place::Disk(path) => of(path)?,
                Place::Program(bytes) => blake3::hash(bytes).to_hex().to_string(),
            };
            Ok((format!("{}, {}", file.source, file.name), checksum))
        };
        files(self)?.into_iter().map(identify).collect()
    }
}

/// The files of `source`: one path, everything below a folder (sorted by path,
/// hidden files and unknown names left out), the matches of a glob, or what
/// ships in the program as `example:NAME`.
///
/// # Errors
///
/// If there is none, or a file named directly has a name that is not
/// understood.
pub(super) fn files(source: &Source) -> Result<Vec<InputFile>, PoolError> {
    let fail = |kind| PoolError::Input { path: source.path.clone(), kind };
    let files = if let Some(set) = source.path.strip_prefix("example:") {
        let files: Vec<_> =
            embedded::files(set).filter_map(|file| program_file(source, file)).collect();
        if files.is_empty() {
            return Err(fail(InputErrorKind::NoExample));
        }
        files
    } else {
        let path = Path::new(&source.path);
        if path.is_dir() {
            folder(path)?
        } else if path.exists() {
            vec![path.to_owned()]
        } else {
            matches(&source.path).map_err(fail)?
        }
        .into_iter()
        .map(|path| disk_file(source, path))
        .collect::<Result<_, _>>()?
    };
    if files.is_empty() { Err(fail(InputErrorKind::NoFiles)) } else { Ok(files) }
}

fn program_file(source: &Source, file: EmbeddedFile) -> Option<InputFile> {
    let (stem, format, packing) = parse_name(file.file)?;
    Some(InputFile {
        source: source.name.clone().unwrap_or_else(|| stem.to_owned()),
        name: format!("{}/{}", source.path, file.file),
        format,
        packing,
        place: Place::Program(file.bytes),
    })
}

fn disk_file(source: &Source, path: PathBuf) -> Result<InputFile, PoolError> {
    let name = path.display().to_string();
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some((stem, format, packing)) = file_name.as_deref().and_then(parse_name) else {
        return Err(PoolError::Input { path: name, kind: InputErrorKind::UnknownFormat });
    };
    let source = source.name.clone().unwrap_or_else(|| stem.to_owned());
    Ok(InputFile { source, name, format, packing, place: Place::Disk(path) })
}

/// Stem, format and packing that a file name tells.
fn parse_name(name: &str) -> Option<(&str, Format, Packing)> {
    let (inner, packing) = match name.rsplit_once('.')? {
        (inner, "gz") => (inner, Packing::Gzip),
        (inner, "zst") => (inner, Packing::Zstd),
        _ => (name, Packing::Plain),
    };
    let (stem, ending) = inner.rsplit_once('.')?;
    let format = match ending {
        "jsonl" | "ndjson" | "json" => Format::Json,
        "parquet" => Format::Parquet,
        _ => return None,
    };
    (!stem.is_empty()).then_some((stem, format, packing))
}

/// What tells of the rows beside it in a dataset's folder, such as a subset's.
const DESCRIPTIONS: [&str; 3] = ["dataset_info.json", "dataset_infos.json", "less-select.json"];

fn is_of_rows(name: &str) -> bool {
    parse_name(name).is_some() && !DESCRIPTIONS.contains(&name)
}

/// The files of rows below `dir`, sorted by path.
fn folder(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // Follows links, as naming the file directly would.
        if fs::metadata(entry.path())?.is_dir() {
            files.append(&mut folder(&entry.path())?);
        } else if is_of_rows(&name) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The files of rows that `pattern` matches, in folders that it matches too.
fn matches(pattern: &str) -> Result<Vec<PathBuf>, InputErrorKind> {
    // As in a shell and as below folders: no hidden files unless asked for.
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let paths: Vec<PathBuf> = glob::glob_with(pattern, options)
        .map_err(InputErrorKind::Pattern)?
        .collect::<Result<_, _>>()
        .map_err(|err| InputErrorKind::Read(err.into()))?;
    if paths.is_empty() {
        return Err(InputErrorKind::Missing);
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.append(&mut folder(&path).map_err(InputErrorKind::Read)?);
        } else if path.file_name().is_some_and(|name| is_of_rows(&name.to_string_lossy())) {
            files.push(path);
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(setting: &str) -> Result<Vec<(String, String)>, PoolError> {
        let source: Source = setting.parse().unwrap();
        Ok(files(&source)?.into_iter().map(|file| (file.source, file.name)).collect())
    }

    fn problem(setting: &str) -> String {
        let err = names(setting).unwrap_err();
        format!("{err}: {}", std::error::Error::source(&err).unwrap())
    }

    #[test]
    fn a_folder_gives_its_files_of_rows_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let others = ["README.md", ".hidden.jsonl", "dataset_info.json"];
        for name in ["b.jsonl", "a/z.parquet", "a/c.json.gz"].into_iter().chain(others) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let expected = [
            ("c".to_owned(), at("a/c.json.gz")),
            ("z".to_owned(), at("a/z.parquet")),
            ("b".to_owned(), at("b.jsonl")),
        ];
        assert_eq!(names(&dir.path().display().to_string()).unwrap(), expected);
        assert_eq!(names(&at("**/*")).unwrap(), expected);
        let named = names(&format!("mix={}", at("a/*.gz"))).unwrap();
        assert_eq!(named, [("mix".to_owned(), at("a/c.json.gz"))]);
    }

    #[test]
    fn example_data_ships_in_the_program() {
        let pool = names("example:pool").unwrap();
        assert_eq!(pool.len(), 5);
        assert_eq!(pool[2], ("gsm8k".to_owned(), "example:pool/gsm8k.jsonl".to_owned()));
        assert_eq!(names("math=example:gsm8k").unwrap()[0].0, "math");
    }

    #[test]
    fn a_source_without_files_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display().to_string();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        assert!(problem(&here).ends_with("each plain or with .gz or .zst behind it"));
        assert!(problem(&format!("{here}/notes.txt")).contains("its name does not end in .jsonl"));
        assert!(problem(&format!("{here}/*.txt")).contains("holds no file whose name"));
        assert!(problem(&format!("{here}/none.jsonl")).contains("no such file or folder"));
        assert!(problem(&format!("{here}/***.jsonl")).ends_with("not a valid pattern"));
        insta::assert_snapshot!(
            problem("example:mmlu"),
            @"input `example:mmlu`: no such example data; there is `example:pool`, `example:gsm8k`, `example:tydiqa`"
        );
    }
}
