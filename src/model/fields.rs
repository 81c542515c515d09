//! The settings of a `config.json`, typed on access.

use serde_json::{Map, Value};

use super::config::ConfigErrorKind;

/// A JSON object of settings. `null` counts as absent.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether it says that there is none, which is more than saying nothing.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn invalid(&self, key: &'static str, expected: &'static str) -> ConfigErrorKind {
        let value = self.0.get(key).unwrap_or(&Value::Null).to_string();
        ConfigErrorKind::Invalid { key, value, expected }
    }

    pub(super) fn only(&self, key: &'static str, supported: &Value) -> Result<(), ConfigErrorKind> {
        match self.value(key) {
            Some(value) if !is_same(value, supported) => {
                Err(unsupported(key, value, &supported.to_string()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn count(&self, key: &'static str) -> Result<usize, ConfigErrorKind> {
        let value = self.value(key).ok_or(ConfigErrorKind::Missing(key))?;
        match value.as_u64() {
            // Products of three such numbers stay far below 2^64.
            Some(count @ 1..=0xF_FFFF) => Ok(count as usize),
            _ => Err(self.invalid(key, "a whole number from 1 to 1048575")),
        }
    }

    /// As [`count_or`](Self::count_or), zero included.
    pub(super) fn whole_or(
        &self,
        key: &'static str,
        default: usize,
    ) -> Result<usize, ConfigErrorKind> {
        if self.value(key).and_then(Value::as_u64) == Some(0) {
            Ok(0)
        } else {
            self.count_or(key, default)
        }
    }

    pub(super) fn count_or(
        &self,
        key: &'static str,
        default: usize,
    ) -> Result<usize, ConfigErrorKind> {
        if self.value(key).is_none() { Ok(default) } else { self.count(key) }
    }

    pub(super) fn positive_or(
        &self,
        key: &'static str,
        default: f64,
    ) -> Result<f64, ConfigErrorKind> {
        let Some(value) = self.value(key) else { return Ok(default) };
        positive(value).ok_or_else(|| self.invalid(key, "a positive number"))
    }

    pub(super) fn flag_or(
        &self,
        key: &'static str,
        default: bool,
    ) -> Result<bool, ConfigErrorKind> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, "true or false"))
    }

    /// A list of something for each of `n` layers; `None` if it is absent.
    pub(super) fn by_layer<T>(
        &self,
        key: &'static str,
        n: usize,
        expected: &'static str,
        of: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ConfigErrorKind> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() >= n);
        let own = list.and_then(|list| list[..n].iter().map(of).collect());
        own.map(Some).ok_or_else(|| self.invalid(key, expected))
    }
}

pub(super) fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite() && *number > 0.0)
}

/// Equality in which `0` is `0.0`.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|number| Some(number) == b.as_f64())
}

pub(super) fn unsupported(key: &'static str, value: &Value, supported: &str) -> ConfigErrorKind {
    ConfigErrorKind::Unsupported { key, value: value.to_string(), supported: supported.to_owned() }
}
