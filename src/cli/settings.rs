//! From the command line to settings, and `less-select config`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, json};

use super::Answer;
use super::args::{Cli, Command};
use super::exit::{self, CliError};
use crate::checkpoint::{self, Checkpoint};
use crate::config::Config;
use crate::config::layers::{self, Layer, Origin};
use crate::method::Method;
use crate::progress::Observer;
use crate::run_dir::RunDir;

/// Variables that are not settings.
const OTHER_VARIABLES: [&str; 4] =
    ["LESS_SELECT_RUN", "LESS_SELECT_PIPELINE", "LESS_SELECT_CACHE", "LESS_SELECT_METRICS"];

/// Joins the layers the command line names, and checks them.
#[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "nothing to tell of"))]
pub(super) fn resolve(cli: &Cli, observer: &dyn Observer) -> Result<Config, CliError> {
    refuse_unknown_variables()?;
    let mut layers = vec![Layer::default_pipeline()];
    if continues_a_run(cli.command.as_ref()) {
        layers.extend(Layer::run(&RunDir::new(&cli.place.run).config())?);
    }
    if let Some(pipeline) = &cli.place.pipeline {
        layers.push(Layer::pipeline(pipeline)?);
    }
    layers.extend(cli.layers());
    if lack_moments(&layers) {
        exit::warn(
            "the checkpoints have no optimizer state, so that gradients are plain (`--gradient \
             sgd`), which is not what LESS does; without --checkpoints a warm-up is trained",
        );
        layers.push(Layer::without_moments());
    }
    #[cfg(feature = "hub")]
    if !cli.work.dry_run && !matches!(cli.command, Some(Command::Config | Command::Status)) {
        super::hub::fetch(&layers, observer)?;
    }
    Ok(Config::resolve(&layers)?)
}

/// Whether gradients are by default of a kind for which the checkpoints that are given
/// have nothing. Of some that have and some that have not, the stage tells.
fn lack_moments(layers: &[Layer]) -> bool {
    let (raw, origins) = layers::join(layers);
    let is_default = origins.get("gradient") == Some(&Origin::Default);
    let method = raw.method.as_deref().map(str::parse::<Method>);
    let takes_gradients = method.is_some_and(|method| method.is_ok_and(Method::takes_gradients));
    let Some(dir) = raw.checkpoints.filter(|_| is_default && takes_gradients) else {
        return false;
    };
    // What is wrong with a checkpoint is told by whoever reads it.
    let checkpoints = checkpoint::checkpoints_in(Path::new(&dir)).unwrap_or_default();
    !checkpoints.is_empty() && !checkpoints.iter().any(Checkpoint::has_optimizer_state)
}

/// Whether a command works on what a run already is.
fn continues_a_run(command: Option<&Command>) -> bool {
    !matches!(command, None | Some(Command::Plan | Command::Config | Command::Doctor { .. }))
}

/// A mistyped variable would otherwise be a setting silently ignored.
fn refuse_unknown_variables() -> Result<(), CliError> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("LESS_SELECT_")) {
        let setting = name["LESS_SELECT_".len()..].to_lowercase().replace('_', "-");
        let known = layers::setting_names().contains(&setting);
        if !known && !OTHER_VARIABLES.contains(&name.as_str()) {
            let nearest = layers::nearest_setting(&setting).map(|near| variable(&near));
            let hint = nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(CliError::UnknownVariable { name, hint });
        }
    }
    Ok(())
}

fn variable(setting: &str) -> String {
    format!("LESS_SELECT_{}", setting.to_uppercase().replace('-', "_"))
}

/// `less-select config`: a TOML file that says who set what.
pub(super) fn show(config: &Config) -> Answer {
    let mut text = String::new();
    let mut json = Map::new();
    for line in config.to_toml().lines() {
        let name = line.split(" = ").next().unwrap_or_default();
        let origin = config.origins.get(name).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{line:<50} # {origin}");
    }
    for (name, value) in layers::to_map(&config.raw) {
        let origin = config.origins.get(&name).map(ToString::to_string);
        json.insert(name, json!({ "value": value, "origin": origin }));
    }
    Answer::done(text, json.into())
}
