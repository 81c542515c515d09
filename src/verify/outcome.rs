//! What came of one trial.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What came of one trial, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    /// Who was tried.
    pub contender: String,
    /// Distinct rows it was trained on.
    pub n_rows: usize,
    /// Tokens it was trained on, repetitions counted.
    pub n_tokens: u64,
    /// Wall-clock seconds, evaluation included.
    pub seconds: f64,
    /// The evaluation's examples, in order of the table.
    pub eval: Vec<EvalRow>,
}

/// One evaluation example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvalRow {
    /// The evaluation it belongs to.
    pub source: String,
    /// Its part of that.
    pub subtask: Option<String>,
    /// Mean cross-entropy of its supervised tokens, in nats.
    pub loss: f32,
    /// Whether greedy decoding writes exactly the answer.
    pub is_exact: bool,
    /// What greedy decoding wrote, token ids without the one that ends the answer; `None`
    /// where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Vec<u32>>,
}

impl Outcome {
    /// Reads an outcome; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be read, or is no outcome.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match fs_err::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|err| {
                let path = path.display();
                let message =
                    format!("`{path}` is no outcome of a trial, which goes without it: {err}");
                std::io::Error::new(std::io::ErrorKind::InvalidData, message)
            }),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }
}
