//! The optimizer's state beside an adapter: moments by parameter.
//!
//! ```text
//! own          optimizer.safetensors, which our warm-up writes
//! torch_state  optimizer.pt of the Trainer, optimizer.bin of accelerate
//! block_wise   the 8-bit moments of bitsandbytes
//! ```

mod block_wise;
mod own;
mod torch_state;

use std::path::{Path, PathBuf};

pub(super) use own::write;

use super::adapter_config::AdapterConfig;
use super::params::Adapted;
use super::{CheckpointError, CheckpointErrorKind};
use crate::gradient::direction::Moments;
use crate::gradient::layout::ParamLayout;
use crate::torch_file::TorchFile;

/// Where `torch.save` put the state: the Trainer's name, and accelerate's.
const TORCH_FILES: [&str; 2] = ["optimizer.pt", "optimizer.bin"];

/// Why the state of an optimizer is not one of Adam's that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// Every process wrote a piece.
    #[error(
        "the optimizer's state is in pieces (`{piece}`), which are not read: {way_out}, or take \
         gradients of kind `sgd`"
    )]
    Pieces {
        /// The first of them.
        piece: String,
        /// How to train so that it is whole.
        way_out: &'static str,
    },
    /// Another optimizer's, or a file of something else.
    #[error("no state of Adam: {0}; only gradients of kind `sgd` do without it")]
    NotAdam(String),
    /// Parameters by number, and of another count than the adapter's.
    #[error(
        "the optimizer has {found} parameters, the adapter {expected}: one of them was trained \
         with more"
    )]
    Count {
        /// The optimizer's.
        found: usize,
        /// The adapter's.
        expected: usize,
    },
    /// The parameters' constants or steps are not the same.
    #[error("its parameters have different {0}, which gradients of kind `sgd` do without")]
    Differ(&'static str),
    /// A second moment is the mean of squares.
    #[error("parameter `{0}` has a negative second moment: damaged, or of another optimizer")]
    Negative(String),
    /// 8-bit moments whose blocks are not clear.
    #[error("parameter `{name}`: 8-bit moments {why}")]
    EightBit {
        /// The parameter.
        name: String,
        /// What is not clear.
        why: String,
    },
}

/// What the optimizer left, and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// The file it is in.
    pub file: PathBuf,
    /// What wrote it and how it calls parameters, in words.
    pub kind: &'static str,
    /// Moments and constants, in the order of the layout.
    pub moments: Moments,
    /// Parameters that have moments.
    pub n_params: usize,
}

/// The file in the folder `dir` that holds the state; `None` if none does.
pub(super) fn path_in(dir: &Path) -> Option<PathBuf> {
    let names = [own::FILE].into_iter().chain(TORCH_FILES);
    names.map(|name| dir.join(name)).find(|path| path.is_file())
}

/// Whether the folder `dir` holds any state, in one file or in pieces.
pub(super) fn is_there(dir: &Path) -> bool {
    path_in(dir).is_some() || pieces(dir).is_some()
}

/// Reads the state in the folder `dir`.
pub(super) fn read(
    dir: &Path,
    config: &AdapterConfig,
    layout: &ParamLayout,
    adapted: &Adapted,
) -> Result<OptimizerState, CheckpointError> {
    let Some(file) = path_in(dir) else {
        let kind = match pieces(dir) {
            Some(pieces) => pieces.into(),
            None => CheckpointErrorKind::NoMoments,
        };
        return Err(CheckpointError { path: dir.to_owned(), kind });
    };
    let read = || -> Result<_, CheckpointErrorKind> {
        if file.ends_with(own::FILE) {
            return Ok(("AdamW by less-select, by name", own::read(&file, layout, adapted)?));
        }
        torch_state::read(&TorchFile::open(&file)?, config, layout, adapted)
    };
    let (kind, moments) = match read() {
        Ok(found) => found,
        Err(kind) => return Err(CheckpointError { path: file, kind }),
    };
    Ok(OptimizerState { file, kind, moments, n_params: adapted.n_params(layout) })
}

/// What a training on several devices left instead of one file.
fn pieces(dir: &Path) -> Option<OptimizerError> {
    const DEEPSPEED: &str = "zero_to_fp32.py joins weights alone; train the warm-up without \
                             DeepSpeed (an adapter's moments are small)";
    const FSDP: &str = "train with `fsdp_state_dict_type: FULL_STATE_DICT`";
    let mut names: Vec<String> = fs_err::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names.into_iter().find_map(|piece| {
        let is_deepspeed = piece.starts_with("global_step")
            || piece.starts_with("mp_rank_")
            || piece.ends_with("_optim_states.pt");
        let is_fsdp = piece.starts_with("optimizer_")
            || (piece.starts_with("rank") && piece.ends_with("-optimizer.pt"));
        let way_out = if is_deepspeed { DEEPSPEED } else { FSDP };
        (is_deepspeed || is_fsdp).then_some(OptimizerError::Pieces { piece, way_out })
    })
}
