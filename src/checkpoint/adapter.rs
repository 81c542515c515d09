//! An adapter's weights: `adapter_model.safetensors`, or `adapter_model.bin` of
//! older trainings, as `peft` has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::adapter_config::{self, AdapterConfig};
use super::params::{Adapted, Found, in_order};
use super::peft_name::{base_weight, is_untrained, module_of, peft_name};
use super::{BaseWeight, CheckpointError, CheckpointErrorKind, Content};
use crate::gradient::layout::ParamLayout;
use crate::tensor_file::{self, TensorFile, are_finite};
use crate::torch_file::TorchFile;

const WEIGHTS: &str = "adapter_model.safetensors";
const TORCH_WEIGHTS: &str = "adapter_model.bin";

/// An adapter's tensors, by the names under which `peft` saves them.
pub(super) struct AdapterFile {
    path: PathBuf,
    tensors: Tensors,
    /// The file's own names.
    names: BTreeMap<String, String>,
}

enum Tensors {
    Safetensors(TensorFile),
    Torch(TorchFile),
}

/// The file of the weights in the folder `dir`.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    let (safetensors, torch) = (dir.join(WEIGHTS), dir.join(TORCH_WEIGHTS));
    if !safetensors.exists() && torch.exists() { torch } else { safetensors }
}

impl AdapterFile {
    /// Maps the file in the folder `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let path = path_in(dir);
        let open = || -> Result<_, CheckpointErrorKind> {
            let tensors = if path.ends_with(TORCH_WEIGHTS) {
                Tensors::Torch(TorchFile::open(&path)?)
            } else {
                Tensors::Safetensors(TensorFile::open(&path)?)
            };
            let mut names = BTreeMap::<String, String>::new();
            for own in tensors.names().into_iter().filter(|name| !is_untrained(name)) {
                let name = peft_name(&own);
                // peft saves embeddings that were resized and trained by two names.
                let before = names.get(&name);
                if before.is_some_and(|before| !tensors.are_same(before, &own)) {
                    return Err(CheckpointErrorKind::Twice(name));
                }
                names.insert(name, own);
            }
            Ok((tensors, names))
        };
        match open() {
            Ok((tensors, names)) => Ok(Self { path, tensors, names }),
            Err(kind) => Err(CheckpointError { path, kind }),
        }
    }

    /// Names of the modules that have an adapter, without those of what they
    /// are part of, such as `q_proj`.
    pub(super) fn targets(&self) -> Vec<String> {
        let own_name = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
        let mut targets: Vec<String> =
            self.names.keys().filter_map(|name| module_of(name)).map(own_name).collect();
        targets.sort();
        targets.dedup();
        targets
    }

    /// The weights, f32 `[grad_dim]` in the order of `layout`.
    pub(super) fn weights(
        &self,
        layout: &ParamLayout,
        adapted: &Adapted,
    ) -> Result<Vec<f32>, CheckpointError> {
        let read = || {
            let weights = in_order(layout, adapted, "", |param| Ok(self.tensor(&param.name)))?;
            let is_known = |name: &str| layout.params().iter().any(|param| param.name == name);
            let mut others = self.names.keys().filter(|name| base_weight(name).is_none());
            match others.find(|name| !is_known(name)) {
                Some(name) => Err(CheckpointErrorKind::Extra(name.clone())),
                None => Ok(weights),
            }
        };
        read().map_err(|kind| CheckpointError { path: self.path.clone(), kind })
    }

    /// Weights of the base model that were saved along, by the base model's
    /// names: embeddings of another size, or modules that were trained whole.
    pub(super) fn base_weights(&self) -> Vec<String> {
        self.names.keys().filter_map(|name| base_weight(name)).map(str::to_owned).collect()
    }

    /// One of them.
    pub(super) fn base_weight(&self, name: &str) -> Option<BaseWeight> {
        let saved = self.names.keys().find(|saved| base_weight(saved) == Some(name))?;
        let Found { shape, values, .. } = self.tensor(saved)?;
        Some(BaseWeight { shape, values: values? })
    }

    /// Sizes of one of them, and whether its values are finite floating point.
    pub(super) fn base_weight_facts(&self, name: &str) -> Option<(Vec<usize>, bool)> {
        let saved = self.names.iter().find(|(saved, _)| base_weight(saved) == Some(name));
        let (_, own) = saved?;
        match &self.tensors {
            Tensors::Safetensors(file) => file
                .tensor(own)
                .map(|tensor| (tensor.shape().to_vec(), are_finite(tensor.dtype(), tensor.data()))),
            Tensors::Torch(file) => file.tensor(own).map(|tensor| {
                (tensor.shape().to_vec(), are_finite(tensor.dtype(), &tensor.bytes()))
            }),
        }
    }

    fn modules(&self) -> BTreeSet<String> {
        self.names.keys().filter_map(|name| module_of(name)).map(str::to_owned).collect()
    }

    fn tensor(&self, name: &str) -> Option<Found> {
        let own = self.names.get(name)?;
        match &self.tensors {
            Tensors::Safetensors(file) => file.tensor(own).map(Found::from),
            Tensors::Torch(file) => file.tensor(own).map(Found::from),
        }
    }
}

impl Tensors {
    fn are_same(&self, one: &str, other: &str) -> bool {
        match self {
            Self::Safetensors(file) => file.tensor(one) == file.tensor(other),
            Self::Torch(file) => {
                let [one, other] = [one, other].map(|name| file.tensor(name));
                one.zip(other).is_some_and(|(one, other)| {
                    (one.dtype(), one.shape()) == (other.dtype(), other.shape())
                        && one.bytes() == other.bytes()
                })
            }
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Safetensors(file) => file.names(),
            Self::Torch(file) => file.names(),
        }
    }
}

/// The modules that the adapter in the folder `dir` sits on.
pub(super) fn adapted(dir: &Path, config: &AdapterConfig) -> Result<Adapted, CheckpointError> {
    if config.is_on_all {
        return Ok(Adapted::All);
    }
    Ok(Adapted::Only(AdapterFile::open(dir)?.modules()))
}

pub(super) fn write(dir: &Path, content: &Content<'_>) -> Result<(), CheckpointErrorKind> {
    let config = adapter_config::written(content.lora, content.base_model);
    crate::fs::write_json(&dir.join(adapter_config::FILE), &config)?;
    let tensors = content.layout.params().iter().map(|param| {
        let values = &content.adapter[param.offset..][..param.n_coordinates()];
        (param.name.clone(), param.shape.as_slice(), values)
    });
    let bytes = tensor_file::serialize(tensors, "format", "pt");
    crate::fs::write_atomic(&dir.join(WEIGHTS), |out| out.write_all(&bytes))?;
    Ok(())
}
