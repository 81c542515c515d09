//! A model and its adapter, loaded on a device.

use std::num::NonZeroUsize;
use std::path::Path;

use tch::{Kind, TchError, Tensor};

use super::base_weights::Vocabulary;
use super::config::ConfigError;
use super::decoder::{Decoder, Linear};
use super::load::{Weights, device, kind, set_threads};
use super::lora::LoraLeaves;
use super::modules::{LinearModule, LoraError};
use super::weights::{WeightFiles, WeightsError};
use super::{DecoderConfig, memory, shape};
use crate::checkpoint::{BaseWeight, LoraSettings};
use crate::compute::ComputeSettings;
use crate::gradient::layout::{Param, ParamLayout};
use crate::pool::ExampleId;
use crate::seed::Seed;

/// Why a model cannot be loaded or cannot compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model is none that the decoder computes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights are not what its configuration says.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The adapter does not fit it.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The device is not there.
    #[error("no CUDA device number {number}: {reason}")]
    NoDevice {
        /// Its number.
        number: usize,
        /// What is missing.
        reason: String,
    },
    /// A token that the model does not know: another model's tokenizer.
    #[error("example {id} has token {token_id}, the model knows {vocab_size} tokens")]
    Token {
        /// The example.
        id: ExampleId,
        /// Its token.
        token_id: u32,
        /// Number of tokens the model knows.
        vocab_size: usize,
    },
    /// An example that the model has no positions for.
    #[error(
        "example {id} has {n_tokens} tokens, the model learned {n_positions} positions; \
         lower `max-tokens`"
    )]
    TooLong {
        /// The example.
        id: ExampleId,
        /// Its tokens.
        n_tokens: usize,
        /// Most tokens of a text.
        n_positions: usize,
    },
    /// The device's memory is too small.
    #[error("too little memory: {0}")]
    OutOfMemory(String),
    /// libtorch gave up.
    #[error("libtorch failed")]
    Torch(#[from] TchError),
}

/// A decoder with frozen weights and a LoRA adapter.
pub struct LoraDecoder {
    /// The folder it was loaded from.
    name: String,
    pub(crate) decoder: Decoder,
    pub(crate) layout: ParamLayout,
    lora: LoraSettings,
    /// f32, without dropout.
    pub(crate) adapter: LoraLeaves,
    /// Weights with the adapter added, where that loses nothing: of every
    /// module that has one, by layer, in f32. In bf16 most of an adapter would
    /// be rounded away, so there are none.
    merged: Vec<Linear>,
    /// Most tokens that it is to be given at once, padding included.
    pub(crate) batch_tokens: usize,
    /// Whether activations are computed again for the backward pass.
    pub(crate) recompute: bool,
    /// The model's own embeddings and output projection.
    own_vocabulary: [Tensor; 2],
    /// Whether derivatives are left to libtorch's kernels where it has one: on a
    /// processor those are slower than products of matrices.
    pub(crate) is_fused: bool,
}

impl LoraDecoder {
    /// Loads the model in `model_dir`, which is in the Hugging Face layout.
    ///
    /// The adapter is zero: the model computes what it would without, and
    /// every gradient is zero until [`set_adapter`](Self::set_adapter).
    /// Takes hold of libtorch's thread count, which is the process's.
    ///
    /// # Errors
    ///
    /// If the model is of an unknown kind, its weights are damaged, do not fit
    /// its configuration or are not finite, the adapter does not fit the model,
    /// or the device is missing or too small.
    pub fn load(
        model_dir: &Path,
        lora: &LoraSettings,
        compute: &ComputeSettings,
    ) -> Result<Self, ModelError> {
        let config = DecoderConfig::read(model_dir)?;
        let weights = Weights::Files(WeightFiles::open(model_dir, &config)?);
        Self::assemble(model_dir, config, &weights, lora, compute)
    }

    /// A model as `config.json` in `model_dir` describes it, with random
    /// weights: of the speed and size of the real one.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), but for the weights.
    pub fn random(
        model_dir: &Path,
        seed: Seed,
        lora: &LoraSettings,
        compute: &ComputeSettings,
    ) -> Result<Self, ModelError> {
        let config = DecoderConfig::read(model_dir)?;
        let weights = Weights::Random(seed, config.weights().into_iter().collect());
        Self::assemble(model_dir, config, &weights, lora, compute)
    }

    fn assemble(
        model_dir: &Path,
        config: DecoderConfig,
        weights: &Weights,
        lora: &LoraSettings,
        compute: &ComputeSettings,
    ) -> Result<Self, ModelError> {
        let layout = config.lora_layout(lora)?;
        let modules = config.lora_modules(lora)?;
        let lora = config.named_targets(lora)?;
        set_threads(compute);
        let device = device(compute.device)?;
        let decoder = memory::guarded(|| weights.decoder(config, kind(compute), device))?;
        let name = model_dir.display().to_string();
        let scale = lora.alpha / lora.rank as f64;
        let adapter = LoraLeaves { modules, leaves: Vec::new(), scale, dropout: 0.0 };
        let own_vocabulary = [&decoder.embeddings, &decoder.lm_head].map(Tensor::shallow_clone);
        let mut model = Self {
            name,
            own_vocabulary,
            decoder,
            layout,
            lora,
            adapter,
            merged: Vec::new(),
            batch_tokens: batch_tokens(compute, device),
            recompute: compute.recompute,
            is_fused: device.is_cuda(),
        };
        model.set_adapter(&vec![0.0; model.layout.grad_dim()]);
        Ok(model)
    }

    /// The folder it was loaded from, which `peft` takes for the base model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model's configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.decoder.config
    }

    /// The adapter's settings.
    pub fn lora(&self) -> &LoraSettings {
        &self.lora
    }

    /// The adapter's parameters.
    pub fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    /// Sets the adapter's weights, `[grad_dim]` in the order of the layout.
    ///
    /// # Panics
    ///
    /// If `weights` has another length.
    pub fn set_adapter(&mut self, weights: &[f32]) {
        self.adapter.leaves = self.tensors(weights);
        if self.kind() == Kind::Float {
            let layers = 0..self.config().n_layers;
            let modules = &self.adapter.modules;
            let places =
                layers.flat_map(|layer| modules.iter().map(move |module| (layer, *module)));
            self.merged = places.map(|(layer, module)| self.merge(layer, module)).collect();
        }
    }

    /// Takes the embeddings and the output projection of a checkpoint for the model's
    /// own, where it has some. The model then knows as many tokens as both have.
    ///
    /// # Errors
    ///
    /// If the device's memory is too small for them.
    pub fn set_vocabulary(&mut self, vocabulary: &Vocabulary) -> Result<(), ModelError> {
        let (kind, device) = (self.kind(), self.device());
        let tensor = |saved: &Option<BaseWeight>, own: &Tensor| match saved {
            None => Ok(own.shallow_clone()),
            Some(saved) => memory::guarded(|| {
                let tensor = Tensor::f_from_slice(&saved.values)?.f_reshape(shape(&saved.shape))?;
                Ok(tensor.f_to_device(device)?.f_to_kind(kind)?)
            }),
        };
        let [embeddings, head] = &self.own_vocabulary;
        let embeddings = tensor(&vocabulary.embeddings, embeddings)?;
        let head = tensor(&vocabulary.head, head)?;
        let n_tokens = embeddings.size()[0].min(head.size()[0]);
        (self.decoder.embeddings, self.decoder.lm_head) = (embeddings, head);
        self.decoder.config.vocab_size = usize::try_from(n_tokens).unwrap_or_default();
        Ok(())
    }

    fn merge(&self, layer: usize, module: LinearModule) -> Linear {
        let (a, b) = self.adapter_of(layer, module);
        let Linear { weight, bias } = self.decoder.linear(layer, module);
        let weight = weight + b.matmul(&a) * self.adapter.scale;
        Linear { weight, bias: bias.as_ref().map(Tensor::shallow_clone) }
    }

    /// A `[rank, d_in]` and B `[d_out, rank]` of a module that has an adapter,
    /// of the weights' kind.
    fn adapter_of(&self, layer: usize, module: LinearModule) -> (Tensor, Tensor) {
        let a = self.adapter.first(layer, module).expect("the module has an adapter");
        let [a, b] = [a, a + 1].map(|at| self.adapter.leaves[at].to_kind(self.kind()));
        (a, b)
    }

    /// Whether the adapter is in the weights that [`linear`](Self::linear) gives.
    pub(crate) fn is_merged(&self) -> bool {
        !self.merged.is_empty()
    }

    /// A linear module, the adapter merged if it [is](Self::is_merged).
    pub(crate) fn linear(&self, layer: usize, module: LinearModule) -> &Linear {
        let merged = self.adapter.first(layer, module).and_then(|a| self.merged.get(a / 2));
        merged.unwrap_or_else(|| self.decoder.linear(layer, module))
    }

    /// The logits behind every token, one `[vocab_size]` row a token.
    ///
    /// # Panics
    ///
    /// If a token is outside the vocabulary, or there is none.
    pub fn logits(&self, token_ids: &[u32]) -> Vec<Vec<f32>> {
        let token_ids: Vec<i64> = token_ids.iter().map(|&token_id| i64::from(token_id)).collect();
        let lengths = [token_ids.len()];
        let token_ids = Tensor::from_slice(&token_ids).unsqueeze(0).to_device(self.device());
        tch::no_grad(|| {
            let hidden = self.decoder.hidden(&token_ids, &lengths, &self.adapter);
            let logits = self.decoder.logits(&hidden);
            Vec::try_from(logits.squeeze_dim(0)).expect("logits are a matrix of f32")
        })
    }

    pub(crate) fn device(&self) -> tch::Device {
        self.decoder.embeddings.device()
    }

    /// The kind of the frozen weights.
    pub(crate) fn kind(&self) -> Kind {
        self.decoder.embeddings.kind()
    }

    /// `values`, `[grad_dim]`, as one f32 tensor a parameter on the device.
    pub(crate) fn tensors(&self, values: &[f32]) -> Vec<Tensor> {
        assert_eq!(values.len(), self.layout.grad_dim(), "one value a coordinate of the layout");
        let tensor = |param: &Param| {
            let own = &values[param.offset..][..param.n_coordinates()];
            Tensor::from_slice(own).reshape(shape(&param.shape)).to_device(self.device())
        };
        self.layout.params().iter().map(tensor).collect()
    }

    /// A copy of the adapter for training, with its own dropout.
    pub(crate) fn trainable(&self) -> LoraLeaves {
        LoraLeaves {
            modules: self.adapter.modules.clone(),
            leaves: self.adapter.leaves.iter().map(Tensor::copy).collect(),
            scale: self.adapter.scale,
            dropout: self.lora.dropout,
        }
    }
}

/// As the settings have it, or what keeps the device busy.
fn batch_tokens(compute: &ComputeSettings, device: tch::Device) -> usize {
    let default = if device.is_cuda() { 16384 } else { 1024 };
    compute.batch_tokens.map_or(default, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::compute::{Device, Dtype};
    use crate::tensor_file::{TensorFile, serialize, to_f32};

    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama")
    }

    fn load(dir: &Path, device: Device) -> Result<LoraDecoder, ModelError> {
        let targets = vec!["q_proj".to_owned()];
        let lora = LoraSettings { rank: 2, alpha: 4.0, dropout: 0.0, targets };
        let threads = Some(NonZeroUsize::MIN);
        let compute = ComputeSettings { device, threads, ..ComputeSettings::cpu(Dtype::F32) };
        LoraDecoder::load(dir, &lora, &compute)
    }

    #[test]
    fn weights_that_are_not_finite_are_named() {
        let file = TensorFile::open(&fixture().join("model.safetensors")).unwrap();
        let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = file
            .names()
            .into_iter()
            .map(|name| {
                let tensor = file.tensor(&name).unwrap();
                let mut values = to_f32(&tensor).unwrap();
                if name == "model.layers.1.mlp.up_proj.weight" {
                    values[7] = f32::NAN;
                }
                (name, tensor.shape().to_vec(), values)
            })
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let tensors =
            tensors.iter().map(|(name, shape, values)| (name.clone(), &shape[..], &values[..]));
        let bytes = serialize(tensors, "format", "pt");
        fs_err::write(dir.path().join("model.safetensors"), bytes).unwrap();
        fs_err::copy(fixture().join("config.json"), dir.path().join("config.json")).unwrap();
        let Err(ModelError::Weights(error)) = load(dir.path(), Device::Cpu) else { panic!() };
        assert_eq!(error.path, dir.path().join("model.safetensors"));
        insta::assert_snapshot!(error.kind, @"tensor `model.layers.1.mlp.up_proj.weight` has values that are not finite");
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = load(&fixture(), Device::Cuda(64)).err().unwrap();
        // Behind it is what the machine lacks.
        assert!(error.to_string().starts_with("no CUDA device number 64: "), "{error}");
    }

    #[test]
    fn an_adapter_of_zeros_changes_nothing_and_another_does() {
        let mut model = load(&fixture(), Device::Cpu).unwrap();
        let without = model.logits(&[1, 2, 3]);
        let n = model.layout().grad_dim();
        let mut adapter = vec![0.0; n];
        adapter[..n / 2].fill(0.1);
        model.set_adapter(&adapter);
        assert_ne!(model.logits(&[1, 2, 3]), without);
        model.set_adapter(&vec![0.0; n]);
        assert_eq!(model.logits(&[1, 2, 3]), without);
    }
}
