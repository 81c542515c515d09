//! A run in a temporary folder, and the program pointed at it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// The program, deaf to settings of the machine it runs on.
pub(crate) fn less_select() -> Command {
    let mut command = Command::cargo_bin("less-select").unwrap();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LESS_SELECT_")) {
        command.env_remove(name);
    }
    command
}

/// What a command said, with the temporary folder's path taken out.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A folder with a small pool, a target and a place for a run.
pub(crate) struct TestRun {
    dir: tempfile::TempDir,
}

impl TestRun {
    /// A pool of `n_rows` arithmetic and spelling rows, and a target of two
    /// subtasks in their image.
    pub(crate) fn new(n_rows: usize) -> Self {
        let run = Self { dir: tempfile::tempdir().unwrap() };
        let pool: String = (0..n_rows).map(|row| pool_row(row) + "\n").collect();
        run.write("pool.jsonl", &pool);
        run.write(
            "target.jsonl",
            &[
                target_row("sums", "What is 40 + 2?", "40 + 2 = 42."),
                target_row("sums", "What is 7 + 6?", "7 + 6 = 13."),
                target_row("letters", "Spell cat.", "c, a, t"),
            ]
            .join("\n"),
        );
        run
    }

    /// Writes a file of the test's own.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs_err::write(self.path(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The run directory.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// `less-select` on this run with the tiny model, small and exact.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = less_select();
        command.args(args).current_dir(self.dir.path()).args(["--run", "run"]);
        command
    }

    /// Runs a command on the run as it stands.
    pub(crate) fn say(&self, args: &[&str]) -> Said {
        self.said(&mut self.command(args))
    }

    pub(crate) fn said(&self, command: &mut Command) -> Said {
        let output = command.output().unwrap();
        let plain = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace(&self.dir.path().display().to_string(), "[DIR]")
        };
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: plain(&output.stdout),
            stderr: plain(&output.stderr),
        }
    }
}

pub(crate) fn pool_row(row: usize) -> String {
    let (a, b) = (row * 7 % 50, row * 13 % 31);
    let (user, assistant) = match row % 3 {
        0 => (format!("What is {a} + {b}?"), format!("{a} + {b} = {}.", a + b)),
        1 => (format!("Spell number {row}."), "n, u, m, b, e, r".to_owned()),
        _ => (format!("Tell me story {row}."), format!("Once upon a time there were {a} owls.")),
    };
    message_row("", &user, &assistant)
}

fn target_row(subtask: &str, user: &str, assistant: &str) -> String {
    message_row(&format!("\"subtask\": \"{subtask}\", "), user, assistant)
}

pub(crate) fn message_row(columns: &str, user: &str, assistant: &str) -> String {
    format!(
        "{{{columns}\"messages\": [{{\"role\": \"user\", \"content\": \"{user}\"}}, \
         {{\"role\": \"assistant\", \"content\": \"{assistant}\"}}]}}"
    )
}

/// The committed shards of a store, in order of name.
pub(crate) fn committed_shards(store: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(store).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "arrow"))
        .filter(|path| path.with_extension("json").exists())
        .collect();
    files.sort();
    files
}
