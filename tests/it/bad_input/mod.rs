//! Bad input of every kind: a clear error that names the thing and the way
//! out, the exit code of `less-select --help`, and nothing left behind that a
//! later run would trust.

mod checkpoints;
mod killed;
mod model;
mod rows;
mod run_dir;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::support::{Said, TestRun};
use crate::whole_run::tiny_model;

/// A run with a model of its own, which a test may damage.
struct Desk {
    run: TestRun,
}

/// What counts of a run: checksums of its files, and the name of its subset,
/// which is made from the content.
#[derive(Debug, PartialEq)]
struct Made {
    checkpoints: Vec<(String, String)>,
    gradients: Vec<(String, String)>,
    subset: String,
}

/// What comes out of a desk on which nothing went wrong.
static UNDISTURBED: LazyLock<Made> = LazyLock::new(|| {
    let desk = Desk::new();
    let said = desk.run(&[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    desk.made()
});

impl Desk {
    fn new() -> Self {
        Self::with_rows(12)
    }

    fn with_rows(n_rows: usize) -> Self {
        let desk = Self { run: TestRun::new(n_rows) };
        desk.restore_model();
        desk
    }

    /// Makes the model what it was.
    fn restore_model(&self) {
        copy_folder(&tiny_model(), &self.path("model"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.run.path(name)
    }

    /// Runs everything.
    fn run(&self, more: &[&str]) -> Said {
        self.run.run(&[&["--model", "model"], more].concat())
    }

    /// The error with which a run ends.
    #[track_caller]
    fn refuses(&self, more: &[&str], code: i32) -> String {
        error(&self.run(more), code)
    }

    /// Runs everything in the same run directory, once the cause of an error
    /// is gone: nothing may have come of it.
    #[track_caller]
    fn completes(&self) {
        let said = self.run(&[]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(self.made(), *UNDISTURBED);
    }

    fn made(&self) -> Made {
        Made {
            checkpoints: self.run.checksums("checkpoints"),
            gradients: self.run.checksums("gradients"),
            subset: fs_err::read_to_string(self.path("run/latest")).unwrap(),
        }
    }
}

/// What a command that ended with `code` says is wrong.
#[track_caller]
fn error(said: &Said, code: i32) -> String {
    assert_eq!(said.code, code, "{}", said.stderr);
    let start = said.stderr.find("error: ").unwrap();
    said.stderr[start..].to_owned()
}

fn copy_folder(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).unwrap();
    for entry in fs_err::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs_err::copy(&path, copy).unwrap();
        }
    }
}

/// Rewrites a JSON file.
fn edit_json(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut object = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    change(&mut object);
    fs_err::write(path, serde_json::to_vec(&object).unwrap()).unwrap();
}

/// Rewrites a safetensors file: its header, and the bytes behind it.
fn edit_tensors(path: &Path, change: impl FnOnce(&mut Map<String, Value>, &mut [u8])) {
    let mut bytes = fs_err::read(path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut data = bytes.split_off(8 + header_len);
    let mut header = serde_json::from_slice(&bytes[8..]).unwrap();
    change(&mut header, &mut data);
    let header = serde_json::to_vec(&header).unwrap();
    let len = (header.len() as u64).to_le_bytes();
    fs_err::write(path, [&len[..], &header, &data].concat()).unwrap();
}

/// Cuts a file off in the middle.
fn halve(path: &Path) {
    let bytes = fs_err::read(path).unwrap();
    fs_err::write(path, &bytes[..bytes.len() / 2]).unwrap();
}
