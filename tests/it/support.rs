//! A run in a temporary folder, and the program pointed at it.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// The random-weight model of the tests.
pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

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

    /// The settings of a whole small run, as flags.
    fn settings() -> Vec<String> {
        let model = tiny_model().display().to_string();
        let flags = [
            "--pool",
            "pool.jsonl",
            "--target",
            "target.jsonl",
            "--model",
            &model,
            "--dtype",
            "f32",
            "--epochs",
            "2",
            "--warmup-share",
            "50%",
            "--warmup-min-rows",
            "1",
            "--batch-size",
            "4",
            "--learning-rate",
            "1e-3",
            "--lora-rank",
            "4",
            "--proj-dim",
            "512",
            "--shard-rows",
            "8",
            "--budget",
            "25%",
            "--threads",
            "1",
        ];
        flags.map(str::to_owned).to_vec()
    }

    /// Runs the whole pipeline, with further flags.
    pub(crate) fn run(&self, more: &[&str]) -> Said {
        let settings = Self::settings();
        let mut command = self.command(more);
        command.args(without(&settings, more));
        self.said(&mut command)
    }

    /// Runs a command on the run as it stands.
    pub(crate) fn say(&self, args: &[&str]) -> Said {
        self.said(&mut self.command(args))
    }

    fn said(&self, command: &mut Command) -> Said {
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

    /// Checksums of every file below a folder of the run, by relative path.
    pub(crate) fn checksums(&self, folder: &str) -> Vec<(String, String)> {
        let root = self.run_dir().join(folder);
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(dir) = folders.pop() {
            for entry in fs_err::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().display().to_string();
                    found.push((name, less_select::fs::checksum(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }
}

/// `settings` without the flags that `more` gives anew.
fn without(settings: &[String], more: &[&str]) -> Vec<String> {
    let pairs = settings.chunks(2).filter(|pair| !more.contains(&pair[0].as_str()));
    pairs.flatten().cloned().collect()
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

fn message_row(columns: &str, user: &str, assistant: &str) -> String {
    format!(
        "{{{columns}\"messages\": [{{\"role\": \"user\", \"content\": \"{user}\"}}, \
         {{\"role\": \"assistant\", \"content\": \"{assistant}\"}}]}}"
    )
}
