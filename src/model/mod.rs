//! The model: one decoder for all families, with LoRA adapters.
//!
//! What a model *is* builds without libtorch, so that a plan can be made and a
//! wrong setting refused before anything heavy is loaded:
//!
//! - [`config`] reads `config.json` into a checked [`DecoderConfig`]; a model
//!   family is a row of settings of one decoder, never a copy of it (`families`,
//!   `family`), and a list of [`names`]; [`architecture`] is what decoders differ
//!   in, [`rope`] how positions are told, [`joined`] modules that are several in one;
//! - [`modules`] lists the decoder's weights and its LoRA parameters, with
//!   their shapes;
//! - [`shards`] says which files hold weights, [`weights`] maps and checks them
//!   against those shapes, `gguf` is what a GGUF file says in those words;
//!   [`base_weights`] are those that a checkpoint brings along.
//!
//! What a model *computes* needs the `torch` feature: `decoder` is the forward
//! pass, `attention` its positions, `activation` its MLP's, `lora` its adapters,
//! `batch` what goes in, `cache` what later tokens read of earlier ones, `load` where weights come from, `cuda` how its library is
//! found, `LoraDecoder` all of it on a device, `assess` and
//! `generate` what it makes of examples.

#[cfg(feature = "torch")]
mod activation;
pub mod architecture;
#[cfg(feature = "torch")]
mod assess;
#[cfg(feature = "torch")]
pub(crate) mod attention;
pub mod base_weights;
#[cfg(feature = "torch")]
pub(crate) mod batch;
#[cfg(feature = "torch")]
mod cache;
pub mod config;
#[cfg(feature = "torch")]
mod cuda;
#[cfg(feature = "torch")]
pub(crate) mod decoder;
mod families;
mod family;
mod fields;
#[cfg(feature = "torch")]
mod generate;
mod gguf;
pub mod joined;
#[cfg(feature = "torch")]
mod load;
#[cfg(feature = "torch")]
pub(crate) mod lora;
#[cfg(feature = "torch")]
mod lora_decoder;
#[cfg(feature = "torch")]
pub(crate) mod memory;
pub mod modules;
pub mod names;
#[cfg(feature = "torch")]
pub mod probe;
#[cfg(feature = "torch")]
mod representation;
pub mod rope;
pub mod shards;
mod weight_file;
pub mod weights;

#[cfg(feature = "torch")]
pub use assess::Assessment;
pub use config::DecoderConfig;
#[cfg(feature = "torch")]
pub use generate::Prompt;
#[cfg(feature = "torch")]
pub use lora_decoder::{LoraDecoder, ModelError};

/// The values of f32 tensors, one behind the other.
#[cfg(feature = "torch")]
pub(crate) fn flat(tensors: &[tch::Tensor]) -> Vec<f32> {
    let mut values = vec![0.0; tensors.iter().map(tch::Tensor::numel).sum()];
    let mut rest = values.as_mut_slice();
    for tensor in tensors {
        let (own, others) = rest.split_at_mut(tensor.numel());
        tensor.detach().copy_data(own, own.len());
        rest = others;
    }
    values
}

/// A size as libtorch counts it.
#[cfg(feature = "torch")]
pub(crate) fn dim(n: usize) -> i64 {
    i64::try_from(n).expect("no allocation is that large")
}

/// Sizes as libtorch counts them.
#[cfg(feature = "torch")]
fn shape(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&n| dim(n)).collect()
}
