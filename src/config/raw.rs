//! Settings as their author wrote them: every one optional, nothing checked.
//!
//! One struct is the TOML file, the environment and the flags at once, so a
//! setting is written down once and has one name everywhere.

use serde::{Deserialize, Deserializer, Serialize};

/// What one layer (a file, the environment, the command line) says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawConfig {
    /// How much to keep: a share (`0.05`, `5%`), rows (`2000`) or tokens (`1M tokens`)
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_BUDGET",
        hide_env = true,
        help_heading = "Selection"
    )]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,

    /// How rows are scored: less, rds, bm25, ngram, length, perplexity, random, random-balanced
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_METHOD",
        hide_env = true,
        help_heading = "Selection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,

    /// Order in which rows are taken: auto, top, round-robin, knn, knn-kde or mmr
    #[arg(long, global = true, env = "LESS_SELECT_SELECTOR", hide_env = true)]
    #[arg(help_heading = "Selection")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Put the subtasks' scores on one scale first: none or per-task
    #[arg(long, global = true, env = "LESS_SELECT_NORMALIZE", hide_env = true)]
    #[arg(help_heading = "Selection")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<String>,

    /// A target example's nearest rows for knn and knn-kde: a share of the pool or a number
    #[arg(long, global = true, env = "LESS_SELECT_NEIGHBORS", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "SHARE|ROWS")]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<String>,

    /// What likeness to a row that is taken costs with mmr
    #[arg(long, global = true, env = "LESS_SELECT_REDUNDANCY_PENALTY", hide_env = true)]
    #[arg(help_heading = "Selection")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redundancy_penalty: Option<f64>,

    /// Most of the subset that a pool source may have, such as `t0_p3=20%`; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_SOURCE_CAP", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "SOURCE=SHARE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_cap: Option<Vec<String>>,

    /// Least of the subset that a pool source is to have, such as `tydiqa=5%`; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_SOURCE_FLOOR", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "SOURCE=SHARE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_floor: Option<Vec<String>>,

    /// A budget for each target instead of one for all, such as `gsm8k=3%`; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_TARGET_BUDGET", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "TARGET=BUDGET", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_budget: Option<Vec<String>>,

    /// Write a subset folder for each target, too
    #[arg(long, global = true, env = "LESS_SELECT_SUBSET_PER_TARGET", hide_env = true)]
    #[arg(help_heading = "Selection")]
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset_per_target: Option<bool>,

    /// Leave out rows at least this much like a better one (80%), or keep them
    #[arg(long, global = true, env = "LESS_SELECT_NEAR_DUPLICATES", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "keep|SHARE")]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub near_duplicates: Option<String>,

    /// Leave out rows that say what a target example says
    #[arg(long, global = true, env = "LESS_SELECT_DECONTAMINATE_TARGET", hide_env = true)]
    #[arg(help_heading = "Selection")]
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate_target: Option<bool>,

    /// Leave out rows that say what is in this evaluation: `[NAME=]PATH`; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_DECONTAMINATE", hide_env = true)]
    #[arg(help_heading = "Selection", value_name = "[NAME=]PATH", value_delimiter = ';')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<Vec<String>>,

    /// Columns of the subset: messages, messages-only or original
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_SCHEMA",
        hide_env = true,
        help_heading = "Selection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,

    /// Rows that the report quotes: the first and last of the subset, the best of the others
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_REPORT_ROWS",
        hide_env = true,
        help_heading = "Selection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_rows: Option<u64>,

    /// The model: a folder in Hugging Face layout, a GGUF file, or a name in the hub's cache or less-select's
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_MODEL",
        hide_env = true,
        help_heading = "Data",
        value_name = "DIR"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// Fill the model with random weights: all it needs to measure speed is config.json
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_RANDOM_WEIGHTS",
        hide_env = true,
        help_heading = "Data"
    )]
    #[arg(value_name = "SEED")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_weights: Option<u64>,

    /// Rows to choose from: `[NAME=]PATH` of a file, folder or glob; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_POOL", hide_env = true, help_heading = "Data")]
    #[arg(value_name = "[NAME=]PATH", value_delimiter = ';')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Vec<String>>,

    /// Examples of the skill to select for: `[NAME=]PATH`; repeatable
    #[arg(long, global = true, env = "LESS_SELECT_TARGET", hide_env = true, help_heading = "Data")]
    #[arg(value_name = "[NAME=]PATH", value_delimiter = ';')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Vec<String>>,

    /// Names of your own columns, such as `prompt=question,completion=answer`
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_COLUMNS",
        hide_env = true,
        help_heading = "Data"
    )]
    #[arg(value_name = "ROLE=COLUMN", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,

    /// What renders conversations: model, none, chatml, llama-2, tulu, alpaca or a file
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_CHAT_TEMPLATE",
        hide_env = true,
        help_heading = "Data"
    )]
    #[arg(value_name = "NAME|FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,

    /// Turns that carry loss: assistant, last-assistant or all
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LOSS_TURNS",
        hide_env = true,
        help_heading = "Data"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_turns: Option<String>,

    /// Cut longer examples at this many tokens
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_MAX_TOKENS",
        hide_env = true,
        help_heading = "Data"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,

    /// Stop when more than this share of the rows is malformed
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_MAX_REJECTS",
        hide_env = true,
        help_heading = "Data"
    )]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub max_rejects: Option<String>,

    /// Use the checkpoints of this folder instead of a warm-up of our own
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_CHECKPOINTS",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[arg(value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<String>,

    /// Train anew once more than this share of the pool is newer than the warm-up
    #[arg(long, global = true, env = "LESS_SELECT_REWARM_GROWTH", hide_env = true)]
    #[arg(help_heading = "Warm-up", value_name = "SHARE")]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub rewarm_growth: Option<String>,

    /// Share of the pool to train on
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_WARMUP_SHARE",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub warmup_share: Option<String>,

    /// Train on at least this many rows of a small pool
    #[arg(long, global = true, env = "LESS_SELECT_WARMUP_MIN_ROWS", hide_env = true)]
    #[arg(help_heading = "Warm-up")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_min_rows: Option<u64>,

    /// Passes over that share; a checkpoint each
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_EPOCHS",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,

    /// Rows an optimizer step
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_BATCH_SIZE",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u64>,

    /// Peak learning rate
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LEARNING_RATE",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,

    /// How the rate falls: linear or cosine
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_SCHEDULE",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Share of the steps in which the rate rises
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_WARMUP_RATIO",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,

    /// Decoupled weight decay
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_WEIGHT_DECAY",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,

    /// Scale longer gradients down to this L2 norm
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_MAX_GRAD_NORM",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,

    /// Rank of the adapter
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LORA_RANK",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u64>,

    /// The adapter's update is scaled by alpha / rank
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LORA_ALPHA",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_alpha: Option<f64>,

    /// Dropout on the adapter's input while training
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LORA_DROPOUT",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_dropout: Option<f64>,

    /// Modules that get an adapter, such as `q_proj,v_proj`; `attention` or `all-linear`
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_LORA_TARGETS",
        hide_env = true,
        help_heading = "Warm-up"
    )]
    #[arg(value_name = "MODULE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_targets: Option<Vec<String>>,

    /// Directions to store and score: adam-v, adam, less-code, sgd; the first one ranks
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_GRADIENT",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[arg(value_name = "KIND", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<Vec<String>>,

    /// Take gradients only of this share of the pool, the best by one forward pass
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_CASCADE",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[arg(value_name = "SHARE|off")]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub cascade: Option<String>,

    /// Keep gradients in this folder, which several runs may share
    #[arg(long, global = true, env = "LESS_SELECT_GRADIENT_STORE", hide_env = true)]
    #[arg(help_heading = "Gradients", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_store: Option<String>,

    /// sjlt, srht, rademacher or none
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_PROJECTION",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,

    /// Length of a stored row: a power of two
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_PROJ_DIM",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proj_dim: Option<u64>,

    /// How stored rows are written: f32, f16, i8, i4 or i1
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_STORE_DTYPE",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_dtype: Option<String>,

    /// Rows in a shard
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_SHARD_ROWS",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_rows: Option<u64>,

    /// How a subtask's examples are joined: mean-of-cosines, cosine-of-mean; the first one ranks
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_AGGREGATION",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[arg(value_name = "AGGREGATION", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<Vec<String>>,

    /// Which inner product compares gradients: none (the plain one), pool or whiten (by the
    /// inverse second moment of the pool's rows), or target (in the subspace of the
    /// target's rows)
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_PRECONDITION",
        hide_env = true,
        help_heading = "Gradients"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precondition: Option<String>,

    /// auto, cpu or cuda:N; several, such as `cuda:0,cuda:1`, get a worker each
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_DEVICES",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[arg(value_name = "DEVICE", value_delimiter = ',', visible_alias = "device")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,

    /// Most of a CUDA device's memory that a worker may take
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_DEVICE_MEMORY",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[arg(value_name = "SHARE")]
    #[serde(deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<String>,

    /// Precision of the frozen model: auto, f32 or bf16
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_DTYPE",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,

    /// Threads; 0 is all cores
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_THREADS",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u64>,

    /// Compute activations again instead of keeping them: less memory, more time
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_RECOMPUTE",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute: Option<bool>,

    /// Most tokens in a batch, padding included; 0 is 16384 on a CUDA device, else 1024
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_BATCH_TOKENS",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<u64>,

    /// The root of every random number
    #[arg(
        long,
        global = true,
        env = "LESS_SELECT_SEED",
        hide_env = true,
        help_heading = "Machine"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Shares read naturally both as `0.05` and as `"5%"`.
fn text_or_number<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    use serde::de::Error;
    match toml::Value::deserialize(input)? {
        toml::Value::String(text) => Ok(Some(text)),
        // `{:?}`, for 1.0 must not become "1": one is a share, the other a count.
        toml::Value::Float(number) => Ok(Some(format!("{number:?}"))),
        toml::Value::Integer(number) => Ok(Some(number.to_string())),
        other => Err(D::Error::custom(format!("expected a number or text, not {other}"))),
    }
}
