//! The families of models that the decoder computes: for each, which settings it
//! leaves to `config.json` and what it means when that says nothing (the defaults
//! of `transformers`).
//!
//! A new family is a row of [`FAMILIES`], and a setting of the decoder where it
//! has something that no other has.

use super::config::{ConfigErrorKind, LayerAttention};
use super::fields::{Fields, unsupported};

/// What sets a family's models apart from other decoders.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) qkv_bias: Bias,
    pub(super) output_bias: Bias,
    pub(super) mlp_bias: Bias,
    /// Whether queries and keys are normed, head by head.
    pub(super) qk_norm: bool,
    /// Width of a head; `None` is the residual stream's over the heads.
    pub(super) head_dim: Option<usize>,
    pub(super) rope_theta: f64,
    pub(super) tied_embeddings: bool,
    pub(super) window: Window,
    /// Whether some layers know no positions (`no_rope_layers`).
    pub(super) has_nope: bool,
}

/// Whether a linear module adds a bias.
#[derive(Clone, Copy)]
pub(super) enum Bias {
    Never,
    Always,
    /// If this flag is set.
    Flag(&'static str),
}

/// Where attention is to the last tokens only, as many as `sliding_window`.
#[derive(Clone, Copy)]
pub(super) enum Window {
    /// Nowhere.
    Never,
    /// In every layer, and 4096 tokens where nothing is said.
    Everywhere,
    /// In layers from `max_window_layers` on, if `use_sliding_window` is set.
    Later,
    /// In layers that know no positions, if `use_sliding_window` is set.
    InNope,
}

const LLAMA: Family = Family {
    model_type: "llama",
    qkv_bias: Bias::Flag("attention_bias"),
    output_bias: Bias::Flag("attention_bias"),
    mlp_bias: Bias::Flag("mlp_bias"),
    qk_norm: false,
    head_dim: None,
    rope_theta: 1e4,
    tied_embeddings: false,
    window: Window::Never,
    has_nope: false,
};

static FAMILIES: [Family; 5] = [
    LLAMA,
    Family {
        model_type: "mistral",
        qkv_bias: Bias::Never,
        output_bias: Bias::Never,
        mlp_bias: Bias::Never,
        window: Window::Everywhere,
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        qkv_bias: Bias::Always,
        output_bias: Bias::Never,
        mlp_bias: Bias::Never,
        window: Window::Later,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        mlp_bias: Bias::Never,
        qk_norm: true,
        head_dim: Some(128),
        window: Window::Later,
        ..LLAMA
    },
    Family {
        model_type: "smollm3",
        rope_theta: 2e6,
        tied_embeddings: true,
        window: Window::InNope,
        has_nope: true,
        ..LLAMA
    },
];

impl Family {
    /// The family that a configuration names.
    pub(super) fn of(fields: &Fields<'_>) -> Result<&'static Self, ConfigErrorKind> {
        let value = fields.value("model_type").ok_or(ConfigErrorKind::Missing("model_type"))?;
        FAMILIES.iter().find(|family| value == family.model_type).ok_or_else(|| {
            let supported: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
            unsupported("model_type", value, &supported.join(", "))
        })
    }

    /// What attention is in each of `n` layers.
    pub(super) fn attention(
        &self,
        fields: &Fields<'_>,
        n: usize,
    ) -> Result<Vec<LayerAttention>, ConfigErrorKind> {
        let is_rotary = self.rotary_layers(fields, n)?;
        let windows = self.windows(fields, &is_rotary)?;
        let layers = is_rotary.into_iter().zip(windows);
        Ok(layers.map(|(is_rotary, window)| LayerAttention { window, is_rotary }).collect())
    }

    fn rotary_layers(&self, fields: &Fields<'_>, n: usize) -> Result<Vec<bool>, ConfigErrorKind> {
        if !self.has_nope {
            return Ok(vec![true; n]);
        }
        let is_one = |value: &serde_json::Value| value.as_u64().map(|number| number != 0);
        let said = fields.by_layer("no_rope_layers", n, "a 0 or 1 for every layer", is_one)?;
        let interval = fields.count_or("no_rope_layer_interval", 4)?;
        let by_interval = || (1..=n).map(|layer| layer % interval != 0).collect();
        Ok(said.unwrap_or_else(by_interval))
    }

    fn windows(
        &self,
        fields: &Fields<'_>,
        is_rotary: &[bool],
    ) -> Result<Vec<Option<usize>>, ConfigErrorKind> {
        const KEY: &str = "sliding_window";
        let n = is_rotary.len();
        let nowhere = vec![None; n];
        if let Window::Never = self.window {
            return fields.only(KEY, &serde_json::Value::Null).map(|()| nowhere);
        }
        let is_everywhere = matches!(self.window, Window::Everywhere);
        let is_off = fields.is_null(KEY)
            || !is_everywhere && !fields.flag_or("use_sliding_window", false)?
            || matches!(self.window, Window::InNope) && fields.value(KEY).is_none();
        if is_off {
            return Ok(nowhere);
        }
        let window = Some(fields.count_or(KEY, 4096)?);
        let first = fields.count_or("max_window_layers", 28)?;
        let by_rule = |layer: usize| match self.window {
            Window::Never => false,
            Window::Everywhere => true,
            Window::Later => layer >= first,
            Window::InNope => !is_rotary[layer],
        };
        // Of this family's models, those that name layers are another family's.
        let is_windowed = if is_everywhere { None } else { layer_types(fields, n)? };
        let is_windowed = is_windowed.unwrap_or_else(|| (0..n).map(by_rule).collect());
        Ok(is_windowed.into_iter().map(|is_windowed| window.filter(|_| is_windowed)).collect())
    }
}

/// Which layers have a window, where they are named one by one.
fn layer_types(fields: &Fields<'_>, n: usize) -> Result<Option<Vec<bool>>, ConfigErrorKind> {
    const EXPECTED: &str = "`full_attention` or `sliding_attention` for every layer";
    fields.by_layer("layer_types", n, EXPECTED, |value| match value.as_str()? {
        "full_attention" => Some(false),
        "sliding_attention" => Some(true),
        _ => None,
    })
}
