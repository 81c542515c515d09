//! Files of `torch.save`, mapped into memory and read without running them.
//!
//! Such a file is a zip archive of a pickle, `NAME/data.pkl`, and the bytes of
//! every storage, `NAME/data/KEY`. A pickle is a program: PyTorch's own reader
//! builds whatever objects it names. This one knows numbers, texts, plain
//! containers and tensors, and refuses any other name that stands in it.
//!
//! ```text
//! archive    where the pickle and the storages are in the file
//! unpickle   the pickle's instructions, and the objects that they build
//! rebuild    the few functions that a pickle may call, tensors above all
//! node       looking at what was built
//! ```
//!
//! Memory follows from the pickle's length, 8 MiB at most; storages are not
//! copied. Every tensor is held against the bytes of its storage when the file
//! is opened.

mod archive;
mod node;
mod rebuild;
mod unpickle;

use std::path::{Path, PathBuf};

use memmap2::Mmap;
pub use node::{Node, Tensor};
use unpickle::Pickle;

/// A mapped file of `torch.save` whose objects are known.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    map: Mmap,
    pickle: Pickle,
}

/// Why a file cannot be read as one of `torch.save`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFileError {
    /// It cannot be opened or mapped.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The format of PyTorch before 1.6.
    #[error(
        "in the format of PyTorch before 1.6, which is not read: write it anew with \
         `torch.save(torch.load(PATH), PATH)`"
    )]
    Legacy,
    /// No zip archive, or one that is cut off.
    #[error("damaged or no file of `torch.save`: {0}")]
    Archive(String),
    /// A storage of another byte order than this machine's.
    #[error("written on a machine of byte order `{0}`, expected `little`")]
    ByteOrder(String),
    /// Its pickle is no sequence of instructions that makes one object.
    #[error("damaged pickle at byte {at}: {why}")]
    Pickle {
        /// Where in the pickle.
        at: usize,
        /// What is wrong there.
        why: &'static str,
    },
    /// A class or function that is none of those read.
    #[error(
        "it holds `{0}`, and only tensors, numbers, texts and plain containers of them are read: \
         nothing in such a file is run"
    )]
    Global(String),
    /// A tensor that is not laid out as its storage allows.
    #[error("a tensor of shape {shape:?} and strides {strides:?} in storage `{storage}`: {why}")]
    Tensor {
        /// The storage's name in the file.
        storage: String,
        /// Sizes.
        shape: Vec<usize>,
        /// Elements between neighbors.
        strides: Vec<usize>,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl TorchFile {
    /// Maps `path`, reads its pickle and checks its tensors.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is damaged or in an old format, or holds
    /// anything but tensors, numbers, texts and plain containers of them.
    pub fn open(path: &Path) -> Result<Self, TorchFileError> {
        let file = fs_err::File::open(path)?;
        #[expect(unsafe_code, reason = "memory maps cannot be made safely")]
        // SAFETY: as for `TensorFile`: another program that rewrote the file
        // would change what we read, and one that cut it would end us with
        // SIGBUS. A trainer writes a checkpoint once.
        let map = unsafe { Mmap::map(file.file()) }?;
        let records = archive::records(&map)?;
        let pickle = Pickle::read(&map[records.pickle], &records.storages)?;
        Ok(Self { path: path.to_owned(), map, pickle })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors that a saved dict holds, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = self.root().entries().into_iter().flatten();
        let tensors = entries.filter(|(_, value)| value.tensor().is_some());
        tensors.filter_map(|(name, _)| name.text().map(str::to_owned)).collect()
    }

    /// The tensor that a saved dict holds under `name`, if there is one.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.root().get(name)?.tensor()
    }

    /// The object that was saved.
    pub fn root(&self) -> Node<'_> {
        Node::root(&self.pickle, &self.map)
    }
}

#[cfg(test)]
mod tests;
