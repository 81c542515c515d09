//! `config.json`: the shape and constants of a decoder, and which families it
//! can be.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A decoder-only transformer: RMS norms before attention and before the
/// MLP, rotary positions, grouped-query attention, an MLP gated by silu.
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
    /// Added to the mean square in RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the output projection is the embedding matrix.
    pub tied_embeddings: bool,
    /// Which linear modules add a bias.
    pub biases: Biases,
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

/// A model family: which of the decoder's settings it leaves to `config.json`
/// and what it means when it says nothing (the defaults of `transformers`).
struct Family {
    model_type: &'static str,
    /// Keys of the flags for [`Biases`].
    qkv_bias: &'static str,
    output_bias: &'static str,
    mlp_bias: &'static str,
    rms_norm_eps: f64,
    rope_theta: f64,
    tied_embeddings: bool,
}

const FAMILIES: &[Family] = &[Family {
    model_type: "llama",
    qkv_bias: "attention_bias",
    output_bias: "attention_bias",
    mlp_bias: "mlp_bias",
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    tied_embeddings: false,
}];

impl From<std::io::Error> for ConfigErrorKind {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            std::io::ErrorKind::NotFound => Self::NoFile,
            _ => Self::Io(err),
        }
    }
}

impl DecoderConfig {
    /// Reads `config.json` in a model folder in the Hugging Face layout.
    ///
    /// # Errors
    ///
    /// If the file is missing or damaged, or names a family or a setting that
    /// the decoder does not compute: rather no gradient than another model's.
    pub fn read(model_dir: &Path) -> Result<Self, ConfigError> {
        let path = model_dir.join("config.json");
        let read = || {
            let text = fs_err::read_to_string(&path)?;
            Self::parse(&serde_json::from_str(&text).map_err(ConfigErrorKind::Json)?)
        };
        read().map_err(|kind| ConfigError { path: path.clone(), kind })
    }

    fn parse(object: &Map<String, Value>) -> Result<Self, ConfigErrorKind> {
        let fields = Fields(object);
        let family = fields.family()?;
        fields.refuse_unsupported()?;
        let hidden_size = fields.count("hidden_size")?;
        let n_heads = fields.count("num_attention_heads")?;
        let config = Self {
            vocab_size: fields.count("vocab_size")?,
            hidden_size,
            n_layers: fields.layers()?,
            n_heads,
            n_kv_heads: fields.count_or("num_key_value_heads", n_heads)?,
            head_dim: fields.count_or("head_dim", hidden_size / n_heads)?,
            intermediate_size: fields.count("intermediate_size")?,
            rms_norm_eps: fields.positive_or("rms_norm_eps", family.rms_norm_eps)?,
            rope_theta: fields.rope_theta(family.rope_theta)?,
            tied_embeddings: fields.flag_or("tie_word_embeddings", family.tied_embeddings)?,
            biases: Biases {
                qkv: fields.flag_or(family.qkv_bias, false)?,
                output: fields.flag_or(family.output_bias, false)?,
                mlp: fields.flag_or(family.mlp_bias, false)?,
            },
        };
        if !config.n_heads.is_multiple_of(config.n_kv_heads) {
            let expected = "a divisor of `num_attention_heads`";
            return Err(fields.invalid("num_key_value_heads", expected));
        }
        if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
            return Err(fields.invalid("head_dim", "an even number"));
        }
        Ok(config)
    }
}

/// The settings of a `config.json`, typed on access. `null` counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn invalid(&self, key: &'static str, expected: &'static str) -> ConfigErrorKind {
        let value = self.0.get(key).unwrap_or(&Value::Null).to_string();
        ConfigErrorKind::Invalid { key, value, expected }
    }

    fn family(&self) -> Result<&'static Family, ConfigErrorKind> {
        let value = self.value("model_type").ok_or(ConfigErrorKind::Missing("model_type"))?;
        FAMILIES.iter().find(|family| value == family.model_type).ok_or_else(|| {
            let supported: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
            unsupported("model_type", value, &supported.join(", "))
        })
    }

    /// Every setting that changes what a decoder computes in a way that this
    /// one does not know.
    fn refuse_unsupported(&self) -> Result<(), ConfigErrorKind> {
        self.only("hidden_act", &Value::from("silu"))?;
        self.only("attention_dropout", &Value::from(0.0))?;
        self.only("pretraining_tp", &Value::from(1))?;
        self.only("sliding_window", &Value::Null)?;
        self.only("quantization_config", &Value::Null)?;
        for key in ["rope_scaling", "rope_parameters"] {
            if let Some(value) = self.value(key) {
                let kind = value.get("rope_type").or_else(|| value.get("type"));
                if kind.is_none_or(|kind| kind != "default") {
                    return Err(unsupported(key, value, "plain rotary positions"));
                }
            }
        }
        Ok(())
    }

    fn only(&self, key: &'static str, supported: &Value) -> Result<(), ConfigErrorKind> {
        match self.value(key) {
            Some(value) if !is_same(value, supported) => {
                Err(unsupported(key, value, &supported.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, key: &'static str) -> Result<usize, ConfigErrorKind> {
        let value = self.value(key).ok_or(ConfigErrorKind::Missing(key))?;
        match value.as_u64() {
            // Products of three such numbers stay far below 2^64.
            Some(count @ 1..=0xF_FFFF) => Ok(count as usize),
            _ => Err(self.invalid(key, "a whole number from 1 to 1048575")),
        }
    }

    /// Every layer has names of its own in memory, so a number that no model
    /// has is refused before they are made.
    fn layers(&self) -> Result<usize, ConfigErrorKind> {
        let key = "num_hidden_layers";
        let count = self.count(key)?;
        if count <= 4096 { Ok(count) } else { Err(self.invalid(key, "at most 4096")) }
    }

    fn count_or(&self, key: &'static str, default: usize) -> Result<usize, ConfigErrorKind> {
        if self.value(key).is_none() { Ok(default) } else { self.count(key) }
    }

    fn positive_or(&self, key: &'static str, default: f64) -> Result<f64, ConfigErrorKind> {
        let Some(value) = self.value(key) else { return Ok(default) };
        positive(value).ok_or_else(|| self.invalid(key, "a positive number"))
    }

    fn flag_or(&self, key: &'static str, default: bool) -> Result<bool, ConfigErrorKind> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, "true or false"))
    }

    /// Where `transformers` 5 (`rope_parameters`) or 4 keeps it.
    fn rope_theta(&self, default: f64) -> Result<f64, ConfigErrorKind> {
        match self.value("rope_parameters").and_then(|rope| rope.get("rope_theta")) {
            Some(value) => positive(value).ok_or_else(|| {
                self.invalid("rope_parameters", "a positive number as `rope_theta`")
            }),
            None => self.positive_or("rope_theta", default),
        }
    }
}

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite() && *number > 0.0)
}

/// Equality in which `0` is `0.0`.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| Some(number) == b.as_f64())
}

fn unsupported(key: &'static str, value: &Value, supported: &str) -> ConfigErrorKind {
    ConfigErrorKind::Unsupported { key, value: value.to_string(), supported: supported.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        approx::assert_relative_eq!(config.rope_theta, 10_000.0);
        assert!(!config.tied_embeddings && !config.biases.qkv && !config.biases.mlp);
        let config = small(&json!({ "num_key_value_heads": null, "head_dim": 8 })).unwrap();
        assert_eq!((config.n_kv_heads, config.head_dim), (4, 8));
    }

    #[test]
    fn rope_theta_is_found_in_both_layouts_of_transformers() {
        let old = small(&json!({ "rope_theta": 5e5 })).unwrap();
        let rope = json!({ "rope_theta": 5e5, "rope_type": "default" });
        let new = small(&json!({ "rope_parameters": rope })).unwrap();
        assert_eq!(old, new);
        approx::assert_relative_eq!(new.rope_theta, 5e5);
    }

    #[test]
    fn unsupported_settings_are_named() {
        let said: Vec<String> = [
            json!({ "model_type": "mamba" }),
            json!({ "hidden_act": "gelu" }),
            json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0 } }),
            json!({ "sliding_window": 4096 }),
            json!({ "quantization_config": { "bits": 4 } }),
            json!({ "attention_dropout": 0.1 }),
        ]
        .iter()
        .map(|changes| small(changes).unwrap_err())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        `model_type` = "mamba" is not supported (only llama)
        `hidden_act` = "gelu" is not supported (only "silu")
        `rope_scaling` = {"rope_type":"llama3","factor":8.0} is not supported (only plain rotary positions)
        `sliding_window` = 4096 is not supported (only null)
        `quantization_config` = {"bits":4} is not supported (only null)
        `attention_dropout` = 0.1 is not supported (only 0.0)
        "#);
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
        `head_dim` is 15, expected an even number
        `rms_norm_eps` is -1, expected a positive number
        `tie_word_embeddings` is "yes", expected true or false
        "#);
    }
}
