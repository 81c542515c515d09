//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use safetensors::Dtype;

use super::OptimizerError;
use crate::tensor_file::TensorFileError;
use crate::torch_file::TorchFileError;

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
    /// A file of `torch.save` cannot be read.
    #[error(transparent)]
    Torch(#[from] TorchFileError),
    /// The optimizer's state cannot be used.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
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
    /// Two tensors for one parameter.
    #[error("parameter `{0}` is there twice: adapters of several names in one file?")]
    Twice(String),
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
    /// The optimizer's state is not there.
    #[error(
        "no optimizer state (optimizer.safetensors, optimizer.pt or optimizer.bin); only gradients \
         of kind `sgd` do without"
    )]
    NoMoments,
    /// The optimizer's file does not tell its constants.
    #[error("the optimizer's betas, epsilon and step are missing or impossible")]
    NoRule,
    /// The log has no learning rate for the checkpoint's epoch.
    #[error("no learning rate in the log of its last epoch, and others have one")]
    NoLearningRate,
}
