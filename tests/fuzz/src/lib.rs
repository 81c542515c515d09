//! What the fuzz targets share: a folder to put bytes into, and rows to read.
//!
//! Most readers take paths, so a target writes its bytes to a file in memory
//! and reads that; the library's interface stays as it is.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use less_select::pool::{EncodingSettings, IngestSettings, PoolError, Source, survey};
use less_select::progress::Silent;
use tempfile::TempDir;

/// The folder of this process, in memory where the system has such a place.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a folder can be made")
});

/// Where the file or folder `name` of this target is.
pub fn path(name: &str) -> PathBuf {
    FOLDER.path().join(name)
}

/// Writes `bytes` to the file `name`; where it is.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    fs_err::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
    fs_err::write(&path, bytes).expect("a file");
    path
}

/// A file of the repository, by its path there.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Copies the tiny model's folder once; where the copy is.
pub fn model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| copy_model("model"));
    &MODEL
}

/// The tiny model with a tokenizer of two words, which loads in no time; where
/// it is.
pub fn wordless_model() -> &'static Path {
    static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = copy_model("wordless");
        let words = fs_err::read(repository("tests/fuzz/seeds/tokenizer/words.json"));
        file("wordless/tokenizer.json", &words.expect("a seed"));
        folder
    });
    &MODEL
}

fn copy_model(folder: &str) -> PathBuf {
    for entry in fs_err::read_dir(repository("tests/fixtures/tiny-llama")).expect("a model") {
        let entry = entry.expect("a file").path();
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        file(&format!("{folder}/{name}"), &fs_err::read(&entry).expect("a file"));
    }
    path(folder)
}

/// Leaves a panic that the library catches to the library: libfuzzer's hook
/// would end the process at once. One that nobody catches still ends it.
pub fn let_panics_be_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    });
}

/// Keeps rayon's work on the calling thread: handing a few rows to another one
/// takes longer than reading them.
fn work_on_this_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
        pool.build_global().expect("nobody else built it");
    });
}

/// Reads `pool` as ingest does, beside a target of one good row, with the columns that
/// `columns` names.
pub fn read_pool(pool: &Path, columns: &[(&str, &str)]) -> Result<(), PoolError> {
    let row = br#"{"prompt": "1 + 1?", "completion": "2"}"#;
    let source = |path: PathBuf| Source { name: None, path: path.display().to_string() };
    work_on_this_thread();
    let target = path("target.jsonl");
    if !target.exists() {
        file("target.jsonl", row);
    }
    let columns = columns.iter().map(|(role, name)| ((*role).to_owned(), (*name).to_owned()));
    let settings = IngestSettings {
        pool: vec![source(pool.to_owned())],
        target: vec![source(target)],
        columns: columns.collect(),
        encoding: EncodingSettings::of_model(256),
        max_rejects: 1.0,
    };
    survey(&settings, wordless_model(), &Silent).map(drop)
}
