//! Weights on their way to a device: the model's own, or random ones.

use std::collections::BTreeMap;

use rand_chacha::rand_core::Rng;
use safetensors::Dtype as FileDtype;
use tch::{Kind, Tensor};

use super::architecture::NormKind;
use super::decoder::{Decoder, Layer, Linear, NormWeights, Norms};
use super::modules::LinearModule;
use super::weights::{WeightFiles, WeightsError, WeightsErrorKind};
use super::{DecoderConfig, ModelError, cuda, dim, shape};
use crate::compute::{ComputeSettings, Device, Dtype};
use crate::seed::Seed;

pub(super) fn set_threads(compute: &ComputeSettings) {
    let threads = compute.threads.or_else(|| std::thread::available_parallelism().ok());
    if let Some(threads) = threads.and_then(|threads| i32::try_from(threads.get()).ok()) {
        tch::set_num_threads(threads);
    }
}

pub(super) fn device(device: Device) -> Result<tch::Device, ModelError> {
    let number = match device {
        Device::Cpu => return Ok(tch::Device::Cpu),
        Device::Auto if cuda::load().is_err() => return Ok(tch::Device::Cpu),
        Device::Auto => return Ok(tch::Device::cuda_if_available()),
        Device::Cuda(number) => number,
    };
    let missing = |reason: String| ModelError::NoDevice { number, reason };
    cuda::load().map_err(|reason| missing(reason.to_owned()))?;
    match tch::Cuda::device_count() {
        n_devices if dim(number) < n_devices => Ok(tch::Device::Cuda(number)),
        n_devices => Err(missing(format!("libtorch finds {n_devices}"))),
    }
}

pub(super) fn kind(compute: &ComputeSettings) -> Kind {
    match compute.precision() {
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 | Dtype::Auto => Kind::Float,
    }
}

/// Where weights come from.
pub(super) enum Weights {
    /// The model's files.
    Files(WeightFiles),
    /// Nowhere: random ones of these shapes.
    Random(Seed, BTreeMap<String, Vec<usize>>),
}

impl Weights {
    /// A decoder of these weights, of one kind, on a device.
    pub(super) fn decoder(
        &self,
        config: DecoderConfig,
        kind: Kind,
        device: tch::Device,
    ) -> Result<Decoder, ModelError> {
        let (embeddings, layers, norm, lm_head, positions) = {
            let target = Target { weights: self, config: &config, kind, device };
            let embeddings = target.tensor(&config.embeddings_weight())?;
            let lm_head = if config.tied_embeddings {
                embeddings.shallow_clone()
            } else {
                target.tensor(&config.head_weight())?
            };
            let positions = config.n_positions.map(|_| target.tensor(&config.positions_weight()));
            let layers = (0..config.n_layers).map(|layer| target.layer(layer));
            let norm = target.norm(&config.names.of(config.names.norm))?;
            (embeddings, layers.collect::<Result<_, _>>()?, norm, lm_head, positions.transpose()?)
        };
        Ok(Decoder { config, embeddings, positions, layers, norm, lm_head })
    }
}

/// Where weights go, and as what.
struct Target<'a> {
    weights: &'a Weights,
    config: &'a DecoderConfig,
    kind: Kind,
    device: tch::Device,
}

impl Target<'_> {
    fn layer(&self, layer: usize) -> Result<Layer, ModelError> {
        let names = self.config.names;
        let norm = |name: &str| self.norm(&names.in_layer(layer, name));
        let norms = |[before, after]: [&str; 2]| -> Result<Norms, ModelError> {
            let norm = |name: &str| (!name.is_empty()).then(|| norm(name)).transpose();
            Ok(Norms { before: norm(before)?, after: norm(after)? })
        };
        let qk_norms = || -> Result<_, ModelError> {
            let [q, k] = names.qk_norms;
            Ok([norm(q)?, norm(k)?])
        };
        let mut linears = [const { None }; LinearModule::COUNT];
        for module in self.config.modules() {
            linears[module as usize] = Some(self.linear(layer, module)?);
        }
        Ok(Layer {
            attention_norms: norms(names.attention_norms)?,
            mlp_norms: norms(names.mlp_norms)?,
            qk_norms: self.config.qk_norm.map(|_| qk_norms()).transpose()?,
            linears,
        })
    }

    fn linear(&self, layer: usize, module: LinearModule) -> Result<Linear, ModelError> {
        let path = self.config.names.module(layer, module);
        let weight = self.tensor(&format!("{path}.weight"))?;
        let weight = if self.config.names.is_transposed {
            weight.f_transpose(0, 1)?.f_contiguous()?
        } else {
            weight
        };
        let bias = self.config.has_bias(module).then(|| self.tensor(&format!("{path}.bias")));
        Ok(Linear { weight, bias: bias.transpose()? })
    }

    fn norm(&self, path: &str) -> Result<NormWeights, ModelError> {
        let name = format!("{path}.weight");
        match self.config.norm {
            NormKind::Rms => Ok(NormWeights { weight: self.tensor(&name)?, bias: None }),
            NormKind::Layer => {
                let bias = Some(self.tensor(&format!("{path}.bias"))?);
                Ok(NormWeights { weight: self.tensor(&name)?, bias })
            }
            // In bf16 the sum would lose what the weight has.
            NormKind::RmsAroundOne => {
                let weight = Target { kind: Kind::Float, ..*self }.tensor(&name)?;
                Ok(NormWeights { weight: weight.f_add_scalar(1.0)?, bias: None })
            }
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        match self.weights {
            Weights::Files(files) => self.read(files, name),
            Weights::Random(seed, shapes) => self.random(*seed, name, &shapes[name]),
        }
    }

    /// Ones for a norm, zeros for a bias, and uniform numbers with the spread
    /// that Llama starts from for a matrix. From libtorch's generator, so that
    /// billions take seconds: they differ between kinds of device.
    fn random(&self, seed: Seed, name: &str, sizes: &[usize]) -> Result<Tensor, ModelError> {
        const DEVIATION: f64 = 0.02;
        let options = (self.kind, self.device);
        if sizes.len() == 1 {
            let is_bias = name.strip_suffix(".bias").is_some();
            let is_zero = is_bias || self.config.norm == NormKind::RmsAroundOne;
            let fill = if is_zero { Tensor::f_zeros } else { Tensor::f_ones };
            return Ok(fill(shape(sizes), options)?);
        }
        tch::manual_seed(seed.stream(&["random weights", name]).next_u64().cast_signed());
        let bound = DEVIATION * 3.0_f64.sqrt();
        Ok(Tensor::f_empty(shape(sizes), options)?.f_uniform_(-bound, bound)?)
    }

    /// The weight called `name`, its values finite.
    fn read(&self, files: &WeightFiles, name: &str) -> Result<Tensor, ModelError> {
        let (weight, path) = files.tensor(name);
        let kind = match weight.dtype {
            FileDtype::F16 => Kind::Half,
            FileDtype::BF16 => Kind::BFloat16,
            _ => Kind::Float,
        };
        let tensor = Tensor::f_from_data_size(weight.data.bytes(), &shape(&weight.shape), kind)?;
        if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
            let kind = WeightsErrorKind::NotFinite(name.to_owned());
            return Err(WeightsError { path: path.to_owned(), kind }.into());
        }
        Ok(tensor.f_to_device(self.device)?.f_to_kind(self.kind)?)
    }
}
