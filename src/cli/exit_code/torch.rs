//! Exit codes of what fails beside libtorch.

use super::super::interrupt;
use super::{ExitCode, HasExitCode};
use crate::first_pass::FirstPassError;
use crate::gradient::collect::CollectError;
use crate::model::ModelError;
use crate::pipeline::torch::TorchError;
use crate::verify::train::TrialError;
use crate::warmup::WarmupError;

impl HasExitCode for TorchError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Model(err) => err.exit_code(),
            Self::Warmup(err) => err.exit_code(),
            Self::Checkpoint(err) => err.exit_code(),
            Self::FirstPass(err) => err.exit_code(),
            Self::RowValues(err) => err.exit_code(),
            Self::Collect(err) => err.exit_code(),
            Self::Pool(err) => err.exit_code(),
            Self::Projection(_) => ExitCode::Usage as u8,
            Self::Trial(err) => err.exit_code(),
            Self::Run(err) => err.exit_code(),
            Self::Io(err) => err.exit_code(),
        }
    }
}

impl HasExitCode for WarmupError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::EmptyPool | Self::NoRate(_) | Self::NotFinite { .. } => ExitCode::BadData as u8,
            Self::Pool(err) => err.exit_code(),
            Self::Model(err) => err.exit_code(),
            Self::Checkpoint(err) => err.exit_code(),
            Self::Io(err) => err.exit_code(),
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for TrialError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Train { source, .. } => source.exit_code(),
            Self::Assess { source, .. } => source.exit_code(),
            Self::Pool(err) => err.exit_code(),
            Self::Io(err) => err.exit_code(),
            Self::NotFinite { .. } => ExitCode::BadData as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for ModelError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(err) => err.exit_code(),
            Self::Weights(err) => err.exit_code(),
            Self::Lora(_) | Self::NoDevice { .. } => ExitCode::Usage as u8,
            Self::Token { .. } | Self::TooLong { .. } => ExitCode::BadData as u8,
            Self::OutOfMemory(_) | Self::Torch(_) => ExitCode::Temporary as u8,
        }
    }
}

impl HasExitCode for FirstPassError<ModelError> {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Model(_, err) => err.exit_code(),
            Self::Target(_) => ExitCode::BadData as u8,
            Self::Pool(err) => err.exit_code(),
            Self::Store(err) => err.exit_code(),
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}

impl HasExitCode for CollectError<ModelError> {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Measure { .. } => ExitCode::BadData as u8,
            Self::Prepare { source, .. } | Self::Backward { source, .. } => source.exit_code(),
            Self::Pool(err) => err.exit_code(),
            Self::Store(err) => err.exit_code(),
            Self::Threads(_) => ExitCode::Temporary as u8,
            Self::Interrupted => interrupt::exit_code() as u8,
        }
    }
}
