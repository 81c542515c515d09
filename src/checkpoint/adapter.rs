//! `adapter_config.json` and `adapter_model.safetensors`, as `peft` has them.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CheckpointError, CheckpointErrorKind, Content, LoraSettings, read_params};
use crate::gradient::layout::ParamLayout;
use crate::tensor_file::{self, TensorFile};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The version of `peft` whose files these are.
const PEFT_VERSION: &str = "0.21.2";

pub(super) fn is_in(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// The settings of an adapter that mean something to the decoder.
#[derive(Deserialize)]
struct Config {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: Vec<String>,
}

/// Settings under which the update is not (alpha / r) · B·A on every target
/// and nothing else, with the values that leave it so.
const PLAIN: [(&str, &[Value]); 11] = [
    ("use_rslora", &[Value::Null, Value::Bool(false)]),
    ("use_dora", &[Value::Null, Value::Bool(false)]),
    ("use_qalora", &[Value::Null, Value::Bool(false)]),
    ("use_bdlora", &[Value::Null, Value::Bool(false)]),
    ("lora_bias", &[Value::Null, Value::Bool(false)]),
    ("fan_in_fan_out", &[Value::Null, Value::Bool(false)]),
    ("modules_to_save", &[Value::Null]),
    ("trainable_token_indices", &[Value::Null]),
    ("target_parameters", &[Value::Null]),
    ("layers_to_transform", &[Value::Null]),
    ("layer_replication", &[Value::Null]),
];

/// Larger than any model's width; sizes that follow from it do not overflow.
const MAX_RANK: usize = 1 << 16;

pub(super) fn read_config(dir: &Path) -> Result<LoraSettings, CheckpointError> {
    let path = dir.join(CONFIG);
    let read = || {
        let value: Value = serde_json::from_str(&fs_err::read_to_string(&path)?)?;
        refuse_unsupported(&value)?;
        let Config { r, lora_alpha, lora_dropout, target_modules } = Config::deserialize(value)?;
        if r > MAX_RANK {
            return Err(CheckpointErrorKind::Unsupported { key: "r", value: r.to_string() });
        }
        Ok(LoraSettings {
            rank: r,
            alpha: lora_alpha,
            dropout: lora_dropout,
            targets: target_modules,
        })
    };
    read().map_err(|kind| CheckpointError { path: path.clone(), kind })
}

fn refuse_unsupported(config: &Value) -> Result<(), CheckpointErrorKind> {
    let unsupported =
        |key| CheckpointErrorKind::Unsupported { key, value: config[key].to_string() };
    if config["peft_type"] != "LORA" {
        return Err(unsupported("peft_type"));
    }
    if !config["bias"].is_null() && config["bias"] != "none" {
        return Err(unsupported("bias"));
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if config[key].as_object().is_some_and(|pattern| !pattern.is_empty()) {
            return Err(unsupported(key));
        }
    }
    match PLAIN.iter().find(|(key, plain)| !plain.contains(&config[*key])) {
        Some((key, _)) => Err(unsupported(key)),
        None => Ok(()),
    }
}

pub(super) fn read(dir: &Path, layout: &ParamLayout) -> Result<Vec<f32>, CheckpointError> {
    let path = dir.join(WEIGHTS);
    let read = || {
        let file = TensorFile::open(&path)?;
        let adapter = read_params(&file, "", layout)?;
        let is_known = |name: &String| layout.params().iter().any(|param| param.name == *name);
        match file.names().into_iter().find(|name| !is_known(name)) {
            Some(name) => Err(CheckpointErrorKind::Extra(name)),
            None => Ok(adapter),
        }
    };
    read().map_err(|kind| CheckpointError { path: path.clone(), kind })
}

pub(super) fn write(dir: &Path, content: &Content<'_>) -> Result<(), CheckpointErrorKind> {
    crate::fs::write_json(&dir.join(CONFIG), &config(content.lora, content.base_model))?;
    let tensors = content.layout.params().iter().map(|param| {
        let values = &content.adapter[param.offset..][..param.n_coordinates()];
        (param.name.clone(), param.shape.as_slice(), values)
    });
    let bytes = tensor_file::serialize(tensors, "format", "pt");
    crate::fs::write_atomic(&dir.join(WEIGHTS), |out| out.write_all(&bytes))?;
    Ok(())
}

/// What `peft` writes for a plain LoRA adapter, every key of it.
fn config(lora: &LoraSettings, base_model: &str) -> Value {
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": {},
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": whole_or_not(lora.alpha),
        "lora_bias": false,
        "lora_dropout": lora.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": null,
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": PEFT_VERSION,
        "qalora_group_size": 16,
        "r": lora.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": lora.targets,
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": false,
        "velora_config": null,
    })
}

/// `peft` writes an alpha of 32 as `32`, not as `32.0`.
fn whole_or_not(number: f64) -> Value {
    if number.fract() == 0.0 { Value::from(number as i64) } else { Value::from(number) }
}
