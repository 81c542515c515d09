//! Checkpoints of a LoRA warm-up, in the layout of `peft` and the Hugging Face
//! Trainer: whoever trained them, gradients are taken at them.
//!
//! ```text
//! epoch-1/
//!   adapter_config.json         as peft writes it
//!   adapter_model.safetensors   as peft writes it
//!   optimizer.safetensors       exp_avg.PARAMETER, exp_avg_sq.PARAMETER, f32;
//!                               metadata `adam`: beta1, beta2, epsilon, step
//!   trainer_state.json          as the Trainer writes it
//! ```
//!
//! Nothing here needs libtorch.

mod adapter;
mod optimizer;
mod trainer_state;

use std::path::{Path, PathBuf};

use fs_err as fs;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::gradient::direction::Moments;
use crate::gradient::layout::ParamLayout;
use crate::tensor_file::{TensorFile, TensorFileError};
pub use trainer_state::{LogEntry, TrainerState};

/// The adapter's shape: the `lora-*` settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoraSettings {
    /// Rank r of the update B·A.
    pub rank: usize,
    /// The update is scaled by alpha / rank.
    pub alpha: f64,
    /// Chance that an input coordinate of A is dropped in training.
    pub dropout: f64,
    /// Names of the linear modules that get an adapter, such as `q_proj`.
    pub targets: Vec<String>,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint `{}`", path.display())]
pub struct CheckpointError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: CheckpointErrorKind,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointErrorKind {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file of tensors cannot be read or is damaged.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A JSON file is not what it should be.
    #[error("damaged JSON")]
    Json(#[from] serde_json::Error),
    /// No folder in it holds an adapter.
    #[error("no checkpoint in it (folders `NAME-1`, `NAME-2`, … with an adapter_config.json)")]
    NoCheckpoints,
    /// An adapter of a kind that the decoder does not compute.
    #[error("`{key}` = {value} is not supported")]
    Unsupported {
        /// The setting of `peft`.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A parameter of the model's adapter is absent.
    #[error("parameter `{0}` is missing: an adapter for another model?")]
    Missing(String),
    /// A parameter that the model's adapter does not have.
    #[error("parameter `{0}` has no place on the model: an adapter for another model?")]
    Extra(String),
    /// A parameter of another shape than the model's.
    #[error("parameter `{name}` has shape {found:?}, the model has {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// Its shape on the model.
        expected: Vec<usize>,
    },
    /// A parameter of a dtype that is no floating point.
    #[error("parameter `{name}` has dtype {dtype}, expected F32, F16 or BF16")]
    Dtype {
        /// The parameter.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// An infinity or NaN among a parameter's values.
    #[error("parameter `{0}` has values that are not finite")]
    NotFinite(String),
    /// An adapter of another shape than the first checkpoint's.
    #[error(
        "its adapter ({own}) is not like that of `{first}` ({expected}): checkpoints of one \
         training are alike"
    )]
    OtherAdapter {
        /// Its shape in words.
        own: String,
        /// The first checkpoint.
        first: String,
        /// Its adapter's shape.
        expected: String,
    },
    /// The optimizer's file is not there.
    #[error("missing; only gradients of kind `sgd` do without the optimizer's moments")]
    NoMoments,
    /// The optimizer's file does not tell its constants.
    #[error("metadata `adam` with beta1, beta2, epsilon and step is missing or damaged")]
    NoRule,
    /// The log has no learning rate for the checkpoint's epoch.
    #[error("no learning rate in the log of its last epoch")]
    NoLearningRate,
}

/// An adapter's shape in one line.
fn told(lora: &LoraSettings) -> String {
    format!("rank {}, alpha {}, on {}", lora.rank, lora.alpha, lora.targets.join(", "))
}

/// A checkpoint on disk. Its small files are read, its tensors wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    dir: PathBuf,
    label: String,
    lora: LoraSettings,
    learning_rate: f64,
    step: u64,
    loss: Option<f64>,
}

impl Checkpoint {
    /// Opens the checkpoint in the folder `dir`.
    ///
    /// # Errors
    ///
    /// If `adapter_config.json` or `trainer_state.json` is missing or damaged,
    /// or the adapter is of a kind that the decoder does not compute.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let lora = adapter::read_config(dir)?;
        let state = trainer_state_of(dir)?;
        let path = dir.join(trainer_state::FILE);
        let fail = |kind| CheckpointError { path: path.clone(), kind };
        let no_rate = || fail(CheckpointErrorKind::NoLearningRate);
        let learning_rate = state.learning_rate().ok_or_else(no_rate)?;
        let (step, loss) = (state.global_step, state.loss());
        // Resolved, for `.` and `..` are no names for a store.
        let resolved = fs::canonicalize(dir).map_err(|err| fail(err.into()))?;
        let label = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { dir: dir.to_owned(), label, lora, learning_rate, step, loss })
    }

    /// Fails unless the adapter computes the same function of its weights as
    /// that of `first`. Dropout is off when gradients are taken.
    fn check_like(&self, first: &Self) -> Result<(), CheckpointError> {
        let update = |lora: &LoraSettings| {
            let mut targets = lora.targets.clone();
            targets.sort_unstable();
            (lora.rank, lora.alpha, targets)
        };
        if update(&self.lora) == update(&first.lora) {
            return Ok(());
        }
        let kind = CheckpointErrorKind::OtherAdapter {
            own: told(&self.lora),
            first: first.label.clone(),
            expected: told(&first.lora),
        };
        Err(CheckpointError { path: self.dir.clone(), kind })
    }

    /// The folder's name, such as `epoch-1`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The adapter's shape.
    pub fn lora(&self) -> &LoraSettings {
        &self.lora
    }

    /// η: the mean learning rate of the epoch that ended with this checkpoint.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Optimizer steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Mean training loss of that epoch's logged steps, in nats a token.
    pub fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// The files in the folder, in order of name.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.dir)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
        files.retain(|path| path.is_file());
        files.sort();
        Ok(files)
    }

    /// The adapter's weights, f32 `[grad_dim]` in the order of `layout`.
    ///
    /// # Errors
    ///
    /// If the file is damaged or made for another model: the error names the
    /// first parameter that does not fit.
    pub fn adapter(&self, layout: &ParamLayout) -> Result<Vec<f32>, CheckpointError> {
        adapter::read(&self.dir, layout)
    }

    /// Adam's moments and constants, in the order of `layout`.
    ///
    /// # Errors
    ///
    /// As [`adapter`](Self::adapter), or if the constants are not told.
    pub fn moments(&self, layout: &ParamLayout) -> Result<Moments, CheckpointError> {
        optimizer::read(&self.dir, layout)
    }
}

/// Whether the folder `dir` is a checkpoint.
pub fn is_checkpoint(dir: &Path) -> bool {
    adapter::is_in(dir)
}

/// The number of the checkpoint in the folder `dir`, by which it stands among
/// others; `None` if it is none that is counted.
pub fn number_of(dir: &Path) -> Option<u64> {
    let name = dir.file_name()?.to_string_lossy();
    let (_, number) = name.rsplit_once('-')?;
    let number = number.parse().ok()?;
    (!name.starts_with('.') && adapter::is_in(dir)).then_some(number)
}

/// The checkpoints in `dir`, by the number at the end of their names: what the
/// warm-up wrote (`epoch-N`), or the Trainer (`checkpoint-N`). A folder that
/// itself is a checkpoint is the only one.
///
/// # Errors
///
/// If there is none, one cannot be opened, or two have adapters of different
/// shapes.
pub fn checkpoints_in(dir: &Path) -> Result<Vec<Checkpoint>, CheckpointError> {
    let fail = |kind| CheckpointError { path: dir.to_owned(), kind };
    if adapter::is_in(dir) {
        return Ok(vec![Checkpoint::open(dir)?]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|err| fail(err.into()))? {
        let path = entry.map_err(|err| fail(err.into()))?.path();
        if let Some(number) = number_of(&path) {
            found.push((number, path));
        }
    }
    if found.is_empty() {
        return Err(fail(CheckpointErrorKind::NoCheckpoints));
    }
    found.sort();
    let found = found.into_iter().map(|(_, path)| Checkpoint::open(&path));
    let checkpoints = found.collect::<Result<Vec<_>, _>>()?;
    checkpoints.iter().try_for_each(|checkpoint| checkpoint.check_like(&checkpoints[0]))?;
    Ok(checkpoints)
}

/// Everything a checkpoint holds.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// What the adapter was trained on, for `peft` to find: a folder or a name.
    pub base_model: &'a str,
    /// The adapter's shape.
    pub lora: &'a LoraSettings,
    /// Names and shapes of its parameters.
    pub layout: &'a ParamLayout,
    /// Their weights, `[grad_dim]`.
    pub adapter: &'a [f32],
    /// The optimizer's moments.
    pub moments: &'a Moments,
    /// The log so far.
    pub state: &'a TrainerState,
}

/// Writes a checkpoint folder that appears whole or not at all, in place of
/// whatever was at `dir`.
///
/// # Errors
///
/// The I/O error of any step.
pub fn write(dir: &Path, content: &Content<'_>) -> Result<(), CheckpointError> {
    let parent = crate::fs::parent(dir);
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!("{}{name}", crate::fs::UNFINISHED));
    let write = || {
        remove(&partial)?;
        fs::create_dir_all(&partial)?;
        adapter::write(&partial, content)?;
        optimizer::write(&partial, content.layout, content.moments)?;
        trainer_state::write(&partial, content.state)?;
        remove(dir)?;
        fs::rename(&partial, dir)?;
        crate::fs::sync_dir(parent)?;
        Ok(())
    };
    write().map_err(|kind| CheckpointError { path: dir.to_owned(), kind })
}

/// The log of the checkpoint in the folder `dir`.
///
/// # Errors
///
/// If it is missing or damaged.
pub fn trainer_state_of(dir: &Path) -> Result<TrainerState, CheckpointError> {
    let path = dir.join(trainer_state::FILE);
    trainer_state::read(&path).map_err(|kind| CheckpointError { path: path.clone(), kind })
}

fn remove(dir: &Path) -> std::io::Result<()> {
    if dir.exists() { fs::remove_dir_all(dir) } else { Ok(()) }
}

/// The tensors `{prefix}{parameter}` of a file, one behind the other in the
/// order of `layout`.
fn read_params(
    file: &TensorFile,
    prefix: &str,
    layout: &ParamLayout,
) -> Result<Vec<f32>, CheckpointErrorKind> {
    let mut values = Vec::with_capacity(layout.grad_dim());
    for param in layout.params() {
        let name = format!("{prefix}{}", param.name);
        let Some(tensor) = file.tensor(&name) else {
            return Err(CheckpointErrorKind::Missing(name));
        };
        if tensor.shape() != param.shape {
            let (found, expected) = (tensor.shape().to_vec(), param.shape.clone());
            return Err(CheckpointErrorKind::Shape { name, found, expected });
        }
        let Some(own) = crate::tensor_file::to_f32(&tensor) else {
            return Err(CheckpointErrorKind::Dtype { name, dtype: tensor.dtype() });
        };
        if own.iter().any(|value| !value.is_finite()) {
            return Err(CheckpointErrorKind::NotFinite(name));
        }
        values.extend(own);
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
