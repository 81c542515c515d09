//! What sets a family of models apart from others, and what its `config.json` says.

use serde_json::Value;

use super::DecoderConfig;
use super::architecture::{Activation, NormKind, Placement, QkNorm, Scores};
use super::config::{Biases, ConfigErrorKind, LayerAttention};
use super::families::FAMILIES;
use super::fields::{Fields, unsupported};
use super::joined::Joined;
use super::names::Names;
use super::rope::RopeKeys;

/// What sets a family's models apart from other decoders.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) keys: Keys,
    pub(super) names: &'static Names,
    pub(super) joined: Joined,
    pub(super) biases: [Bias; 3],
    pub(super) norm: NormKind,
    pub(super) norm_eps: f64,
    pub(super) placement: Placement,
    pub(super) qk_norm: Option<QkNorm>,
    pub(super) activation: Activation,
    /// Key and value heads where nothing is said; `None` is as many as query heads.
    pub(super) n_kv_heads: Option<usize>,
    /// Width of the MLP over that of the residual stream, where it need not be said.
    pub(super) mlp_ratio: Option<usize>,
    /// Width of a head; `None` is the residual stream's over the heads.
    pub(super) head_dim: Option<usize>,
    /// None where positions are learned.
    pub(super) ropes: &'static [RopeKeys],
    pub(super) tied_embeddings: bool,
    pub(super) window: Window,
    /// Whether some layers know no positions (`no_rope_layers`).
    pub(super) has_nope: bool,
    /// Whether embedded tokens are multiplied by the root of their width.
    pub(super) scales_embeddings: bool,
    /// `query_pre_attn_scalar` where nothing is said, if that tells attention's scale.
    pub(super) query_scalar: Option<f64>,
    /// What `gelu` means.
    pub(super) gelu: Activation,
    /// Caps of attention's scores and of logits where nothing is said; `None` where
    /// the family has none.
    pub(super) caps: Option<[Option<f64>; 2]>,
}

/// What a family calls its settings.
pub(super) struct Keys {
    pub(super) hidden_size: &'static str,
    pub(super) n_layers: &'static str,
    pub(super) n_heads: &'static str,
    pub(super) n_kv_heads: &'static str,
    pub(super) intermediate_size: &'static str,
    pub(super) norm_eps: &'static str,
    pub(super) activation: &'static str,
}

/// Whether linear modules add a bias: of queries, keys and values, of attention's
/// output, of the MLP.
#[derive(Clone, Copy)]
pub(super) enum Bias {
    Never,
    Always,
    /// If this flag is set; the value is what it is if it is not there.
    Flag(&'static str, bool),
}

/// Where attention is to the last tokens only, as many as `sliding_window`.
#[derive(Clone, Copy)]
pub(super) enum Window {
    /// Nowhere.
    Never,
    /// In every layer, and this many tokens where nothing is said.
    Everywhere(Option<usize>),
    /// In all layers but every so manyth, as `sliding_window_pattern` has it if not
    /// as here; 4096 tokens where nothing is said.
    Alternating(usize),
    /// In layers from `max_window_layers` on, if `use_sliding_window` is set.
    Later,
    /// In layers that know no positions, if `use_sliding_window` is set.
    InNope,
}

/// More coordinates than any layer has: so products of sizes stay below 2^64.
const MAX_WIDTH: usize = 1 << 20;

pub(super) const FULL_ATTENTION: &str = "full_attention";
pub(super) const SLIDING_ATTENTION: &str = "sliding_attention";

impl Family {
    /// The family that a configuration names.
    pub(super) fn of(fields: &Fields<'_>) -> Result<&'static Self, ConfigErrorKind> {
        let value = fields.value("model_type").ok_or(ConfigErrorKind::Missing("model_type"))?;
        FAMILIES.iter().find(|family| value == family.model_type).ok_or_else(|| {
            let supported: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
            unsupported("model_type", value, &supported.join(", "))
        })
    }

    /// What a configuration of the family says.
    pub(super) fn config(
        &'static self,
        fields: &Fields<'_>,
    ) -> Result<DecoderConfig, ConfigErrorKind> {
        refuse_unsupported(fields)?;
        let keys = &self.keys;
        let hidden_size = fields.count(keys.hidden_size)?;
        let n_heads = fields.count(keys.n_heads)?;
        let n_layers = self.n_layers(fields)?;
        let head_dim = self.head_dim.unwrap_or(hidden_size / n_heads);
        let head_dim = fields.count_or("head_dim", head_dim.max(1))?;
        if !head_dim.is_multiple_of(2) || n_heads * head_dim > MAX_WIDTH {
            return Err(fields.invalid("head_dim", "an even number, at most 2^20 of all heads"));
        }
        let bias = |bias| match bias {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Flag(key, default) => fields.flag_or(key, default),
        };
        let [qkv, output, mlp] = self.biases.map(bias);
        let [attention_cap, logit_cap] = self.caps(fields)?;
        let scale = self.scale(fields, head_dim)?;
        let ropes = self.ropes.iter().map(|keys| keys.read(fields, head_dim));
        Ok(DecoderConfig {
            vocab_size: fields.count("vocab_size")?,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads: self.n_kv_heads(fields, n_heads)?,
            head_dim,
            intermediate_size: self.intermediate_size(fields, hidden_size)?,
            norm: self.norm,
            norm_eps: fields.positive_or(keys.norm_eps, self.norm_eps)?,
            placement: self.placement(fields)?,
            qk_norm: self.qk_norm,
            activation: self.activation(fields)?,
            scores: Scores { scale, cap: attention_cap },
            logit_cap,
            embedding_scale: self.scales_embeddings.then(|| (hidden_size as f64).sqrt()),
            n_positions: self.n_positions(fields)?,
            ropes: ropes.collect::<Result<_, _>>()?,
            attention: self.attention(fields, n_layers)?,
            tied_embeddings: fields.flag_or("tie_word_embeddings", self.tied_embeddings)?,
            biases: Biases { qkv: qkv?, output: output?, mlp: mlp? },
            joined: self.joined,
            names: self.names,
        })
    }

    /// Every layer has names of its own in memory, so a number that no model has is
    /// refused before they are made.
    fn n_layers(&self, fields: &Fields<'_>) -> Result<usize, ConfigErrorKind> {
        let count = fields.count(self.keys.n_layers)?;
        let fits = count <= 4096;
        fits.then_some(count).ok_or_else(|| fields.invalid(self.keys.n_layers, "at most 4096"))
    }

    /// `null` is more than nothing: as many as query heads in every family.
    fn n_kv_heads(&self, fields: &Fields<'_>, n_heads: usize) -> Result<usize, ConfigErrorKind> {
        let key = self.keys.n_kv_heads;
        let default = self.n_kv_heads.filter(|_| !fields.is_null(key));
        fields.count_or(key, default.unwrap_or(n_heads))
    }

    fn intermediate_size(
        &self,
        fields: &Fields<'_>,
        hidden_size: usize,
    ) -> Result<usize, ConfigErrorKind> {
        let key = self.keys.intermediate_size;
        let own = |ratio| fields.count_or(key, ratio * hidden_size);
        self.mlp_ratio.map_or_else(|| fields.count(key), own)
    }

    fn has_learned_positions(&self) -> bool {
        self.ropes.is_empty()
    }

    fn n_positions(&self, fields: &Fields<'_>) -> Result<Option<usize>, ConfigErrorKind> {
        let count = || fields.count_or("n_positions", 1024);
        self.has_learned_positions().then(count).transpose()
    }

    fn placement(&self, fields: &Fields<'_>) -> Result<Placement, ConfigErrorKind> {
        let is_parallel = self.placement == Placement::Parallel;
        let one_after_the_other = is_parallel && !fields.flag_or("use_parallel_residual", true)?;
        Ok(if one_after_the_other { Placement::Before } else { self.placement })
    }

    fn activation(&self, fields: &Fields<'_>) -> Result<Activation, ConfigErrorKind> {
        let key = self.keys.activation;
        let Some(value) = fields.value(key) else { return Ok(self.activation) };
        let known = Activation::NAMES;
        let named = known.iter().find(|(name, _)| value == name).map(|(_, activation)| *activation);
        let named = if named == Some(Activation::Gelu) { Some(self.gelu) } else { named };
        named.ok_or_else(|| unsupported(key, value, &known.map(|(name, _)| name).join(", ")))
    }

    /// What products of queries and keys are multiplied by.
    fn scale(&self, fields: &Fields<'_>, head_dim: usize) -> Result<f64, ConfigErrorKind> {
        let scalar = match self.query_scalar {
            Some(default) => fields.positive_or("query_pre_attn_scalar", default)?,
            None => head_dim as f64,
        };
        Ok(scalar.sqrt().recip())
    }

    fn caps(&self, fields: &Fields<'_>) -> Result<[Option<f64>; 2], ConfigErrorKind> {
        let Some([attention, logit]) = self.caps else { return Ok([None, None]) };
        let cap = |key, default: Option<f64>| match (fields.is_null(key), fields.value(key)) {
            (true, _) => Ok(None),
            (_, None) => Ok(default),
            (_, Some(_)) => fields.positive_or(key, 1.0).map(Some),
        };
        Ok([cap("attn_logit_softcapping", attention)?, cap("final_logit_softcapping", logit)?])
    }

    /// What attention is in each of `n` layers.
    fn attention(
        &self,
        fields: &Fields<'_>,
        n: usize,
    ) -> Result<Vec<LayerAttention>, ConfigErrorKind> {
        let is_rotary = self.rotary_layers(fields, n)?;
        let is_sliding = self.sliding_layers(fields, &is_rotary)?;
        let window = self.window(fields)?;
        let layers = is_rotary.into_iter().zip(is_sliding);
        let layer = |(is_rotary, is_sliding): (bool, bool)| LayerAttention {
            window: window.filter(|_| is_sliding),
            // Of two ropes the second is that of layers with a window.
            rope: is_rotary.then_some(usize::from(is_sliding && self.ropes.len() > 1)),
        };
        Ok(layers.map(layer).collect())
    }

    fn rotary_layers(&self, fields: &Fields<'_>, n: usize) -> Result<Vec<bool>, ConfigErrorKind> {
        if !self.has_nope {
            return Ok(vec![!self.has_learned_positions(); n]);
        }
        let is_one = |value: &Value| value.as_u64().map(|number| number != 0);
        let said = fields.by_layer("no_rope_layers", n, "a 0 or 1 for every layer", is_one)?;
        let interval = fields.count_or("no_rope_layer_interval", 4)?;
        let by_interval = || (1..=n).map(|layer| layer % interval != 0).collect();
        Ok(said.unwrap_or_else(by_interval))
    }

    /// How many tokens a token sees in layers with a window, if any have one.
    fn window(&self, fields: &Fields<'_>) -> Result<Option<usize>, ConfigErrorKind> {
        const KEY: &str = "sliding_window";
        let is_on = || fields.flag_or("use_sliding_window", false);
        let default = match self.window {
            Window::Never => return fields.only(KEY, &Value::Null).map(|()| None),
            Window::Later | Window::InNope if !is_on()? => return Ok(None),
            Window::Everywhere(default) => default,
            Window::Alternating(_) | Window::Later => Some(4096),
            Window::InNope => None,
        };
        if fields.is_null(KEY) {
            return Ok(None);
        }
        if fields.value(KEY).is_none() { Ok(default) } else { fields.count(KEY).map(Some) }
    }

    fn sliding_layers(
        &self,
        fields: &Fields<'_>,
        is_rotary: &[bool],
    ) -> Result<Vec<bool>, ConfigErrorKind> {
        let n = is_rotary.len();
        let by_rule = match self.window {
            // Of these families' models, those that name layers are another family's.
            Window::Never => return Ok(vec![false; n]),
            Window::Everywhere(_) => return Ok(vec![true; n]),
            Window::Alternating(every) => {
                let every = fields.count_or("sliding_window_pattern", every)?;
                (1..=n).map(|layer| layer % every != 0).collect()
            }
            Window::Later => {
                let first = fields.whole_or("max_window_layers", 28)?;
                (0..n).map(|layer| layer >= first).collect()
            }
            Window::InNope => is_rotary.iter().map(|is_rotary| !is_rotary).collect(),
        };
        Ok(layer_types(fields, n)?.unwrap_or(by_rule))
    }
}

/// Every setting that changes what a decoder computes in a way that this one does
/// not know, family or not.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ConfigErrorKind> {
    fields.only("use_bidirectional_attention", &Value::from(false))?;
    fields.only("add_cross_attention", &Value::from(false))?;
    fields.only("scale_attn_weights", &Value::from(true))?;
    fields.only("scale_attn_by_inverse_layer_idx", &Value::from(false))?;
    fields.only("quantization_config", &Value::Null)
}

/// Which layers have a window, where they are named one by one.
fn layer_types(fields: &Fields<'_>, n: usize) -> Result<Option<Vec<bool>>, ConfigErrorKind> {
    const EXPECTED: &str = "`full_attention` or `sliding_attention` for every layer";
    fields.by_layer("layer_types", n, EXPECTED, |value| match value.as_str()? {
        FULL_ATTENTION => Some(false),
        SLIDING_ATTENTION => Some(true),
        _ => None,
    })
}
