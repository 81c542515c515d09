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
//! That is what our warm-up writes. A folder of a trainer is read as it is: its
//! `checkpoint-N`, adapters in `adapter_model.bin`, the optimizer's state in
//! `optimizer.pt` or `optimizer.bin`, by number or by name, in f32 or 8 bits.
//! Without a log every checkpoint counts alike.
//!
//! Nothing here needs libtorch.

mod adapter;
mod adapter_config;
mod error;
mod optimizer;
mod params;
mod peft_name;
mod trainer_state;

use std::path::{Path, PathBuf};

use adapter::AdapterFile;
use adapter_config::AdapterConfig;
pub use error::{CheckpointError, CheckpointErrorKind};
use fs_err as fs;
pub use optimizer::{OptimizerError, OptimizerState};
use serde::{Deserialize, Serialize};
pub use trainer_state::{LogEntry, TrainerState};

use crate::gradient::direction::Moments;
use crate::gradient::layout::ParamLayout;

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

/// An adapter's shape in one line.
fn told(lora: &LoraSettings) -> String {
    format!("rank {}, alpha {}, on {}", lora.rank, lora.alpha, lora.targets.join(", "))
}

/// A weight of the base model that was saved with an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct BaseWeight {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// A checkpoint on disk. Its small files are read, its tensors wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    dir: PathBuf,
    label: String,
    config: AdapterConfig,
    /// `None` without a log: nobody kept one.
    state: Option<TrainerState>,
}

impl Checkpoint {
    /// Opens the checkpoint in the folder `dir`.
    ///
    /// # Errors
    ///
    /// If `adapter_config.json` is missing or damaged or `trainer_state.json`
    /// is damaged, or the adapter is of a kind that the decoder does not
    /// compute.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let config = adapter_config::read(dir)?;
        let has_log = dir.join(trainer_state::FILE).exists();
        let state = has_log.then(|| trainer_state_of(dir)).transpose()?;
        // Resolved, for `.` and `..` are no names for a store.
        let resolved = fs::canonicalize(dir)
            .map_err(|err| CheckpointError { path: dir.to_owned(), kind: err.into() })?;
        let label = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { dir: dir.to_owned(), label, config, state })
    }

    /// Fails unless the adapter computes the same function of its weights as
    /// that of `first`. Dropout is off when gradients are taken.
    fn check_like(&self, first: &Self) -> Result<(), CheckpointError> {
        let update = |lora: &LoraSettings| {
            let mut targets = lora.targets.clone();
            targets.sort_unstable();
            (lora.rank, lora.alpha, targets)
        };
        if update(self.lora()) != update(first.lora()) {
            let kind = CheckpointErrorKind::OtherAdapter {
                own: told(self.lora()),
                first: first.label.clone(),
                expected: told(first.lora()),
            };
            return Err(CheckpointError { path: self.dir.clone(), kind });
        }
        Ok(())
    }

    /// Fails if this one has no learning rate and another of `all` does.
    fn check_rate(&self, all: &[Self]) -> Result<(), CheckpointError> {
        let has_rate = |checkpoint: &Self| checkpoint.logged_learning_rate().is_some();
        if has_rate(self) || !all.iter().any(has_rate) {
            return Ok(());
        }
        let path = self.dir.join(trainer_state::FILE);
        Err(CheckpointError { path, kind: CheckpointErrorKind::NoLearningRate })
    }

    /// The folder's name, such as `epoch-1`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The adapter's shape. Its alpha is the one under which alpha / rank is
    /// the scale, also where the training divided by the rank's root (rslora).
    pub fn lora(&self) -> &LoraSettings {
        &self.config.lora
    }

    /// Whether the training divided alpha by the rank's root.
    pub fn is_rank_stabilized(&self) -> bool {
        self.config.is_rank_stabilized
    }

    /// What the adapter was trained on, a folder or a name, if it is told.
    /// Nothing follows from it: it may be the path of another machine.
    pub fn base_model(&self) -> Option<&str> {
        self.config.base_model.as_deref()
    }

    /// η: the mean learning rate of the epoch that ended with this checkpoint;
    /// 1 without a log.
    pub fn learning_rate(&self) -> f64 {
        self.logged_learning_rate().unwrap_or(1.0)
    }

    /// The same; `None` without a log.
    pub fn logged_learning_rate(&self) -> Option<f64> {
        self.state.as_ref()?.learning_rate()
    }

    /// Optimizer steps taken, 0 without a log.
    pub fn step(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.global_step)
    }

    /// Mean training loss of that epoch's logged steps, in nats a token.
    pub fn loss(&self) -> Option<f64> {
        self.state.as_ref()?.loss()
    }

    /// The file of the adapter's weights.
    pub fn adapter_file(&self) -> PathBuf {
        adapter::path_in(&self.dir)
    }

    /// The files that are read, in order of name. A trainer leaves more.
    pub fn files(&self) -> Vec<PathBuf> {
        let config = self.dir.join(adapter_config::FILE);
        let log = self.dir.join(trainer_state::FILE);
        let optimizer = optimizer::path_in(&self.dir);
        let mut files = [Some(config), Some(self.adapter_file()), optimizer, Some(log)]
            .into_iter()
            .flatten()
            .filter(|path| path.is_file())
            .collect::<Vec<_>>();
        files.sort();
        files
    }

    /// The adapter's weights, f32 `[grad_dim]` in the order of `layout`.
    ///
    /// # Errors
    ///
    /// If the file is damaged or made for another model: the error names the
    /// first parameter that does not fit.
    pub fn adapter(&self, layout: &ParamLayout) -> Result<Vec<f32>, CheckpointError> {
        let adapted = adapter::adapted(&self.dir, &self.config)?;
        AdapterFile::open(&self.dir)?.weights(layout, &adapted)
    }

    /// How many parameters of `layout` the adapter has; those of other layers or
    /// modules are zero.
    ///
    /// # Errors
    ///
    /// If the adapter's file is damaged.
    pub fn n_params(&self, layout: &ParamLayout) -> Result<usize, CheckpointError> {
        let adapted = adapter::adapted(&self.dir, &self.config)?;
        Ok(adapted.n_params(layout))
    }

    /// Weights of the base model that were saved with the adapter, by the base
    /// model's names, such as `model.embed_tokens.weight`: embeddings of another
    /// size, or modules that were trained whole.
    ///
    /// # Errors
    ///
    /// If the adapter's file is damaged.
    pub fn base_weights(&self) -> Result<Vec<String>, CheckpointError> {
        Ok(AdapterFile::open(&self.dir)?.base_weights())
    }

    /// One of them; `None` if there is none of that name, or it is no floating
    /// point.
    ///
    /// # Errors
    ///
    /// If the adapter's file is damaged.
    pub fn base_weight(&self, name: &str) -> Result<Option<BaseWeight>, CheckpointError> {
        Ok(AdapterFile::open(&self.dir)?.base_weight(name))
    }

    /// The sizes of one of them, and whether its values are finite, without reading them
    /// into memory.
    ///
    /// # Errors
    ///
    /// If the adapter's file is damaged.
    pub fn base_weight_facts(
        &self,
        name: &str,
    ) -> Result<Option<(Vec<usize>, bool)>, CheckpointError> {
        Ok(AdapterFile::open(&self.dir)?.base_weight_facts(name))
    }

    /// Adam's moments and constants, in the order of `layout`.
    ///
    /// # Errors
    ///
    /// As [`optimizer`](Self::optimizer).
    pub fn moments(&self, layout: &ParamLayout) -> Result<Moments, CheckpointError> {
        Ok(self.optimizer(layout)?.moments)
    }

    /// Whether there is any state of an optimizer, readable or not.
    pub fn has_optimizer_state(&self) -> bool {
        optimizer::is_there(&self.dir)
    }

    /// The optimizer's state, in the order of `layout`, and where it is from.
    ///
    /// # Errors
    ///
    /// As [`adapter`](Self::adapter), or if there is no state, it is in pieces,
    /// or none of Adam.
    pub fn optimizer(&self, layout: &ParamLayout) -> Result<OptimizerState, CheckpointError> {
        let adapted = adapter::adapted(&self.dir, &self.config)?;
        optimizer::read(&self.dir, &self.config, layout, &adapted)
    }
}

/// Whether the folder `dir` is a checkpoint.
pub fn is_checkpoint(dir: &Path) -> bool {
    dir.join(adapter_config::FILE).is_file()
}

/// The number of the checkpoint in the folder `dir`, by which it stands among
/// others; `None` if it is none that is counted.
pub fn number_of(dir: &Path) -> Option<u64> {
    let name = dir.file_name()?.to_string_lossy();
    let (_, number) = name.rsplit_once('-')?;
    let number = number.parse().ok()?;
    (!name.starts_with('.') && is_checkpoint(dir)).then_some(number)
}

/// The checkpoints in `dir`, by the number at the end of their names: what the
/// warm-up wrote (`epoch-N`), or the Trainer (`checkpoint-N`). A folder without
/// such that itself is a checkpoint is the only one; a trainer leaves its last
/// adapter beside its checkpoints, too.
///
/// # Errors
///
/// If there is none, one cannot be opened, two have adapters of different
/// shapes, or only some have a learning rate.
pub fn checkpoints_in(dir: &Path) -> Result<Vec<Checkpoint>, CheckpointError> {
    let fail = |kind| CheckpointError { path: dir.to_owned(), kind };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|err| fail(err.into()))? {
        let path = entry.map_err(|err| fail(err.into()))?.path();
        if let Some(number) = number_of(&path) {
            found.push((number, path));
        }
    }
    if found.is_empty() && is_checkpoint(dir) {
        return Ok(vec![Checkpoint::open(dir)?]);
    }
    if found.is_empty() {
        return Err(fail(CheckpointErrorKind::NoCheckpoints));
    }
    found.sort();
    let found = found.into_iter().map(|(_, path)| Checkpoint::open(&path));
    let checkpoints = found.collect::<Result<Vec<_>, _>>()?;
    for checkpoint in &checkpoints {
        checkpoint.check_like(&checkpoints[0])?;
        checkpoint.check_rate(&checkpoints)?;
    }
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

#[cfg(test)]
mod tests;
