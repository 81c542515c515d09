//! What a GGUF file says of its model, in the words of the Hugging Face layout.

use serde_json::{Map, Value as Json, json};

use super::config::ConfigErrorKind;
use super::fields::unsupported;
use super::modules::LinearModule;
use super::names::Names;
use crate::gguf::Gguf;
use crate::gguf::metadata::Value;

/// `general.architecture`, and the `model_type` it is.
const ARCHITECTURES: [(&str, &str); 6] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("phi3", "phi3"),
];

/// Settings by name, without the architecture's before them: a count or number that a
/// file may have, and what `config.json` calls it.
const SETTINGS: [(&str, &str); 12] = [
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("attention.sliding_window", "sliding_window"),
    ("rope.freq_base", "rope_theta"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

/// Linear modules, as such files call them.
const MODULES: [(LinearModule, &str); 9] = [
    (LinearModule::Q, "attn_q"),
    (LinearModule::K, "attn_k"),
    (LinearModule::V, "attn_v"),
    (LinearModule::Qkv, "attn_qkv"),
    (LinearModule::O, "attn_output"),
    (LinearModule::Gate, "ffn_gate"),
    (LinearModule::Up, "ffn_up"),
    (LinearModule::GateUp, "ffn_up"),
    (LinearModule::Down, "ffn_down"),
];

/// The embedding matrix.
const EMBEDDINGS: &str = "token_embd.weight";

/// More coordinates than any head has.
const MAX_HEAD_DIM: usize = 4096;

/// Tensors that are no weights: factors of rotary frequencies.
const ROPE_FACTORS: [&str; 3] =
    ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// Layers of the models of Gemma 2 and 3 that scale queries by the residual stream's
/// width over the heads (27B), and not by a head's own.
const GEMMA_27B: [u64; 2] = [46, 62];

impl Gguf {
    /// The `config.json` of the model.
    ///
    /// # Errors
    ///
    /// If the architecture is not known.
    pub(super) fn config(&self) -> Result<Map<String, Json>, ConfigErrorKind> {
        let mut config = Map::new();
        config.insert("model_type".to_owned(), json!(self.model_type()?));
        for (key, name) in SETTINGS {
            if let Some(number) = self.number(key) {
                let is_whole = number.fract() == 0.0 && number.abs() < 9e15;
                let number = if is_whole { json!(number as i64) } else { json!(number) };
                config.insert(name.to_owned(), number);
            }
        }
        // Where such files say nothing, which has another meaning in some families.
        if let Some(n_heads) = config.get("num_attention_heads").cloned() {
            config.entry("num_key_value_heads").or_insert(n_heads);
        }
        // How such files say that there is none.
        if config.get("sliding_window") == Some(&json!(0)) {
            config.insert("sliding_window".to_owned(), Json::Null);
        }
        if let Some(share) = self.rotary_share() {
            config.insert("partial_rotary_factor".to_owned(), json!(share));
        }
        if let Some(embeddings) = self.tensors().get(EMBEDDINGS) {
            config.insert("vocab_size".to_owned(), json!(embeddings.shape.first()));
        }
        let is_tied = !self.tensors().contains_key("output.weight");
        config.insert("tie_word_embeddings".to_owned(), json!(is_tied));
        let length = self.setting("rope.scaling.original_context_length");
        if let Some(length) = length.and_then(Value::count) {
            config.insert("original_max_position_embeddings".to_owned(), json!(length));
        }
        if let Some(scaling) = self.rope_scaling() {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        if self.architecture().starts_with("gemma") {
            add_scale(&mut config);
        }
        Ok(config)
    }

    fn model_type(&self) -> Result<&'static str, ConfigErrorKind> {
        const KEY: &str = "general.architecture";
        let own = self.architecture();
        let known = ARCHITECTURES.iter().find(|(name, _)| *name == own);
        known.map(|(_, model_type)| *model_type).ok_or_else(|| {
            let names = ARCHITECTURES.map(|(name, _)| name).join(", ");
            unsupported(KEY, &json!(own), &names)
        })
    }

    /// Which share of a head is turned, of models that turn a part.
    fn rotary_share(&self) -> Option<f64> {
        let width =
            self.number("rope.dimension_count").filter(|_| self.architecture() == "phi3")?;
        let n_heads = self.number("attention.head_count")?;
        let head_dim = self.number("attention.key_length");
        let head_dim =
            head_dim.or_else(|| Some((self.number("embedding_length")? / n_heads).floor()))?;
        Some(width / head_dim)
    }

    fn architecture(&self) -> &str {
        self.value("general.architecture").and_then(Value::text).unwrap_or_default()
    }

    /// A setting of the architecture's own.
    fn setting(&self, key: &str) -> Option<&Value> {
        self.value(&format!("{}.{key}", self.architecture()))
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.setting(key).and_then(Value::number)
    }

    /// Frequencies that are divided by factors, each by its own.
    fn rope_scaling(&self) -> Option<Json> {
        let factors = |name| {
            let tensor = self.tensors().get(name)?;
            let is_list = tensor.shape.len() == 1 && tensor.shape[0] <= MAX_HEAD_DIM;
            is_list.then(|| json!(self.unpack(tensor)))
        };
        if let Some(factors) = factors(ROPE_FACTORS[0]) {
            // Llama 3.1's, worked out: the same for texts of every length.
            return Some(json!({
                "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
                "factor": 1.0, "attention_factor": 1.0,
            }));
        }
        if let (Some(short), Some(long)) = (factors(ROPE_FACTORS[1]), factors(ROPE_FACTORS[2])) {
            return Some(json!({
                "rope_type": "longrope", "short_factor": short, "long_factor": long,
                "attention_factor": self.number("rope.scaling.attn_factor"),
            }));
        }
        let kind = self.setting("rope.scaling.type").and_then(Value::text)?;
        (kind != "none")
            .then(|| json!({ "rope_type": kind, "factor": self.number("rope.scaling.factor") }))
    }

    /// The names of the file's tensors, by the model's own names for them.
    pub(super) fn weight_names(&self, names: &Names) -> impl Iterator<Item = (String, String)> {
        let weights = self.tensors().keys().filter(|name| !ROPE_FACTORS.contains(&name.as_str()));
        weights.map(|name| (canonical(name, names).unwrap_or_else(|| name.clone()), name.clone()))
    }

    /// A tensor's values as the model has them, in f32.
    ///
    /// # Panics
    ///
    /// If there is no such tensor.
    pub(super) fn weight(&self, name: &str, head_dim: usize) -> Vec<f32> {
        let tensor = &self.tensors()[name];
        let mut values = self.unpack(tensor);
        let architecture = self.architecture();
        let is_turned = name.contains(".attn_q.") || name.contains(".attn_k.");
        if architecture == "llama" && is_turned {
            let width = values.len() / tensor.shape[0].max(1);
            return halves(&values, width, head_dim);
        }
        // What norms around one add is in the file.
        if architecture.starts_with("gemma") && name.ends_with("norm.weight") {
            for weight in &mut values {
                *weight -= 1.0;
            }
        }
        values
    }
}

/// What queries are scaled by, which such files leave to the reader.
fn add_scale(config: &mut Map<String, Json>) {
    let number = |name: &str| config.get(name).and_then(Json::as_u64);
    let is_27b = number("num_hidden_layers").is_some_and(|n| GEMMA_27B.contains(&n));
    let by_width = number("hidden_size").zip(number("num_attention_heads"));
    let scalar = match by_width {
        Some((width, n_heads)) if is_27b => width.checked_div(n_heads),
        _ => number("head_dim"),
    };
    if let Some(scalar) = scalar {
        config.insert("query_pre_attn_scalar".to_owned(), json!(scalar));
    }
}

/// What the model calls the file's tensor `name`.
fn canonical(name: &str, names: &Names) -> Option<String> {
    let (part, kind) = name.rsplit_once('.')?;
    let own = match part {
        "token_embd" => names.of(names.embeddings),
        "output_norm" => names.of(names.norm),
        "output" => names.heads[0].to_owned(),
        _ => {
            let (layer, part) = part.strip_prefix("blk.")?.split_once('.')?;
            in_layer(layer.parse().ok()?, part, names)?
        }
    };
    Some(format!("{own}.{kind}"))
}

fn in_layer(layer: usize, part: &str, names: &Names) -> Option<String> {
    let module = |(module, _): &(LinearModule, &str)| {
        MODULES.iter().any(|(known, name)| known == module && *name == part)
    };
    if let Some((module, _)) = names.modules.iter().find(|named| module(named)) {
        return Some(names.module(layer, *module));
    }
    let norm = match part {
        "attn_norm" => names.attention_norms[0],
        "post_attention_norm" => names.attention_norms[1],
        "ffn_norm" => names.mlp_norms[0],
        "post_ffw_norm" => names.mlp_norms[1],
        "attn_q_norm" => names.qk_norms[0],
        "attn_k_norm" => names.qk_norms[1],
        _ => return None,
    };
    Some(names.in_layer(layer, norm))
}

/// Rows of queries or keys as the two halves of each head, where llama.cpp has the
/// pairs that turn together side by side.
fn halves(rows: &[f32], width: usize, head_dim: usize) -> Vec<f32> {
    let mut own = Vec::with_capacity(rows.len());
    for head in rows.chunks(head_dim * width) {
        for first in [0, 1] {
            own.extend(head.chunks(width).skip(first).step_by(2).flatten());
        }
    }
    own
}
