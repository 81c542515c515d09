//! A model that is named and not here: fetching it, and what is said where that fails.

use std::path::Path;

use super::exit::CliError;
use super::exit_code::{ExitCode, HasExitCode};
use super::interrupt;
use crate::config::layers::{self, Layer};
use crate::hub::{Hub, HubError, HubErrorKind, RepoName};
use crate::progress::Observer;

/// Fetches the model if it is one of the hub that this machine does not have.
pub(super) fn fetch(layers: &[Layer], observer: &dyn Observer) -> Result<(), CliError> {
    let model = layers::join(layers).0.model.unwrap_or_default();
    if let Ok(name) = model.parse::<RepoName>()
        && !Path::new(&model).is_dir()
        && !name.is_here()
        && let Some(hub) = Hub::from_env()
    {
        hub.fetch(&name, observer)?;
    }
    Ok(())
}

/// What to do about a model that could not be fetched.
pub(super) fn hint(kind: &HubErrorKind) -> Option<&'static str> {
    match kind {
        HubErrorKind::NotFound(_) => Some(
            "--model takes a folder, a GGUF file, or a name such as ORG/NAME or ORG/NAME@REVISION",
        ),
        HubErrorKind::Refused(_) => Some(
            "look at the name; for a model that is private, or whose terms are to be accepted on \
             its page, set HF_TOKEN",
        ),
        HubErrorKind::NotAModel(_) => Some(
            "give the name of a model in Hugging Face layout, or the file of a model with --model",
        ),
        HubErrorKind::Connection(_)
        | HubErrorKind::BrokenOff(_)
        | HubErrorKind::Status(_)
        | HubErrorKind::Length { .. }
        | HubErrorKind::Interrupted => Some(
            "the same command continues where this one ended; HF_ENDPOINT names another server, \
             and --model DIR needs none",
        ),
        _ => None,
    }
}

impl HasExitCode for HubError {
    fn exit_code(&self) -> u8 {
        match &self.kind {
            HubErrorKind::NotFound(_) | HubErrorKind::Refused(_) => ExitCode::Usage as u8,
            HubErrorKind::NoFile(_)
            | HubErrorKind::NotAModel(_)
            | HubErrorKind::Listing(_)
            | HubErrorKind::Name(_)
            | HubErrorKind::Index(_) => ExitCode::BadData as u8,
            HubErrorKind::Status(_)
            | HubErrorKind::Connection(_)
            | HubErrorKind::BrokenOff(_)
            | HubErrorKind::Length { .. } => ExitCode::Temporary as u8,
            HubErrorKind::Io(err) => err.exit_code(),
            HubErrorKind::Interrupted => interrupt::exit_code() as u8,
        }
    }
}
