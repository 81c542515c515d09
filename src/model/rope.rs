//! Rotary positions: their frequencies, as `config.json` has them.

use serde_json::Value;

use super::config::ConfigErrorKind;
use super::fields::{Fields, positive, unsupported};

/// How positions turn queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSettings {
    /// Base of the frequencies: that of pair i is theta^(−2i / width).
    pub theta: f64,
    /// How many of a head's first coordinates are turned; even.
    pub width: usize,
    /// How frequencies are changed for texts longer than those of the training.
    pub scaling: RopeScaling,
}

/// How a model's frequencies differ from those of its base (`rope_scaling`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All are divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies are divided by a factor, high ones kept, and
    /// between them it is interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths above `original_length` over this are low.
        low_freq_factor: f64,
        /// Wavelengths below `original_length` over this are high.
        high_freq_factor: f64,
        /// Tokens of the texts of the training.
        original_length: f64,
    },
    /// `YaRN`: as `Llama3`, interpolated over the pairs' numbers, and what is turned
    /// is multiplied (Peng et al., 2023).
    Yarn {
        /// The factor.
        factor: f64,
        /// The pair that turns `beta_fast` times in the texts of the training, up to
        /// which frequencies are kept.
        first: f64,
        /// The pair that turns `beta_slow` times, from which they are divided.
        last: f64,
        /// What is turned is multiplied by this.
        attention_factor: f64,
    },
    /// `LongRoPE`: every pair is divided by a factor of its own, in texts longer than
    /// those of the training by another, and what is turned is multiplied (Ding et
    /// al., 2024).
    LongRope {
        /// Of each pair, in texts of at most `original_length` tokens.
        short: Vec<f64>,
        /// Of each pair, in longer ones.
        long: Vec<f64>,
        /// Tokens of the texts of the training.
        original_length: f64,
        /// What is turned is multiplied by this.
        attention_factor: f64,
    },
}

/// Where a family's `config.json` keeps one of its ropes, before `transformers` 5
/// gathered all in `rope_parameters`.
pub(super) struct RopeKeys {
    /// The layers it turns, where others have another.
    pub(super) layer_type: &'static str,
    pub(super) theta: &'static str,
    pub(super) default_theta: f64,
    /// Which share of a head is turned.
    pub(super) share: &'static str,
    pub(super) default_share: f64,
    /// Whether the family's models turn a part of a head at all.
    pub(super) turns_part: bool,
    /// Whether `rope_scaling` is about it.
    pub(super) is_scaled: bool,
    /// Tokens of the texts of the training where nothing is said, in a family that has
    /// no other scaling than `LongRoPE`, whatever it is called.
    pub(super) long_rope_of: Option<usize>,
}

impl RopeKeys {
    /// The rope of heads of width `head_dim`.
    pub(super) fn read(
        &self,
        fields: &Fields<'_>,
        head_dim: usize,
    ) -> Result<RopeSettings, ConfigErrorKind> {
        let new = fields.value("rope_parameters");
        // Where layers do not differ, it is that of all.
        let of_all = |all| if self.is_scaled { Some(all) } else { None };
        let new = new.and_then(|all| all.get(self.layer_type).or_else(|| of_all(all)));
        let gathered = |name: &str| new.and_then(|rope| rope.get(name));
        let theta = match gathered("rope_theta") {
            Some(value) => positive(value).ok_or_else(|| {
                fields.invalid("rope_parameters", "a positive number as `rope_theta`")
            })?,
            None => fields.positive_or(self.theta, self.default_theta)?,
        };
        let share = match gathered("partial_rotary_factor").and_then(positive) {
            Some(share) => share,
            None => fields.positive_or(self.share, self.default_share)?,
        };
        // The models of other families turn all of it, whatever this says.
        if !self.turns_part && share < 1.0 {
            return Err(unsupported(self.share, &share.into(), "1.0"));
        }
        #[expect(clippy::cast_sign_loss, reason = "both are positive")]
        let width = (head_dim as f64 * share) as usize;
        if share > 1.0 || width == 0 || !width.is_multiple_of(2) {
            return Err(fields.invalid(self.share, "an even share of a head's coordinates"));
        }
        let old = if self.is_scaled { fields.value("rope_scaling") } else { None };
        let scaling = [("rope_parameters", new), ("rope_scaling", old)].map(|(key, rope)| {
            let scaling = rope.map(|rope| {
                Scaling { fields, key, rope, theta, width, long_rope_of: self.long_rope_of }.read()
            });
            scaling.unwrap_or(Ok(RopeScaling::Default))
        });
        let [new, old] = scaling;
        let scaling = match new? {
            RopeScaling::Default => old?,
            scaling => scaling,
        };
        Ok(RopeSettings { theta, width, scaling })
    }
}

/// The object that tells of a scaling, and what that depends on.
struct Scaling<'a> {
    fields: &'a Fields<'a>,
    /// What the object is called.
    key: &'static str,
    rope: &'a Value,
    theta: f64,
    width: usize,
    long_rope_of: Option<usize>,
}

impl Scaling<'_> {
    fn read(&self) -> Result<RopeScaling, ConfigErrorKind> {
        let kind = self.rope.get("rope_type").or_else(|| self.rope.get("type"));
        match kind.and_then(Value::as_str) {
            Some("default") => Ok(RopeScaling::Default),
            None if self.key == "rope_parameters" => Ok(RopeScaling::Default),
            // What Phi-3 called it at first; transformers takes both for it.
            Some("longrope" | "su" | "yarn") if self.long_rope_of.is_some() => self.long_rope(),
            _ if self.long_rope_of.is_some() => {
                Err(unsupported(self.key, self.rope, "`rope_type` default and longrope"))
            }
            Some("linear") => Ok(RopeScaling::Linear { factor: self.number("factor")? }),
            Some("llama3") => self.llama3(),
            Some("longrope") => self.long_rope(),
            Some("yarn") => self.yarn(),
            _ => {
                let known = "`rope_type` default, linear, llama3, longrope and yarn";
                Err(unsupported(self.key, self.rope, known))
            }
        }
    }

    fn llama3(&self) -> Result<RopeScaling, ConfigErrorKind> {
        let factor = self.number("factor")?;
        let low_freq_factor = self.number("low_freq_factor")?;
        let high_freq_factor = self.number("high_freq_factor")?;
        let original_length = self.number("original_max_position_embeddings")?;
        if high_freq_factor <= low_freq_factor {
            return Err(self
                .fields
                .invalid(self.key, "`high_freq_factor` above `low_freq_factor`"));
        }
        Ok(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length })
    }

    fn yarn(&self) -> Result<RopeScaling, ConfigErrorKind> {
        let original_length = self.original_length()?;
        let factor = self.factor(original_length)?;
        let pair_that_turns = |n_times: f64| {
            let n_waves = original_length / (n_times * std::f64::consts::TAU);
            self.width as f64 * n_waves.ln() / (2.0 * self.theta.ln())
        };
        let fast = pair_that_turns(self.optional("beta_fast")?.unwrap_or(32.0));
        let slow = pair_that_turns(self.optional("beta_slow")?.unwrap_or(1.0));
        let is_whole = self.rope.get("truncate").and_then(Value::as_bool).unwrap_or(true);
        let (fast, slow) = if is_whole { (fast.floor(), slow.ceil()) } else { (fast, slow) };
        let (first, last) = (fast.max(0.0), slow.min(self.width as f64 - 1.0));
        // As transformers keeps the two apart.
        let last = if first.to_bits() == last.to_bits() { last + 0.001 } else { last };
        let attention_factor = match self.optional("attention_factor")? {
            Some(own) => own,
            None => self.yarn_attention_factor(factor)?,
        };
        Ok(RopeScaling::Yarn { factor, first, last, attention_factor })
    }

    fn yarn_attention_factor(&self, factor: f64) -> Result<f64, ConfigErrorKind> {
        let by = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
        let (own, all) = (self.optional("mscale")?, self.optional("mscale_all_dim")?);
        Ok(own.zip(all).map_or_else(|| by(1.0), |(own, all)| by(own) / by(all)))
    }

    fn long_rope(&self) -> Result<RopeScaling, ConfigErrorKind> {
        let original_length = self.original_length()?;
        let factor = self.factor(original_length)?;
        let by_length = (1.0 + factor.max(1.0).ln() / original_length.ln()).sqrt();
        Ok(RopeScaling::LongRope {
            short: self.by_pair("short_factor")?,
            long: self.by_pair("long_factor")?,
            original_length,
            attention_factor: self.optional("attention_factor")?.unwrap_or(by_length),
        })
    }

    /// A positive number for every pair of coordinates.
    fn by_pair(&self, name: &str) -> Result<Vec<f64>, ConfigErrorKind> {
        let list = self.rope.get(name).and_then(Value::as_array);
        let numbers = list.and_then(|list| list.iter().map(positive).collect::<Option<Vec<_>>>());
        numbers.filter(|list| list.len() == self.width / 2).ok_or_else(|| {
            let expected = "a positive number in each factor for every pair that is turned";
            self.fields.invalid(self.key, expected)
        })
    }

    /// Tokens of the texts of the training, wherever they are told.
    fn original_length(&self) -> Result<f64, ConfigErrorKind> {
        const KEY: &str = "original_max_position_embeddings";
        match (self.fields.value(KEY), self.long_rope_of, self.optional(KEY)?) {
            (Some(_), ..) => Ok(self.fields.count(KEY)? as f64),
            // Of this family's, transformers does not look at what the rope says.
            (None, Some(default), _) => Ok(default as f64),
            (None, None, Some(own)) => Ok(own),
            (None, None, None) => Ok(self.fields.count("max_position_embeddings")? as f64),
        }
    }

    fn factor(&self, original_length: f64) -> Result<f64, ConfigErrorKind> {
        match self.optional("factor")? {
            Some(factor) => Ok(factor),
            None => Ok(self.fields.count("max_position_embeddings")? as f64 / original_length),
        }
    }

    fn number(&self, name: &str) -> Result<f64, ConfigErrorKind> {
        self.rope.get(name).and_then(positive).ok_or_else(|| self.missing())
    }

    fn optional(&self, name: &str) -> Result<Option<f64>, ConfigErrorKind> {
        let value = self.rope.get(name).filter(|value| !value.is_null());
        value.map(|value| positive(value).ok_or_else(|| self.missing())).transpose()
    }

    fn missing(&self) -> ConfigErrorKind {
        self.fields.invalid(self.key, "positive numbers for what its `rope_type` needs")
    }
}

impl RopeSettings {
    /// Changes unscaled frequencies, in radians a token, as the settings have it for a
    /// text of `n_tokens` (`transformers`, `modeling_rope_utils.py`).
    pub fn scale(&self, frequencies: &mut [f32], n_tokens: usize) {
        for (pair, frequency) in frequencies.iter_mut().enumerate() {
            *frequency = (f64::from(*frequency) * self.kept(pair, *frequency, n_tokens)) as f32;
        }
    }

    /// What is left of the frequency of a pair of coordinates, as a share.
    fn kept(&self, pair: usize, frequency: f32, n_tokens: usize) -> f64 {
        match &self.scaling {
            RopeScaling::Default => 1.0,
            RopeScaling::Linear { factor } => factor.recip(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length } => {
                let n_waves = original_length * f64::from(frequency) / std::f64::consts::TAU;
                let share = (n_waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let share = share.clamp(0.0, 1.0);
                share + (1.0 - share) / factor
            }
            RopeScaling::Yarn { factor, first, last, .. } => {
                let divided = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                divided / factor + (1.0 - divided)
            }
            RopeScaling::LongRope { short, long, .. } => {
                let factors = if self.is_long(n_tokens) { long } else { short };
                factors[pair].recip()
            }
        }
    }

    /// Whether a text of `n_tokens` has other frequencies than a shorter one.
    pub fn is_long(&self, n_tokens: usize) -> bool {
        match &self.scaling {
            RopeScaling::LongRope { original_length, .. } => n_tokens as f64 > *original_length,
            _ => false,
        }
    }

    /// What queries and keys are multiplied by, besides being turned.
    pub fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Yarn { attention_factor, .. }
            | RopeScaling::LongRope { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        }
    }
}
