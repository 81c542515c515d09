//! The table of families. A new one is a row of [`FAMILIES`], and a setting of the
//! decoder where it has something that no other has. Whatever a row leaves to
//! `config.json` has the default of `transformers`.

use super::architecture::{Activation, NormKind, Placement, QkNorm};
use super::family::{Bias, FULL_ATTENTION, Family, Keys, SLIDING_ATTENTION, Window};
use super::joined::Joined;
use super::names;
use super::rope::RopeKeys;

const KEYS: Keys = Keys {
    hidden_size: "hidden_size",
    n_layers: "num_hidden_layers",
    n_heads: "num_attention_heads",
    n_kv_heads: "num_key_value_heads",
    intermediate_size: "intermediate_size",
    norm_eps: "rms_norm_eps",
    activation: "hidden_act",
};

const ROPE: RopeKeys = RopeKeys {
    layer_type: FULL_ATTENTION,
    theta: "rope_theta",
    default_theta: 1e4,
    share: "partial_rotary_factor",
    default_share: 1.0,
    turns_part: false,
    is_scaled: true,
    long_rope_of: None,
};

const LLAMA: Family = Family {
    model_type: "llama",
    keys: KEYS,
    names: &names::LLAMA,
    joined: Joined::Blocks,
    biases: [
        Bias::Flag("attention_bias", false),
        Bias::Flag("attention_bias", false),
        Bias::Flag("mlp_bias", false),
    ],
    norm: NormKind::Rms,
    norm_eps: 1e-6,
    placement: Placement::Before,
    qk_norm: None,
    activation: Activation::Silu,
    n_kv_heads: None,
    mlp_ratio: None,
    head_dim: None,
    ropes: &[ROPE],
    tied_embeddings: false,
    window: Window::Never,
    has_nope: false,
    scales_embeddings: false,
    query_scalar: None,
    gelu: Activation::Gelu,
    caps: None,
};

const GEMMA: Family = Family {
    model_type: "gemma",
    biases: [Bias::Flag("attention_bias", false), Bias::Flag("attention_bias", false), Bias::Never],
    norm: NormKind::RmsAroundOne,
    activation: Activation::GeluTanh,
    n_kv_heads: Some(16),
    head_dim: Some(256),
    tied_embeddings: true,
    scales_embeddings: true,
    gelu: Activation::GeluTanh,
    ..LLAMA
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    keys: Keys { activation: "hidden_activation", ..KEYS },
    names: &names::GEMMA2,
    placement: Placement::Around,
    n_kv_heads: Some(4),
    window: Window::Alternating(2),
    query_scalar: Some(256.0),
    gelu: Activation::Gelu,
    caps: Some([Some(50.0), Some(30.0)]),
    ..GEMMA
};

pub(super) static FAMILIES: [Family; 12] = [
    LLAMA,
    Family {
        model_type: "mistral",
        biases: [Bias::Never; 3],
        n_kv_heads: Some(8),
        window: Window::Everywhere(Some(4096)),
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        biases: [Bias::Always, Bias::Never, Bias::Never],
        n_kv_heads: Some(32),
        window: Window::Later,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        biases: [
            Bias::Flag("attention_bias", false),
            Bias::Flag("attention_bias", false),
            Bias::Never,
        ],
        qk_norm: Some(QkNorm::Head),
        n_kv_heads: Some(32),
        head_dim: Some(128),
        window: Window::Later,
        ..LLAMA
    },
    Family {
        model_type: "smollm3",
        n_kv_heads: Some(4),
        ropes: &[RopeKeys { default_theta: 2e6, ..ROPE }],
        tied_embeddings: true,
        window: Window::InNope,
        has_nope: true,
        ..LLAMA
    },
    Family {
        model_type: "phi3",
        names: &names::PHI3,
        biases: [Bias::Never; 3],
        norm_eps: 1e-5,
        ropes: &[RopeKeys { turns_part: true, long_rope_of: Some(4096), ..ROPE }],
        window: Window::Everywhere(None),
        ..LLAMA
    },
    Family {
        model_type: "olmo2",
        names: &names::OLMO2,
        biases: [
            Bias::Flag("attention_bias", false),
            Bias::Flag("attention_bias", false),
            Bias::Never,
        ],
        norm_eps: 1e-5,
        placement: Placement::After,
        qk_norm: Some(QkNorm::Whole),
        ..LLAMA
    },
    GEMMA,
    GEMMA2,
    Family {
        model_type: "gemma3_text",
        qk_norm: Some(QkNorm::Head),
        ropes: &[
            RopeKeys { default_theta: 1e6, ..ROPE },
            RopeKeys {
                layer_type: SLIDING_ATTENTION,
                theta: "rope_local_base_freq",
                is_scaled: false,
                ..ROPE
            },
        ],
        window: Window::Alternating(6),
        caps: Some([None, None]),
        ..GEMMA2
    },
    Family {
        model_type: "gpt_neox",
        keys: Keys { n_kv_heads: "num_attention_heads", norm_eps: "layer_norm_eps", ..KEYS },
        names: &names::GPT_NEOX,
        joined: Joined::ByHead,
        biases: [
            Bias::Flag("attention_bias", true),
            Bias::Flag("attention_bias", true),
            Bias::Always,
        ],
        norm: NormKind::Layer,
        norm_eps: 1e-5,
        placement: Placement::Parallel,
        activation: Activation::Gelu,
        ropes: &[RopeKeys {
            theta: "rotary_emb_base",
            share: "rotary_pct",
            default_share: 0.25,
            turns_part: true,
            ..ROPE
        }],
        ..LLAMA
    },
    Family {
        model_type: "gpt2",
        keys: Keys {
            hidden_size: "n_embd",
            n_layers: "n_layer",
            n_heads: "n_head",
            n_kv_heads: "n_head",
            intermediate_size: "n_inner",
            norm_eps: "layer_norm_epsilon",
            activation: "activation_function",
        },
        names: &names::GPT2,
        biases: [Bias::Always; 3],
        norm: NormKind::Layer,
        norm_eps: 1e-5,
        activation: Activation::GeluTanh,
        mlp_ratio: Some(4),
        ropes: &[],
        tied_embeddings: true,
        ..LLAMA
    },
];
