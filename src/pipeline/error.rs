//! Why a run stopped.

use std::io;
use std::path::PathBuf;

use super::verify::VerifyError;
use super::{lock, worker};
use crate::explain::ExplainError;
use crate::influence::InfluenceError;
use crate::method::Method;
use crate::model::base_weights::BaseWeightError;
use crate::pool::PoolError;
use crate::stage::Stage;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Somebody else works on the run, or it is no place to write.
    #[error("cannot work in `{}`", run.display())]
    Locked {
        /// The run directory.
        run: PathBuf,
        /// Who, or what the system says.
        #[source]
        source: lock::LockError,
    },
    /// A stage cannot start because an earlier one is not complete.
    #[error("stage `{stage}` needs `{needs}`, which is not complete in `{}`", run.display())]
    Incomplete {
        /// The stage that was asked for.
        stage: Stage,
        /// The stage that is missing.
        needs: Stage,
        /// The run directory.
        run: PathBuf,
    },
    /// A stage that stands in the run was made from something else.
    #[error("`{}` was made with other settings: {stage}: {difference}", run.display())]
    OtherPlan {
        /// The earlier stage that differs.
        stage: Stage,
        /// What differs.
        difference: String,
        /// The run directory.
        run: PathBuf,
    },
    /// A stage was asked for that the settings leave out.
    #[error("stage `{stage}` is off with method `{method}`")]
    Off {
        /// The stage.
        stage: Stage,
        /// The method of the settings.
        method: Method,
    },
    /// A file of the run was changed after the stage that wrote it.
    #[error("`{}` is not as stage `{stage}` wrote it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The stage.
        stage: Stage,
    },
    /// A row cannot be explained.
    #[error(transparent)]
    Explain(ExplainError),
    /// What to verify makes no sense.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The model's tokenizer or chat template cannot be used.
    #[error("the model cannot be used")]
    Tokenizer(#[source] PoolError),
    /// The pool or the target could not be read.
    #[error("the pool and the target could not be read")]
    Ingest(#[source] PoolError),
    /// A checkpoint could not be read.
    #[error("the checkpoints cannot be used")]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The gradient store could not be read.
    #[error("the gradient store cannot be used")]
    Store(#[from] crate::store::StoreError),
    /// Scores could not be computed.
    #[error("the pool could not be scored")]
    Influence(#[source] InfluenceError),
    /// What the first pass found could not be written or read.
    #[error("what the first pass found cannot be used")]
    FirstPass(#[from] crate::first_pass::row_values::RowValuesError),
    /// The scores could not be written or read.
    #[error("the scores cannot be used")]
    Scores(#[from] crate::influence::scores_file::ScoresError),
    /// The selection's settings name what is not there.
    #[error("the selection cannot be made")]
    Selection(#[from] crate::selection::UnknownName),
    /// Targets have budgets of their own, which one budget for all cannot replace.
    #[error("budgets of a sweep are of all targets together, and `target-budget` is set")]
    TargetBudgets,
    /// The subset could not be written.
    #[error("the subset could not be written")]
    Export(#[from] crate::selection::export::ExportError),
    /// The report could not be written.
    #[error("the report could not be written")]
    Report(#[from] crate::report::ReportError),
    /// The model's configuration cannot be used.
    #[error("the model cannot be used")]
    Model(#[from] crate::model::config::ConfigError),
    /// The model's weights cannot be used.
    #[error("the model cannot be used")]
    Weights(#[from] crate::model::weights::WeightsError),
    /// The adapter does not fit the model.
    #[error("the adapter does not fit the model")]
    Lora(#[from] crate::model::modules::LoraError),
    /// A checkpoint's adapter sits where the model has no module.
    #[error("the adapter of `{checkpoint}` is none for this model")]
    OtherModules {
        /// The checkpoint.
        checkpoint: String,
        /// The module.
        source: crate::model::modules::LoraError,
    },
    /// A checkpoint was trained with other weights of the base model.
    #[error("`{checkpoint}` was saved with a `{name}` that is not the model's")]
    OtherWeight {
        /// The checkpoint.
        checkpoint: String,
        /// The weight.
        name: String,
    },
    /// A stage in a worker process failed.
    #[error(transparent)]
    Worker(worker::WorkerError),
    /// The user, or the system, asked the run to stop.
    #[error("interrupted; what is complete is kept")]
    Interrupted,
}

impl From<ExplainError> for PipelineError {
    fn from(err: ExplainError) -> Self {
        match err {
            ExplainError::Pool(err) => err.into(),
            err => Self::Explain(err),
        }
    }
}

impl From<PoolError> for PipelineError {
    fn from(err: PoolError) -> Self {
        match err {
            PoolError::Interrupted => Self::Interrupted,
            err @ PoolError::Model { .. } => Self::Tokenizer(err),
            err => Self::Ingest(err),
        }
    }
}

impl From<InfluenceError> for PipelineError {
    fn from(err: InfluenceError) -> Self {
        match err {
            InfluenceError::Interrupted => Self::Interrupted,
            err => Self::Influence(err),
        }
    }
}

impl From<worker::WorkerError> for PipelineError {
    fn from(err: worker::WorkerError) -> Self {
        match err {
            worker::WorkerError::Interrupted => Self::Interrupted,
            err => Self::Worker(err),
        }
    }
}

impl From<BaseWeightError> for PipelineError {
    fn from(err: BaseWeightError) -> Self {
        match err {
            BaseWeightError::Other { checkpoint, name } => Self::OtherWeight { checkpoint, name },
            BaseWeightError::Checkpoint(err) => err.into(),
            BaseWeightError::Weights(err) => err.into(),
        }
    }
}
