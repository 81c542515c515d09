//! What families call their weights, as `transformers` and `peft` write them.

use super::modules::LinearModule;

/// A family's names.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// The decoder without its head; files of it alone leave the name out.
    pub base: &'static str,
    /// The embedding matrix.
    pub embeddings: &'static str,
    /// The learned positions, where there are any.
    pub positions: &'static str,
    /// The list of layers.
    pub layers: &'static str,
    /// The norm behind the last layer.
    pub norm: &'static str,
    /// The output projection, in releases before `transformers` 5, too.
    pub heads: &'static [&'static str],
    /// The norms before and after attention.
    pub attention_norms: [&'static str; 2],
    /// The norms before and after the MLP.
    pub mlp_norms: [&'static str; 2],
    /// The norms of queries and keys, where they are normed.
    pub qk_norms: [&'static str; 2],
    /// The linear modules of a layer, in order of definition.
    pub modules: &'static [(LinearModule, &'static str)],
    /// Whether a module's weight is stored as `[d_in, d_out]`.
    pub is_transposed: bool,
    /// How names end that are no weights: masks and rotary tables of old exports.
    pub buffers: &'static [&'static str],
}

/// Names of Llama, which most families took over.
pub(super) const LLAMA: Names = Names {
    base: "model",
    embeddings: "embed_tokens",
    positions: "",
    layers: "layers",
    norm: "norm",
    heads: &["lm_head"],
    attention_norms: ["input_layernorm", ""],
    mlp_norms: ["post_attention_layernorm", ""],
    qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    modules: &[
        (LinearModule::Q, "self_attn.q_proj"),
        (LinearModule::K, "self_attn.k_proj"),
        (LinearModule::V, "self_attn.v_proj"),
        (LinearModule::O, "self_attn.o_proj"),
        (LinearModule::Gate, "mlp.gate_proj"),
        (LinearModule::Up, "mlp.up_proj"),
        (LinearModule::Down, "mlp.down_proj"),
    ],
    is_transposed: false,
    buffers: &["rotary_emb.inv_freq"],
};

/// Norms behind attention and MLP.
pub(super) const OLMO2: Names = Names {
    attention_norms: ["", "post_attention_layernorm"],
    mlp_norms: ["", "post_feedforward_layernorm"],
    ..LLAMA
};

/// Norms before and behind attention and MLP.
pub(super) const GEMMA2: Names = Names {
    attention_norms: ["input_layernorm", "post_attention_layernorm"],
    mlp_norms: ["pre_feedforward_layernorm", "post_feedforward_layernorm"],
    ..LLAMA
};

/// Queries, keys and values as one module, gate and way up as one.
pub(super) const PHI3: Names = Names {
    modules: &[
        (LinearModule::O, "self_attn.o_proj"),
        (LinearModule::Qkv, "self_attn.qkv_proj"),
        (LinearModule::GateUp, "mlp.gate_up_proj"),
        (LinearModule::Down, "mlp.down_proj"),
    ],
    ..LLAMA
};

pub(super) const GPT_NEOX: Names = Names {
    base: "gpt_neox",
    embeddings: "embed_in",
    norm: "final_layer_norm",
    heads: &["lm_head", "embed_out"],
    modules: &[
        (LinearModule::Qkv, "attention.query_key_value"),
        (LinearModule::O, "attention.dense"),
        (LinearModule::Up, "mlp.dense_h_to_4h"),
        (LinearModule::Down, "mlp.dense_4h_to_h"),
    ],
    buffers: &["rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"],
    ..LLAMA
};

pub(super) const GPT2: Names = Names {
    base: "transformer",
    embeddings: "wte",
    positions: "wpe",
    layers: "h",
    norm: "ln_f",
    attention_norms: ["ln_1", ""],
    mlp_norms: ["ln_2", ""],
    modules: &[
        (LinearModule::Qkv, "attn.c_attn"),
        (LinearModule::O, "attn.c_proj"),
        (LinearModule::Up, "mlp.c_fc"),
        (LinearModule::Down, "mlp.c_proj"),
    ],
    is_transposed: true,
    buffers: &[".attn.bias", ".attn.masked_bias"],
    ..LLAMA
};

impl Names {
    /// The name of a part of the decoder, such as its norm.
    pub(super) fn of(&self, part: &str) -> String {
        format!("{}.{part}", self.base)
    }

    /// The name of a part of layer number `layer`.
    pub(super) fn in_layer(&self, layer: usize, part: &str) -> String {
        format!("{}.{}.{layer}.{part}", self.base, self.layers)
    }

    /// The full name of a linear module.
    ///
    /// # Panics
    ///
    /// If the family has no such module.
    pub(super) fn module(&self, layer: usize, module: LinearModule) -> String {
        let named = self.modules.iter().find(|(known, _)| *known == module);
        self.in_layer(layer, named.expect("the family has the module").1)
    }

    /// What the weight that a file calls `name` is called here; `None` if it is no
    /// weight.
    pub fn canonical(&self, name: &str) -> Option<String> {
        if self.buffers.iter().any(|buffer| name.ends_with(buffer)) {
            return None;
        }
        let part = name.split('.').next().unwrap_or(name);
        if self.heads.contains(&part) {
            return Some(format!("{}{}", self.heads[0], &name[part.len()..]));
        }
        let is_full = part == self.base;
        Some(if is_full { name.to_owned() } else { self.of(name) })
    }
}
