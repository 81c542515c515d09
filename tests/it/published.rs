//! Configurations as they are published: which are read, and whether the model has as
//! many parameters as its card says.

use less_select::model::DecoderConfig;
use serde_json::{Value, json};

/// Name, configuration, parameters.
#[expect(clippy::too_many_lines, reason = "a table")]
fn published() -> Vec<(&'static str, Value, usize)> {
    let llama3 = json!({
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    });
    let factors: Vec<f64> = (0..48).map(|pair| 1.0 + f64::from(pair)).collect();
    let longrope = json!({ "long_factor": factors, "short_factor": factors, "type": "longrope" });
    vec![
        (
            "Llama-3.2-1B",
            json!({
                "model_type": "llama", "attention_bias": false, "attention_dropout": 0.0,
                "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
                "intermediate_size": 8192, "max_position_embeddings": 131_072, "mlp_bias": false,
                "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
                "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": llama3,
                "rope_theta": 500_000.0, "tie_word_embeddings": true, "vocab_size": 128_256,
            }),
            1_235_814_400,
        ),
        (
            "Mistral-7B-v0.1",
            json!({
                "model_type": "mistral", "hidden_act": "silu", "hidden_size": 4096,
                "intermediate_size": 14336, "max_position_embeddings": 32768,
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
                "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
                "tie_word_embeddings": false, "vocab_size": 32000,
            }),
            7_241_732_096,
        ),
        (
            "Qwen2.5-7B",
            json!({
                "model_type": "qwen2", "attention_dropout": 0.0, "hidden_act": "silu",
                "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131_072,
                "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28,
                "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1_000_000.0,
                "sliding_window": 131_072, "tie_word_embeddings": false,
                "use_mrope": false, "use_sliding_window": false, "vocab_size": 152_064,
            }),
            7_615_616_512,
        ),
        (
            "Qwen3-8B",
            json!({
                "model_type": "qwen3", "attention_bias": false, "attention_dropout": 0.0,
                "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
                "intermediate_size": 12288, "max_position_embeddings": 40960,
                "max_window_layers": 36, "num_attention_heads": 32, "num_hidden_layers": 36,
                "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
                "rope_theta": 1_000_000, "sliding_window": null, "tie_word_embeddings": false,
                "use_sliding_window": false, "vocab_size": 151_936,
            }),
            8_190_735_360,
        ),
        (
            "SmolLM3-3B",
            json!({
                "model_type": "smollm3", "attention_bias": false, "attention_dropout": 0.0,
                "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008,
                "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false,
                "no_rope_layer_interval": 4, "num_attention_heads": 16, "num_hidden_layers": 36,
                "num_key_value_heads": 4, "pretraining_tp": 2, "rms_norm_eps": 1e-06,
                "rope_scaling": null, "rope_theta": 5_000_000.0, "sliding_window": null,
                "use_sliding_window": false, "vocab_size": 128_256,
            }),
            3_075_098_624,
        ),
        (
            "Phi-3-mini-4k-instruct",
            json!({
                "model_type": "phi3", "attention_bias": false, "attention_dropout": 0.0,
                "embd_pdrop": 0.0, "hidden_act": "silu", "hidden_size": 3072,
                "intermediate_size": 8192, "max_position_embeddings": 4096,
                "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
                "original_max_position_embeddings": 4096, "resid_pdrop": 0.0,
                "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
                "sliding_window": 2047, "tie_word_embeddings": false, "vocab_size": 32064,
            }),
            3_821_079_552,
        ),
        (
            "Phi-3.5-mini-instruct",
            json!({
                "model_type": "phi3", "attention_bias": false, "attention_dropout": 0.0,
                "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
                "max_position_embeddings": 131_072, "num_attention_heads": 32,
                "num_hidden_layers": 32, "num_key_value_heads": 32,
                "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
                "rope_scaling": longrope, "rope_theta": 10000.0, "sliding_window": 262_144,
                "tie_word_embeddings": false, "vocab_size": 32064,
            }),
            3_821_079_552,
        ),
        (
            "Phi-4-mini-instruct",
            json!({
                "model_type": "phi3", "attention_bias": false, "attention_dropout": 0.0,
                "full_attn_mod": 1, "hidden_act": "silu", "hidden_size": 3072,
                "intermediate_size": 8192, "interpolate_factor": 1, "lm_head_bias": false,
                "max_position_embeddings": 131_072, "mlp_bias": false, "num_attention_heads": 24,
                "num_hidden_layers": 32, "num_key_value_heads": 8,
                "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
                "rms_norm_eps": 1e-05, "rope_scaling": longrope, "rope_theta": 10000.0,
                "sliding_window": 262_144, "tie_word_embeddings": true, "vocab_size": 200_064,
            }),
            3_836_021_760,
        ),
        (
            "OLMo-2-1124-7B",
            json!({
                "model_type": "olmo2", "attention_bias": false, "attention_dropout": 0.0,
                "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
                "max_position_embeddings": 4096, "num_attention_heads": 32,
                "num_hidden_layers": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-06,
                "rope_scaling": null, "rope_theta": 500_000, "tie_word_embeddings": false,
                "vocab_size": 100_352,
            }),
            7_298_617_344,
        ),
        (
            "gemma-2b",
            json!({
                "model_type": "gemma", "attention_bias": false, "attention_dropout": 0.0,
                "head_dim": 256, "hidden_act": "gelu", "hidden_activation": null,
                "hidden_size": 2048, "intermediate_size": 16384, "max_position_embeddings": 8192,
                "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1,
                "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0,
                "vocab_size": 256_000,
            }),
            2_506_172_416,
        ),
        (
            "gemma-2-2b",
            json!({
                "model_type": "gemma2", "attention_bias": false, "attention_dropout": 0.0,
                "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
                "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
                "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
                "intermediate_size": 9216, "max_position_embeddings": 8192,
                "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
                "sliding_window": 4096, "vocab_size": 256_000,
            }),
            2_614_341_888,
        ),
        (
            "gemma-3-1b-it",
            json!({
                "model_type": "gemma3_text", "attention_bias": false, "attention_dropout": 0.0,
                "attn_logit_softcapping": null, "cache_implementation": "hybrid",
                "final_logit_softcapping": null, "head_dim": 256,
                "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
                "intermediate_size": 6912, "max_position_embeddings": 32768,
                "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
                "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1_000_000,
                "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262_144,
            }),
            999_885_952,
        ),
        (
            "pythia-160m",
            json!({
                "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 768,
                "intermediate_size": 3072, "layer_norm_eps": 1e-05,
                "max_position_embeddings": 2048, "num_attention_heads": 12,
                "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25,
                "tie_word_embeddings": false, "use_parallel_residual": true, "vocab_size": 50304,
            }),
            162_322_944,
        ),
        (
            "gpt2",
            json!({
                "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1,
                "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-05, "n_ctx": 1024, "n_embd": 768,
                "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1,
                "vocab_size": 50257,
            }),
            124_439_808,
        ),
    ]
}

#[test]
fn published_models_have_as_many_parameters_as_their_cards_say() {
    let dir = tempfile::tempdir().unwrap();
    for (name, config, n_parameters) in published() {
        fs_err::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let config =
            DecoderConfig::read(dir.path()).unwrap_or_else(|err| panic!("{name}: {}", err.kind));
        assert_eq!(config.n_parameters(), n_parameters, "{name}");
    }
}
