//! `adapter_config.json`, as `peft` has it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::adapter::AdapterFile;
use super::{CheckpointError, CheckpointErrorKind, LoraSettings};

pub(super) const FILE: &str = "adapter_config.json";
/// The version of `peft` whose file this is.
const PEFT_VERSION: &str = "0.21.2";

/// Larger than any model's width; sizes that follow from it do not overflow.
const MAX_RANK: usize = 1 << 16;

/// What `adapter_config.json` says that means something to the decoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AdapterConfig {
    /// With the alpha under which alpha / rank is the adapter's scale.
    pub(super) lora: LoraSettings,
    /// Whether the scale was alpha / √rank, and not alpha / rank.
    pub(super) is_rank_stabilized: bool,
    /// Whether every module of a target's name has an adapter.
    pub(super) is_on_all: bool,
    /// Modules of the base model that were trained whole.
    pub(super) modules_to_save: Vec<String>,
    /// What it was trained on: a folder or a name, if it is told.
    pub(super) base_model: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    use_rslora: Option<bool>,
    #[serde(default)]
    target_modules: Value,
    #[serde(default)]
    exclude_modules: Value,
    #[serde(default)]
    layers_to_transform: Value,
    modules_to_save: Option<Vec<String>>,
    base_model_name_or_path: Option<String>,
}

/// Settings under which the update is not a scale · B·A on its targets and
/// nothing else, unless they are off.
const REFUSED: [&str; 17] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    // Ranks and scales that differ between modules.
    "rank_pattern",
    "alpha_pattern",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
    "loftq_config",
    "bdlora_config",
];

/// Values of `init_lora_weights` that leave the base model's weights alone.
/// Under others, such as `pissa`, an adapter belongs to weights that only its
/// training had.
const INITIALIZATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Reads the configuration in the folder `dir`, and the adapter's tensor names
/// where it says only by a pattern what its targets are.
pub(super) fn read(dir: &Path) -> Result<AdapterConfig, CheckpointError> {
    let path = dir.join(FILE);
    let read = || -> Result<Raw, CheckpointErrorKind> {
        let value: Value = serde_json::from_str(&fs_err::read_to_string(&path)?)?;
        refuse_unsupported(&value)?;
        let raw = Raw::deserialize(value)?;
        if raw.r > MAX_RANK {
            return Err(CheckpointErrorKind::Unsupported { key: "r", value: raw.r.to_string() });
        }
        Ok(raw)
    };
    let raw = read().map_err(|kind| CheckpointError { path: path.clone(), kind })?;
    let named = names(&raw.target_modules);
    let is_on_all =
        named.is_some() && is_off(&raw.exclude_modules) && is_off(&raw.layers_to_transform);
    let targets = match named {
        Some(names) => names,
        None => AdapterFile::open(dir)?.targets(),
    };
    let is_rank_stabilized = raw.use_rslora == Some(true);
    let stretch = if is_rank_stabilized { (raw.r as f64).sqrt() } else { 1.0 };
    let alpha = raw.lora_alpha * stretch;
    Ok(AdapterConfig {
        lora: LoraSettings { rank: raw.r, alpha, dropout: raw.lora_dropout, targets },
        is_rank_stabilized,
        is_on_all,
        modules_to_save: raw.modules_to_save.unwrap_or_default(),
        base_model: raw.base_model_name_or_path,
    })
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
    let is_known = match &config["init_lora_weights"] {
        Value::String(name) => INITIALIZATIONS.contains(&name.as_str()),
        other => other.is_null() || other.is_boolean(),
    };
    if !is_known {
        return Err(unsupported("init_lora_weights"));
    }
    match REFUSED.iter().find(|key| !is_off(&config[**key])) {
        Some(key) => Err(unsupported(key)),
        None => Ok(()),
    }
}

/// Whether a setting is absent, or says nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Targets that are names of modules wherever they are; `None` for a pattern,
/// for full names, and for what `peft` chose by the kind of model.
fn names(targets: &Value) -> Option<Vec<String>> {
    let name =
        |target: &Value| Some(target.as_str().filter(|name| !name.contains('.'))?.to_owned());
    targets.as_array()?.iter().map(name).collect()
}

/// What `peft` writes for a plain LoRA adapter, every key of it.
pub(super) fn written(lora: &LoraSettings, base_model: &str) -> Value {
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
