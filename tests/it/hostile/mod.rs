//! Files made to do harm: each is refused, in little time and memory, and says
//! what is wrong with it.

mod model;
mod parquet;
mod rows;
mod store;
mod torch_file;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use less_select::pool::{
    EncodingSettings, IngestSettings, IngestSummary, PoolError, REJECTS, ingest,
};
use less_select::progress::Silent;
use serde_json::Value;

/// A folder with a model of its own, a good target and a hostile pool.
struct Desk {
    dir: tempfile::TempDir,
    began: Instant,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap(), began: Instant::now() };
        fs::create_dir(desk.path("model")).unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            fs::copy(fixture("tiny-llama").join(name), desk.path("model").join(name)).unwrap();
        }
        desk.file("target.jsonl", row("1 + 1?", "2"));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Reads the file `pool`, of which every row may be malformed.
    fn ingest(&self, pool: &str) -> Result<IngestSummary, PoolError> {
        let source = |name: &str| vec![self.path(name).display().to_string().parse().unwrap()];
        let settings = IngestSettings {
            pool: source(pool),
            target: source("target.jsonl"),
            columns: std::collections::BTreeMap::new(),
            encoding: EncodingSettings::of_model(256),
            max_rejects: 1.0,
        };
        let result = ingest(&settings, &self.path("model"), &self.path("out"), &Silent);
        // Far more than any of these takes, and far less than what they ask for.
        assert!(
            self.began.elapsed() < Duration::from_mins(1),
            "it took {:?}",
            self.began.elapsed()
        );
        result
    }

    /// Why the file `pool` cannot be read.
    #[track_caller]
    fn problem(&self, pool: &str) -> String {
        causes(&self.ingest(pool).unwrap_err()).replace(&self.dir.path().display().to_string(), "")
    }

    /// Why rows were left out.
    fn reasons(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("out").join(REJECTS)).unwrap();
        let reject = |line| serde_json::from_str::<Value>(line).unwrap();
        text.lines().map(|line| reject(line)["reason"].as_str().unwrap().to_owned()).collect()
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn row(prompt: &str, completion: &str) -> String {
    serde_json::json!({ "prompt": prompt, "completion": completion }).to_string() + "\n"
}

/// An error and what caused it, in one line.
fn causes(err: &dyn std::error::Error) -> String {
    let own = err.to_string();
    match err.source() {
        // Transparent errors say what their source says.
        Some(source) if source.to_string() == own => causes(source),
        Some(source) => format!("{own}: {}", causes(source)),
        None => own,
    }
}
