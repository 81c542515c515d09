//! `config.json`: the shape and constants of a decoder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::architecture::{Activation, NormKind, Placement, QkNorm, Scores};
use super::family::Family;
use super::fields::Fields;
use super::joined::Joined;
use super::names::Names;
use super::rope::RopeSettings;
use crate::gguf::{Gguf, GgufError};

/// A decoder-only transformer: attention and an MLP a layer, both added to a
/// residual stream; and what its family makes of that.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Rows of the embedding and of the output projection.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// What norms compute.
    pub norm: NormKind,
    /// Added to the mean square in norms.
    pub norm_eps: f64,
    /// Where norms and residuals stand.
    pub placement: Placement,
    /// Whether and how queries and keys are normed.
    pub qk_norm: Option<QkNorm>,
    /// What the MLP does to its gate.
    pub activation: Activation,
    /// How the scores of attention come from queries and keys.
    pub scores: Scores,
    /// c in c · tanh(logit / c), where logits are capped.
    pub logit_cap: Option<f64>,
    /// What embedded tokens are multiplied by.
    pub embedding_scale: Option<f64>,
    /// Rows of the table of learned positions, where there is one: no text has more
    /// tokens.
    pub n_positions: Option<usize>,
    /// How positions turn queries and keys; layers may differ.
    pub ropes: Vec<RopeSettings>,
    /// Of each layer.
    pub attention: Vec<LayerAttention>,
    /// Whether the output projection is the embedding matrix.
    pub tied_embeddings: bool,
    /// Which linear modules add a bias.
    pub biases: Biases,
    /// How queries, keys and values stand in what one module gives.
    pub joined: Joined,
    /// What its weights are called.
    pub names: &'static Names,
}

/// What attention is in one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// How many tokens a token sees, its own included; `None` is all before it.
    pub window: Option<usize>,
    /// Which of the model's ropes turns queries and keys by their positions.
    pub rope: Option<usize>,
}

/// Which linear modules of a layer add a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// The query, key and value projections.
    pub qkv: bool,
    /// The attention's output projection.
    pub output: bool,
    /// The MLP's projections.
    pub mlp: bool,
}

/// Why a `config.json` does not describe a model that this program computes.
#[derive(Debug, thiserror::Error)]
#[error("model configuration `{}`", path.display())]
pub struct ConfigError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub kind: ConfigErrorKind,
}

/// What is wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// It is not there.
    #[error("missing; a model in the Hugging Face layout has it")]
    NoFile,
    /// It cannot be read.
    #[error(transparent)]
    Io(std::io::Error),
    /// It is not a JSON object.
    #[error("not a JSON object")]
    Json(#[source] serde_json::Error),
    /// It is a GGUF file that cannot be read or is damaged.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A setting that no default stands for is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A setting has a value that makes no sense.
    #[error("`{key}` is {value}, expected {expected}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// What the file says, as JSON.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// The model is of a kind that the decoder does not compute.
    #[error("`{key}` = {value} is not supported (only {supported})")]
    Unsupported {
        /// The setting.
        key: &'static str,
        /// What the file says, as JSON.
        value: String,
        /// What the decoder computes.
        supported: String,
    },
}

impl From<std::io::Error> for ConfigErrorKind {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::NotFound => Self::NoFile,
            _ => Self::Io(err),
        }
    }
}

impl DecoderConfig {
    /// Reads `config.json` in a model folder in the Hugging Face layout, or what a GGUF
    /// file says.
    ///
    /// # Errors
    ///
    /// If the file is missing or damaged, or names a family or a setting that
    /// the decoder does not compute: rather no gradient than another model's.
    pub fn read(model_dir: &Path) -> Result<Self, ConfigError> {
        if Gguf::is_path(model_dir) {
            return Self::read_gguf(model_dir)
                .map_err(|kind| ConfigError { path: model_dir.to_owned(), kind });
        }
        let path = model_dir.join("config.json");
        let read = || {
            let text = fs_err::read_to_string(&path)?;
            Self::parse(&serde_json::from_str(&text).map_err(ConfigErrorKind::Json)?)
        };
        read().map_err(|kind| ConfigError { path: path.clone(), kind })
    }

    fn read_gguf(path: &Path) -> Result<Self, ConfigErrorKind> {
        Self::parse(&Gguf::open(path)?.config()?)
    }

    pub(super) fn parse(object: &Map<String, Value>) -> Result<Self, ConfigErrorKind> {
        let fields = Fields(object);
        let family = Family::of(&fields)?;
        let config = family.config(&fields)?;
        if !config.n_heads.is_multiple_of(config.n_kv_heads) {
            let expected = "a divisor of `num_attention_heads`";
            return Err(fields.invalid(family.keys.n_kv_heads, expected));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rope::RopeScaling;
    use super::*;

    fn small(changes: &Value) -> Result<DecoderConfig, String> {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
            "vocab_size": 512, "hidden_act": "silu", "rope_scaling": null,
            "torch_dtype": "bfloat16", "use_cache": true,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        DecoderConfig::parse(config.as_object().unwrap()).map_err(|err| err.to_string())
    }

    #[test]
    fn what_is_not_said_is_what_transformers_assumes() {
        let config = small(&json!({})).unwrap();
        assert_eq!(config.head_dim, 16);
        approx::assert_relative_eq!(config.ropes[0].theta, 10_000.0);
        assert!(!config.tied_embeddings && !config.biases.qkv && !config.biases.mlp);
        let config = small(&json!({ "num_key_value_heads": null, "head_dim": 8 })).unwrap();
        assert_eq!((config.n_kv_heads, config.head_dim), (4, 8));
    }

    /// By `AutoConfig.for_model` of transformers 5.23.0.
    #[test]
    fn key_and_value_heads_that_are_not_said_are_as_many_as_the_family_has() {
        let heads = |model_type: &str, said: &Value| {
            let mut config = json!({
                "model_type": model_type, "hidden_size": 512, "intermediate_size": 96,
                "num_attention_heads": 32, "num_hidden_layers": 2, "vocab_size": 512,
            });
            config.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
            DecoderConfig::parse(config.as_object().unwrap()).unwrap().n_kv_heads
        };
        for (model_type, expected) in [
            ("llama", 32),
            ("mistral", 8),
            ("qwen2", 32),
            ("qwen3", 32),
            ("smollm3", 4),
            ("phi3", 32),
            ("olmo2", 32),
            ("gemma", 16),
            ("gemma2", 4),
            ("gemma3_text", 4),
            ("gpt_neox", 32),
        ] {
            assert_eq!(heads(model_type, &json!({})), expected, "{model_type}");
            let null = json!({ "num_key_value_heads": null });
            assert_eq!(heads(model_type, &null), 32, "{model_type}");
        }
    }

    /// As `Phi3Config` of transformers 5.23.0 has it.
    #[test]
    fn phi3_has_long_ropes_by_three_names_and_no_other_scaling() {
        let phi3 = |rope_type: &str, more: &Value| {
            let factors = [2.0; 8];
            let rope = json!({
                "type": rope_type, "factor": 4.0, "short_factor": factors, "long_factor": factors,
                "original_max_position_embeddings": 64,
            });
            let mut config = json!({
                "model_type": "phi3", "rope_scaling": rope, "max_position_embeddings": 16384,
            });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            small(&config).map(|config| config.ropes[0].scaling.clone())
        };
        let length = |scaling: RopeScaling| match scaling {
            RopeScaling::LongRope { original_length, .. } => original_length,
            other => panic!("{other:?}"),
        };
        for rope_type in ["longrope", "su", "yarn"] {
            let silent = phi3(rope_type, &json!({})).unwrap();
            approx::assert_relative_eq!(length(silent), 4096.0);
            let said = json!({ "original_max_position_embeddings": 128 });
            approx::assert_relative_eq!(length(phi3(rope_type, &said).unwrap()), 128.0);
        }
        let refused = phi3("linear", &json!({})).unwrap_err();
        assert!(refused.ends_with("(only `rope_type` default and longrope)"), "{refused}");
    }

    #[test]
    fn heads_are_turned_in_part_only_where_the_family_does_so() {
        let part = |model_type: &str| {
            let config = json!({ "model_type": model_type, "partial_rotary_factor": 0.5 });
            small(&config).map(|config| config.ropes[0].width)
        };
        assert_eq!(part("phi3"), Ok(8));
        insta::assert_snapshot!(part("llama").unwrap_err(), @"`partial_rotary_factor` = 0.5 is not supported (only 1.0)");
    }

    #[test]
    fn rope_theta_is_found_in_both_layouts_of_transformers() {
        let old = small(&json!({ "rope_theta": 5e5 })).unwrap();
        let rope = json!({ "rope_theta": 5e5, "rope_type": "default" });
        let new = small(&json!({ "rope_parameters": rope })).unwrap();
        assert_eq!(old, new);
        approx::assert_relative_eq!(new.ropes[0].theta, 5e5);
    }

    #[test]
    fn unsupported_settings_are_named() {
        let said: Vec<String> = [
            json!({ "model_type": "mamba" }),
            json!({ "hidden_act": "relu2" }),
            json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 8.0 } }),
            json!({ "sliding_window": 4096 }),
            json!({ "quantization_config": { "bits": 4 } }),
        ]
        .iter()
        .map(|changes| small(changes).unwrap_err())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        `model_type` = "mamba" is not supported (only llama, mistral, qwen2, qwen3, smollm3, phi3, olmo2, gemma, gemma2, gemma3_text, gpt_neox, gpt2)
        `hidden_act` = "relu2" is not supported (only silu, swish, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh)
        `rope_scaling` = {"rope_type":"dynamic","factor":8.0} is not supported (only `rope_type` default, linear, llama3, longrope and yarn)
        `sliding_window` = 4096 is not supported (only null)
        `quantization_config` = {"bits":4} is not supported (only null)
        "#);
    }

    fn llama3(low: f64, high: f64) -> Value {
        json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": low,
            "high_freq_factor": high, "original_max_position_embeddings": 8192,
        })
    }

    #[test]
    fn long_texts_are_a_setting_in_both_layouts_of_transformers() {
        let old = small(&json!({ "rope_theta": 5e5, "rope_scaling": llama3(1.0, 4.0) })).unwrap();
        let mut rope = llama3(1.0, 4.0);
        rope["rope_theta"] = json!(5e5);
        assert_eq!(small(&json!({ "rope_parameters": rope })).unwrap(), old);
        // A wave in 6 tokens stays, one in a million is as long as eight.
        let mut frequencies = [1.0, 6e-6];
        old.ropes[0].scale(&mut frequencies, 2);
        approx::assert_relative_eq!(frequencies[0], 1.0);
        approx::assert_relative_eq!(frequencies[1], 6e-6 / 8.0);
    }

    #[test]
    fn a_window_is_where_the_family_has_one() {
        let windows = |changes: &Value| -> Vec<Option<usize>> {
            small(changes).unwrap().attention.iter().map(|layer| layer.window).collect()
        };
        let qwen = |changes: Value| {
            let mut all = json!({ "model_type": "qwen2", "sliding_window": 64 });
            all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            windows(&all)
        };
        assert_eq!(windows(&json!({ "model_type": "mistral" })), [Some(4096); 2]);
        assert_eq!(windows(&json!({ "model_type": "mistral", "sliding_window": null })), [None; 2]);
        assert_eq!(qwen(json!({})), [None; 2]);
        let first = json!({ "use_sliding_window": true, "max_window_layers": 1 });
        assert_eq!(qwen(first), [None, Some(64)]);
        let named = json!({
            "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"],
        });
        assert_eq!(qwen(named), [Some(64), None]);
    }

    #[test]
    fn impossible_shapes_are_named() {
        let said: Vec<String> = [
            json!({ "hidden_size": null }),
            json!({ "hidden_size": "wide" }),
            json!({ "num_hidden_layers": 0 }),
            json!({ "num_key_value_heads": 3 }),
            json!({ "head_dim": 15 }),
            json!({ "rms_norm_eps": -1 }),
            json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0 } }),
            json!({ "rope_parameters": llama3(4.0, 1.0) }),
            json!({ "model_type": "qwen3", "use_sliding_window": true, "layer_types": ["both", "full_attention"] }),
            json!({ "model_type": "smollm3", "no_rope_layers": [1] }),
            json!({ "tie_word_embeddings": "yes" }),
        ]
        .iter()
        .map(|changes| small(changes).unwrap_err())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        `hidden_size` is missing
        `hidden_size` is "wide", expected a whole number from 1 to 1048575
        `num_hidden_layers` is 0, expected a whole number from 1 to 1048575
        `num_key_value_heads` is 3, expected a divisor of `num_attention_heads`
        `head_dim` is 15, expected an even number, at most 2^20 of all heads
        `rms_norm_eps` is -1, expected a positive number
        `rope_scaling` is {"rope_type":"llama3","factor":8.0}, expected positive numbers for what its `rope_type` needs
        `rope_parameters` is {"rope_type":"llama3","factor":8.0,"low_freq_factor":4.0,"high_freq_factor":1.0,"original_max_position_embeddings":8192}, expected `high_freq_factor` above `low_freq_factor`
        `layer_types` is ["both","full_attention"], expected `full_attention` or `sliding_attention` for every layer
        `no_rope_layers` is [1], expected a 0 or 1 for every layer
        `tie_word_embeddings` is "yes", expected true or false
        "#);
    }
}
