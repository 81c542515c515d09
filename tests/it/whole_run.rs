//! Whole runs on the tiny model.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use crate::support::{Said, TestRun};

/// The random-weight model of the tests.
pub(crate) fn tiny_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
}

impl TestRun {
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
        self.said(&mut self.whole(more))
    }

    /// The command of [`run`](Self::run).
    pub(crate) fn whole(&self, more: &[&str]) -> Command {
        let settings = Self::settings();
        let mut command = self.command(more);
        command.args(without(&settings, more));
        command
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
