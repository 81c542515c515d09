//! How a process ends, by error: the numbers are a promise to schedulers.
//!
//! Every match names every kind, so that a new kind of error does not compile
//! until somebody gives it a number.

#[cfg(feature = "torch")]
mod torch;

use std::io;

use super::interrupt;
use crate::checkpoint::{CheckpointError, CheckpointErrorKind};
use crate::comparison::{CompareError, CompareErrorKind};
use crate::explain::ExplainError;
use crate::first_pass::row_values::{RowValuesError, RowValuesErrorKind};
use crate::influence::InfluenceError;
use crate::influence::scores_file::{ScoresError, ScoresErrorKind};
use crate::merge::MergeError;
use crate::model::base_weights::BaseWeightError;
use crate::model::config::{
    ConfigError as ModelConfigError, ConfigErrorKind as ModelConfigErrorKind,
};
use crate::model::weights::{WeightsError, WeightsErrorKind};
use crate::pipeline::PipelineError;
use crate::pipeline::lock::LockError;
use crate::pipeline::verify::VerifyError;
use crate::pipeline::worker::WorkerError;
use crate::pool::{InputErrorKind, ModelErrorKind, PoolError, TableErrorKind};
use crate::report::ReportError;
use crate::selection::export::{ExportError, ExportErrorKind};
use crate::store::{StoreError, StoreErrorKind};
use crate::tensor_file::TensorFileError;
use crate::torch_file::TorchFileError;

/// An exit code and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed for a reason that has no number of its own.
    Failed = 1,
    /// Wrong usage or settings: the same command will fail again.
    Usage = 2,
    /// The run directory was made with other settings.
    OtherPlan = 3,
    /// An earlier stage is missing or incomplete.
    Incomplete = 4,
    /// Data or model cannot be used: the same command will fail again.
    BadData = 65,
    /// A bug in this program.
    Bug = 70,
    /// A file could not be read or written.
    Io = 74,
    /// In use, or killed from outside: the same command may succeed.
    Temporary = 75,
    /// A file of the run is damaged.
    Damaged = 76,
    /// Stopped by SIGINT, which Ctrl-C sends.
    Interrupted = 130,
    /// Stopped by SIGTERM, which schedulers send.
    Terminated = 143,
}

/// Errors that have an exit code.
pub(super) trait HasExitCode {
    /// The exit code the error stands for.
    fn exit_code(&self) -> u8;
}

impl HasExitCode for io::Error {
    fn exit_code(&self) -> u8 {
        let code = match self.kind() {
            io::ErrorKind::InvalidData => ExitCode::Damaged,
            io::ErrorKind::Interrupted => interrupt::exit_code(),
            _ => ExitCode::Io,
        };
        code as u8
    }
}

impl HasExitCode for PipelineError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { source: LockError::Held { .. }, .. } => ExitCode::Temporary as u8,
            Self::Locked { source: LockError::Io(err), .. }
            | Self::Io(err)
            | Self::Report(ReportError::Io(err)) => err.exit_code(),
            Self::OtherPlan { .. } => ExitCode::OtherPlan as u8,
            Self::Incomplete { .. } => ExitCode::Incomplete as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
            Self::Tokenizer(err) | Self::Ingest(err) => err.exit_code(),
            Self::Checkpoint(err) => err.exit_code(),
            Self::Store(err) => err.exit_code(),
            Self::Influence(err) => err.exit_code(),
            Self::FirstPass(err) => err.exit_code(),
            Self::Scores(err) => err.exit_code(),
            Self::Export(err) => err.exit_code(),
            Self::Report(ReportError::Page(_)) => ExitCode::Bug as u8,
            Self::Damaged { .. } => ExitCode::Damaged as u8,
            Self::OtherModules { .. } | Self::OtherWeight { .. } => ExitCode::BadData as u8,
            Self::Explain(err) => err.exit_code(),
            Self::Verify(err) => err.exit_code(),
            Self::Model(err) => err.exit_code(),
            Self::Weights(err) => err.exit_code(),
            Self::Off { .. } | Self::Lora(_) | Self::Selection(_) | Self::TargetBudgets => {
                ExitCode::Usage as u8
            }
            Self::Worker(err) => err.exit_code(),
        }
    }
}

impl HasExitCode for ExplainError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NoSelection(_) => ExitCode::Incomplete as u8,
            Self::NoRow { .. } | Self::Ambiguous { .. } => ExitCode::Usage as u8,
            Self::Pool(err) => err.exit_code(),
        }
    }
}

impl HasExitCode for VerifyError {
    fn exit_code(&self) -> u8 {
        let code = match self {
            Self::NoSubset(_) => ExitCode::Incomplete,
            Self::SameName(_)
            | Self::NoReference { .. }
            | Self::Name(_)
            | Self::NeedsRun(_)
            | Self::NoForecast(_)
            | Self::TooLong { .. } => ExitCode::Usage,
            Self::Leaked { .. } => ExitCode::BadData,
        };
        code as u8
    }
}

impl HasExitCode for MergeError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(err) => err.exit_code(),
            Self::Weights(err) | Self::BaseWeight(BaseWeightError::Weights(err)) => err.exit_code(),
            Self::Checkpoint(err) | Self::BaseWeight(BaseWeightError::Checkpoint(err)) => {
                err.exit_code()
            }
            Self::BaseWeight(BaseWeightError::Other { .. })
            | Self::Lora(_)
            | Self::Vocabulary { .. } => ExitCode::BadData as u8,
            Self::Exists(_) | Self::Layout(_) => ExitCode::Usage as u8,
            Self::Io(err) => err.exit_code(),
            Self::Write { .. } => ExitCode::Io as u8,
        }
    }
}

impl HasExitCode for WorkerError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(failure) => failure.exit_code,
            Self::Missing { .. } => ExitCode::Usage as u8,
            Self::Io(err) => err.exit_code(),
            Self::Died { .. } => ExitCode::Temporary as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for PoolError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Io(err) => err.exit_code(),
            Self::Table { kind, .. } => match kind {
                TableErrorKind::Parquet(_)
                | TableErrorKind::Arrow(_)
                | TableErrorKind::Schema { .. }
                | TableErrorKind::Row { .. }
                | TableErrorKind::Original { .. } => ExitCode::Damaged as u8,
            },
            Self::Input { kind, .. } => match kind {
                InputErrorKind::Missing
                | InputErrorKind::NoFiles
                | InputErrorKind::UnknownFormat
                | InputErrorKind::Pattern(_)
                | InputErrorKind::NoExample => ExitCode::Usage as u8,
                InputErrorKind::Read(err) => match err.kind() {
                    // A decompressor's words for damaged bytes.
                    io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::Other => ExitCode::BadData as u8,
                    _ => err.exit_code(),
                },
                InputErrorKind::Json(_)
                | InputErrorKind::Row { .. }
                | InputErrorKind::Parquet(_) => ExitCode::BadData as u8,
            },
            Self::Model { kind, .. } => match kind {
                ModelErrorKind::Missing
                | ModelErrorKind::Json(_)
                | ModelErrorKind::Tokenizer(_)
                | ModelErrorKind::SentencePiece(_)
                | ModelErrorKind::Gguf(_)
                | ModelErrorKind::GgufFile(_)
                | ModelErrorKind::NoChatTemplate
                | ModelErrorKind::NoDefaultTemplate
                | ModelErrorKind::NoText
                | ModelErrorKind::Template(_) => ExitCode::BadData as u8,
            },
            Self::Columns(_) => ExitCode::Usage as u8,
            Self::TooManyRejects { .. } | Self::Empty { .. } => ExitCode::BadData as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for TensorFileError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Io(err) => err.exit_code(),
            Self::Format(_) => ExitCode::BadData as u8,
        }
    }
}

impl HasExitCode for TorchFileError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Io(err) => err.exit_code(),
            Self::Legacy
            | Self::Archive(_)
            | Self::ByteOrder(_)
            | Self::Pickle { .. }
            | Self::Global(_)
            | Self::Tensor { .. } => ExitCode::BadData as u8,
        }
    }
}

impl HasExitCode for ModelConfigError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            ModelConfigErrorKind::Io(err) => err.exit_code(),
            _ => ExitCode::BadData as u8,
        }
    }
}

impl HasExitCode for WeightsError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            WeightsErrorKind::File(err) => err.exit_code(),
            WeightsErrorKind::Io(err) => err.exit_code(),
            _ => ExitCode::BadData as u8,
        }
    }
}

impl HasExitCode for CheckpointError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            CheckpointErrorKind::Io(err) => err.exit_code(),
            CheckpointErrorKind::File(err) => err.exit_code(),
            CheckpointErrorKind::Torch(err) => err.exit_code(),
            CheckpointErrorKind::Json(_)
            | CheckpointErrorKind::NoCheckpoints
            | CheckpointErrorKind::Unsupported { .. }
            | CheckpointErrorKind::Missing(_)
            | CheckpointErrorKind::Extra(_)
            | CheckpointErrorKind::Twice(_)
            | CheckpointErrorKind::Optimizer(_)
            | CheckpointErrorKind::Shape { .. }
            | CheckpointErrorKind::Dtype { .. }
            | CheckpointErrorKind::NotFinite(_)
            | CheckpointErrorKind::OtherAdapter { .. }
            | CheckpointErrorKind::NoMoments
            | CheckpointErrorKind::NoRule
            | CheckpointErrorKind::NoLearningRate => ExitCode::BadData as u8,
        }
    }
}

impl HasExitCode for StoreError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            StoreErrorKind::Io(err) => err.exit_code(),
            StoreErrorKind::NotCommitted(_) | StoreErrorKind::NoList => ExitCode::Incomplete as u8,
            StoreErrorKind::NoKind(_) => ExitCode::OtherPlan as u8,
            StoreErrorKind::Json(_)
            | StoreErrorKind::OtherFile(_)
            | StoreErrorKind::Length { .. }
            | StoreErrorKind::Checksum
            | StoreErrorKind::Arrow(_)
            | StoreErrorKind::Layout(_)
            | StoreErrorKind::Format(_)
            | StoreErrorKind::Mismatch { .. }
            | StoreErrorKind::Order(_) => ExitCode::Damaged as u8,
        }
    }
}

impl HasExitCode for InfluenceError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Store(err) => err.exit_code(),
            Self::NoGradient { .. } | Self::OtherSubtasks { .. } => ExitCode::Damaged as u8,
            Self::NoTarget { .. }
            | Self::NoTargetAtAll
            | Self::UnusableSubtask { .. }
            | Self::NotPreconditioned { .. }
            | Self::TooLong { .. }
            | Self::Weights(_) => ExitCode::BadData as u8,
            #[cfg(feature = "linalg")]
            Self::NotDecomposed { .. } => ExitCode::BadData as u8,
            Self::Threads(_) => ExitCode::Temporary as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for ScoresError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            ScoresErrorKind::Io(err) => err.exit_code(),
            ScoresErrorKind::Parquet(_)
            | ScoresErrorKind::Arrow(_)
            | ScoresErrorKind::Columns
            | ScoresErrorKind::Id(_)
            | ScoresErrorKind::Gap(_) => ExitCode::Damaged as u8,
        }
    }
}

impl HasExitCode for RowValuesError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            RowValuesErrorKind::Io(err) => err.exit_code(),
            RowValuesErrorKind::Parquet(_)
            | RowValuesErrorKind::Arrow(_)
            | RowValuesErrorKind::Columns(_)
            | RowValuesErrorKind::Id(_) => ExitCode::Damaged as u8,
        }
    }
}

impl HasExitCode for CompareError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            CompareErrorKind::Other | CompareErrorKind::NoIds { .. } => ExitCode::Usage as u8,
            CompareErrorKind::Scores(err) => err.exit_code(),
            CompareErrorKind::Io(err) => err.exit_code(),
            CompareErrorKind::Parquet(_) | CompareErrorKind::Arrow(_) | CompareErrorKind::Id(_) => {
                ExitCode::Damaged as u8
            }
        }
    }
}

impl HasExitCode for ExportError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            ExportErrorKind::Io(err) => err.exit_code(),
            ExportErrorKind::NoRows
            | ExportErrorKind::NoColumns
            | ExportErrorKind::RowTooLarge { .. } => ExitCode::BadData as u8,
            ExportErrorKind::Changed { .. } => ExitCode::Damaged as u8,
            ExportErrorKind::Arrow(_) | ExportErrorKind::Parquet(_) => ExitCode::Io as u8,
        }
    }
}
