//! What `scripts/goldens/model.py` made: fixtures and reference numbers.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use less_select::checkpoint::LoraSettings;
use less_select::compute::{ComputeSettings, Device, Dtype};
use less_select::model::LoraDecoder;
use less_select::pool::Example;
use less_select::tensor_file::{TensorFile, to_f32};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::toy;

/// An example as the goldens have it.
#[derive(Deserialize)]
pub(crate) struct RawExample {
    pub(crate) token_ids: Vec<u32>,
    supervised: Vec<bool>,
    pub(crate) subtask: Option<String>,
}

impl RawExample {
    pub(crate) fn example(&self) -> Example {
        toy::example(&self.token_ids, &self.supervised)
    }
}

/// Twelve pool rows and five target rows; the last pool row is a target row.
#[derive(Deserialize)]
pub(crate) struct Examples {
    pub(crate) pool: Vec<RawExample>,
    pub(crate) target: Vec<RawExample>,
}

pub(crate) fn examples() -> Examples {
    json("examples.json")
}

/// The package, which cargo names when it runs tests, too: a binary that was built
/// elsewhere is told where its files are.
fn package() -> PathBuf {
    let named = std::env::var_os("CARGO_MANIFEST_DIR");
    named.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    package().join("tests/fixtures").join(name)
}

pub(crate) fn golden(name: &str) -> PathBuf {
    package().join("tests/goldens").join(name)
}

pub(crate) fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&fs_err::read_to_string(golden(name)).unwrap()).unwrap()
}

/// A tensor of `model.safetensors`.
pub(crate) fn values(name: &str) -> Vec<f32> {
    let file = TensorFile::open(&golden("model.safetensors")).unwrap();
    to_f32(&file.tensor(name).unwrap()).unwrap()
}

/// Where the goldens' models are computed, such as `LESS_SELECT_TEST_DEVICE=cuda:0`; the
/// CPU where nothing is said.
fn device() -> Device {
    let name = std::env::var("LESS_SELECT_TEST_DEVICE");
    name.map_or(Device::Cpu, |name| name.parse().unwrap())
}

/// A model on the tests' device; with one thread where tests run side by side.
pub(crate) fn load(
    model_dir: &Path,
    lora: &LoraSettings,
    dtype: Dtype,
    threads: Option<NonZeroUsize>,
) -> LoraDecoder {
    let compute = ComputeSettings { device: device(), threads, ..ComputeSettings::cpu(dtype) };
    LoraDecoder::load(model_dir, lora, &compute).unwrap()
}
