//! Rotary positions: their frequencies, as `config.json` has them.

use serde_json::Value;

use super::config::ConfigErrorKind;
use super::fields::{Fields, positive, unsupported};

/// How positions turn queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeSettings {
    /// Base of the frequencies: that of pair i of a head of width d is
    /// theta^(−2i / d).
    pub theta: f64,
    /// How frequencies are changed for texts longer than those of the training.
    pub scaling: RopeScaling,
}

/// How a model's frequencies differ from those of its base (`rope_scaling`).
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl RopeSettings {
    /// From where `transformers` 5 (`rope_parameters`) or 4 keeps it.
    pub(super) fn read(fields: &Fields<'_>, default_theta: f64) -> Result<Self, ConfigErrorKind> {
        let theta = match fields.value("rope_parameters").and_then(|rope| rope.get("rope_theta")) {
            Some(value) => positive(value).ok_or_else(|| {
                fields.invalid("rope_parameters", "a positive number as `rope_theta`")
            })?,
            None => fields.positive_or("rope_theta", default_theta)?,
        };
        let scaling = ["rope_parameters", "rope_scaling"].map(|key| scaling(fields, key));
        let [new, old] = scaling;
        let scaling = match new? {
            RopeScaling::Default => old?,
            scaling => scaling,
        };
        Ok(Self { theta, scaling })
    }

    /// Changes unscaled frequencies, in radians a token, as the settings have it
    /// (`transformers`, `modeling_rope_utils.py`).
    pub fn scale(&self, frequencies: &mut [f32]) {
        match self.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => {
                for frequency in frequencies {
                    *frequency /= factor as f32;
                }
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length } => {
                for frequency in frequencies {
                    let n_waves = original_length * f64::from(*frequency) / std::f64::consts::TAU;
                    let share = (n_waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    let share = share.clamp(0.0, 1.0);
                    let kept = share + (1.0 - share) / factor;
                    *frequency = (f64::from(*frequency) * kept) as f32;
                }
            }
        }
    }
}

fn scaling(fields: &Fields<'_>, key: &'static str) -> Result<RopeScaling, ConfigErrorKind> {
    let Some(value) = fields.value(key) else { return Ok(RopeScaling::Default) };
    let number = |name: &str| {
        let expected = "positive numbers for what its `rope_type` needs";
        value.get(name).and_then(positive).ok_or_else(|| fields.invalid(key, expected))
    };
    let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Value::as_str);
    match kind {
        Some("default") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor")? }),
        Some("llama3") => {
            let factor = number("factor")?;
            let low_freq_factor = number("low_freq_factor")?;
            let high_freq_factor = number("high_freq_factor")?;
            let original_length = number("original_max_position_embeddings")?;
            if high_freq_factor <= low_freq_factor {
                return Err(fields.invalid(key, "`high_freq_factor` above `low_freq_factor`"));
            }
            Ok(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_length })
        }
        _ => Err(unsupported(key, value, "`rope_type` default, linear and llama3")),
    }
}
