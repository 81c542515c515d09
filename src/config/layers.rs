//! Where settings come from, and which one wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{ConfigError, RawConfig};
use crate::gradient::direction::GradientKind;

/// The embedded `pipelines/default.toml`: every setting with its default.
pub const DEFAULT_PIPELINE: &str = include_str!("../../pipelines/default.toml");

/// Pipelines that ship with the program, by name.
const NAMED_PIPELINES: [(&str, &str); 2] =
    [("default", DEFAULT_PIPELINE), ("llama2-7b", include_str!("../../pipelines/llama2-7b.toml"))];

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded default.
    Default,
    /// The settings a run was started with.
    Run(PathBuf),
    /// A pipeline file or a named pipeline.
    Pipeline(String),
    /// An environment variable.
    Environment,
    /// A flag.
    Flag,
    /// Checkpoints that have no state of an optimizer.
    Checkpoints,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Run(path) => write!(f, "{}", path.display()),
            Self::Pipeline(name) => write!(f, "pipeline {name}"),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
            Self::Checkpoints => f.write_str("checkpoints without optimizer state"),
        }
    }
}

/// One source of settings.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Who speaks.
    pub origin: Origin,
    /// What is said.
    pub raw: RawConfig,
}

impl Layer {
    /// The embedded default.
    ///
    /// # Panics
    ///
    /// If the embedded file is wrong, which a test rules out.
    pub fn default_pipeline() -> Self {
        let raw = parse("default.toml", DEFAULT_PIPELINE).expect("the embedded default is tested");
        Self { origin: Origin::Default, raw }
    }

    /// A pipeline that ships with the program, or a TOML file.
    ///
    /// # Errors
    ///
    /// If there is no such pipeline or file, or it holds an unknown key or a
    /// value of the wrong type; the message gives file, line and the nearest
    /// right name.
    pub fn pipeline(name_or_path: &str) -> Result<Self, ConfigError> {
        let origin = Origin::Pipeline(name_or_path.to_owned());
        let named = NAMED_PIPELINES.iter().find(|(name, _)| *name == name_or_path);
        let raw = if let Some((name, text)) = named {
            parse(name, text)?
        } else {
            read(&pipeline_path(name_or_path)?)?
        };
        Ok(Self { origin, raw })
    }

    /// What stands for the default where checkpoints have no optimizer's moments:
    /// plain gradients.
    pub fn without_moments() -> Self {
        let gradient = Some(vec![GradientKind::Sgd.to_string()]);
        Self { origin: Origin::Checkpoints, raw: RawConfig { gradient, ..RawConfig::default() } }
    }

    /// The settings a run directory was started with, if it has any.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn run(config: &Path) -> Result<Option<Self>, ConfigError> {
        if !config.is_file() {
            return Ok(None);
        }
        Ok(Some(Self { origin: Origin::Run(config.to_owned()), raw: read(config)? }))
    }
}

/// Finds `NAME.toml` under `pipelines/`, or a path as given.
fn pipeline_path(name_or_path: &str) -> Result<PathBuf, ConfigError> {
    let as_path = PathBuf::from(name_or_path);
    let in_folder = Path::new("pipelines").join(format!("{name_or_path}.toml"));
    [as_path, in_folder].into_iter().find(|path| path.is_file()).ok_or_else(|| {
        ConfigError::NoPipeline {
            name: name_or_path.to_owned(),
            known: NAMED_PIPELINES.map(|(name, _)| name).join(", "),
        }
    })
}

fn read(path: &Path) -> Result<RawConfig, ConfigError> {
    let text = fs_err::read_to_string(path).map_err(ConfigError::Unreadable)?;
    parse(&path.display().to_string(), &text)
}

/// Parses one TOML layer; `file` is only for messages.
///
/// # Errors
///
/// Syntax errors, unknown keys and wrong types, with the line.
pub fn parse(file: &str, text: &str) -> Result<RawConfig, ConfigError> {
    toml::from_str(text).map_err(|err| {
        let span = err.span().unwrap_or(0..0);
        let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
        let nearest = text.get(span).and_then(nearest_setting);
        let message = err.message().lines().next().unwrap_or_default().to_owned();
        // The list of all forty names drowns the one that was meant.
        let message = message.split(", expected one of").next().unwrap_or_default().to_owned();
        ConfigError::File { file: file.to_owned(), line, message, nearest }
    })
}

/// The names of all settings, in the order of their declaration.
pub fn setting_names() -> Vec<String> {
    let all = to_map(&Layer::default_pipeline().raw);
    let without_default = ["checkpoints", "gradient-store", "random-weights"].map(str::to_owned);
    all.into_iter().map(|(name, _)| name).chain(without_default).collect()
}

/// The setting whose name is closest to a mistyped one, if any is close.
pub fn nearest_setting(typed: &str) -> Option<String> {
    let typed = typed.trim().trim_start_matches("--").replace('_', "-");
    setting_names()
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, &name), name))
        .filter(|(closeness, name)| *closeness > 0.8 && *name != typed)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Joins layers, the last one that speaks of a setting winning it.
pub fn join(layers: &[Layer]) -> (RawConfig, BTreeMap<String, Origin>) {
    let mut winners = Map::new();
    let mut origins = BTreeMap::new();
    for layer in layers {
        for (name, value) in to_map(&layer.raw) {
            origins.insert(name.clone(), layer.origin.clone());
            winners.insert(name, value);
        }
    }
    (from_map(winners), origins)
}

/// The settings `map` speaks of, by name.
///
/// # Panics
///
/// If the map did not come from [`to_map`].
pub fn from_map(map: Map<String, Value>) -> RawConfig {
    serde_json::from_value(Value::Object(map)).expect("it came from such a struct")
}

/// What a layer says, by name.
pub fn to_map(raw: &RawConfig) -> Map<String, Value> {
    match serde_json::to_value(raw) {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("a struct of options is a JSON object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(origin: Origin, text: &str) -> Layer {
        Layer { origin, raw: parse("test.toml", text).unwrap() }
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let layers = [
            Layer::default_pipeline(),
            layer(Origin::Pipeline("mine".into()), "budget = 0.1\nseed = 3"),
            layer(Origin::Flag, "budget = \"2000\""),
        ];
        let (raw, origins) = join(&layers);
        assert_eq!((raw.budget.as_deref(), raw.seed), (Some("2000"), Some(3)));
        assert_eq!(origins["budget"], Origin::Flag);
        assert_eq!(origins["seed"], Origin::Pipeline("mine".into()));
        assert_eq!(origins["proj-dim"], Origin::Default);
    }

    #[test]
    fn a_share_of_one_stays_a_share() {
        assert_eq!(parse("x", "budget = 1.0").unwrap().budget.as_deref(), Some("1.0"));
        assert_eq!(parse("x", "budget = 1").unwrap().budget.as_deref(), Some("1"));
    }

    #[test]
    fn an_unknown_key_names_file_line_and_the_nearest_setting() {
        let err = parse("mine.toml", "seed = 1\nbudgt = 0.1\n").unwrap_err();
        insta::assert_snapshot!(err, @"mine.toml:2: unknown field `budgt`; did you mean `budget`?");
    }

    #[test]
    fn every_setting_but_the_optional_ones_has_a_default() {
        let raw = Layer::default_pipeline().raw;
        let unset: Vec<_> = serde_json::to_value(RawConfig {
            checkpoints: Some("x".into()),
            gradient_store: Some("x".into()),
            random_weights: Some(0),
            ..raw
        })
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
        assert_eq!(unset.len(), setting_names().len());
    }
}
