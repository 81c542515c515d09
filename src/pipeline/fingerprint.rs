//! What each stage's output depends on.
//!
//! A stage is run again exactly when its [`StageInputs`] change, and then the
//! reason can be named, because they are kept in full.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::PipelineError;
use super::checksums::Checksums;
use super::manifest::Manifest;
use crate::checkpoint::{Checkpoint, checkpoints_in};
use crate::config::Config;
use crate::model::shards;
use crate::pool::{ChatEncoder, EncodingSettings, TemplateSource};
use crate::stage::Stage;

/// Everything that decides a stage's output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StageInputs {
    /// Raised when the stage's code changes what it writes.
    pub code_version: u32,
    /// The settings that matter to it.
    pub settings: Map<String, Value>,
    /// Checksums of what it reads.
    pub files: BTreeMap<String, String>,
}

impl StageInputs {
    /// A hash of all of it, 32 hex digits.
    ///
    /// # Panics
    ///
    /// Never: the fields are plain JSON.
    pub fn fingerprint(&self) -> String {
        let text = serde_json::to_vec(self).expect("plain JSON");
        blake3::hash(&text).to_hex()[..32].to_owned()
    }

    /// Names what differs from an earlier run's inputs, for people.
    pub fn difference(&self, earlier: &Self) -> String {
        let mut changes = Vec::new();
        let earlier_settings = leaves(&earlier.settings);
        for (name, value) in leaves(&self.settings) {
            match earlier_settings.get(name) {
                Some(old) if *old == value => {}
                Some(old) => changes.push(format!("{name} changed from {old} to {value}")),
                None => changes.push(format!("{name} is new")),
            }
        }
        for (name, checksum) in &self.files {
            match earlier.files.get(name) {
                Some(old) if old == checksum => {}
                Some(_) => changes.push(format!("{name} changed")),
                None => changes.push(format!("{name} is new")),
            }
        }
        let gone = earlier.files.keys().filter(|name| !self.files.contains_key(*name));
        changes.extend(gone.map(|name| format!("{name} is gone")));
        if self.code_version != earlier.code_version {
            changes.push("the program changed".to_owned());
        }
        let more = changes.len().saturating_sub(3);
        changes.truncate(3);
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        changes.join(", ")
    }
}

/// Settings by their own names, whatever group they stand in.
fn leaves(settings: &Map<String, Value>) -> BTreeMap<&str, &Value> {
    let mut found = BTreeMap::new();
    for (name, value) in settings {
        match value {
            Value::Object(group) => found.extend(leaves(group)),
            _ => {
                found.insert(name.as_str(), value);
            }
        }
    }
    found
}

/// What `stage` depends on, given that the stages before it are complete in
/// `manifest`.
///
/// # Errors
///
/// If an input cannot be read.
pub fn inputs_of(
    stage: Stage,
    config: &Config,
    manifest: &Manifest,
    checksums: &mut Checksums,
) -> Result<StageInputs, PipelineError> {
    let Value::Object(settings) = settings_of(stage, config) else {
        unreachable!("settings are written as an object")
    };
    let mut files = BTreeMap::new();
    let mut outputs_of = |stage: Stage, wanted: &dyn Fn(&str) -> bool| {
        let record = manifest.stages.get(&stage);
        let outputs = record.into_iter().flat_map(|record| &record.outputs);
        files.extend(outputs.filter(|(name, _)| wanted(name)).map(|(n, c)| (n.clone(), c.clone())));
    };
    let any = |_: &str| true;
    let tables = |name: &str| name.ends_with(".parquet");
    match stage {
        Stage::Ingest => {}
        Stage::Warmup => outputs_of(Stage::Ingest, &|name| name == "pool/pool.parquet"),
        Stage::FirstPass => outputs_of(Stage::Ingest, &tables),
        Stage::Gradients => {
            outputs_of(Stage::Ingest, &tables);
            outputs_of(Stage::Warmup, &any);
        }
        Stage::Index => {
            outputs_of(Stage::Gradients, &|name| name.contains("/target/"));
            outputs_of(Stage::Ingest, &|name| name == "pool/target.parquet");
        }
        Stage::Score if !config.method.takes_gradients() => {
            outputs_of(Stage::Ingest, &tables);
            outputs_of(Stage::FirstPass, &|_| config.method.takes_first_pass());
        }
        Stage::Score => {
            outputs_of(Stage::Gradients, &|name| name.contains("/pool/"));
            outputs_of(Stage::Index, &any);
            // The learning rates that weigh the checkpoints.
            outputs_of(Stage::Warmup, &|name| name.ends_with("trainer_state.json"));
        }
        Stage::Select => {
            let selector = config.selection.selector;
            let is_read = |name: &str| name.ends_with(".parquet") || selector.needs_examples();
            outputs_of(Stage::Score, &is_read);
            outputs_of(Stage::Ingest, &tables);
            if selector.needs_rows() {
                outputs_of(Stage::Gradients, &|name| name.contains("/pool/"));
                outputs_of(Stage::Warmup, &|name| name.ends_with("trainer_state.json"));
            }
        }
        Stage::Report => {
            outputs_of(Stage::Select, &any);
            outputs_of(Stage::Score, &any);
            outputs_of(Stage::Ingest, &any);
            if config.method.takes_gradients() {
                // How steady the ranking is comes from the stored rows.
                outputs_of(Stage::Gradients, &|name| name.contains("/pool/"));
                outputs_of(Stage::Index, &any);
                outputs_of(Stage::Warmup, &|name| name.ends_with("trainer_state.json"));
            }
        }
    }
    if config.cascade.is_some() && reads_cascade(stage) {
        outputs_of(Stage::FirstPass, &any);
    }
    outside_inputs(stage, config, checksums, &mut files)?;
    Ok(StageInputs { code_version: code_version(stage), settings, files })
}

/// Whether a stage looks up which rows the first pass let through.
fn reads_cascade(stage: Stage) -> bool {
    matches!(stage, Stage::Gradients | Stage::Score | Stage::Report)
}

/// A hash of what the gradients at one checkpoint are of: the model, that
/// checkpoint's adapter and optimizer state, and the precision. The examples,
/// the projection and the store have their own.
///
/// # Errors
///
/// If a file of the checkpoint cannot be read.
pub fn gradient_fingerprint(
    inputs: &StageInputs,
    checkpoint: &Checkpoint,
    checksums: &mut Checksums,
) -> io::Result<String> {
    let is_of_model = |name: &str| name.starts_with("model ");
    let model: Vec<_> = inputs.files.iter().filter(|(name, _)| is_of_model(name)).collect();
    let mut adapter = Vec::new();
    for path in checkpoint.files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The log weighs a checkpoint; no gradient depends on it.
        if name != "trainer_state.json" {
            adapter.push((name, checksums.of(&path)?));
        }
    }
    let dtype = inputs.settings.get("dtype");
    let random = inputs.settings.get("random-weights");
    let text = json!([inputs.code_version, dtype, random, model, adapter]).to_string();
    Ok(blake3::hash(text.as_bytes()).to_hex()[..32].to_owned())
}

/// Raise a stage's number whenever its code changes what it writes.
fn code_version(stage: Stage) -> u32 {
    match stage {
        Stage::Ingest | Stage::Warmup | Stage::Gradients | Stage::Score => 2,
        Stage::Select | Stage::Report => 3,
        Stage::FirstPass | Stage::Index => 1,
    }
}

/// The settings that decide a stage's output.
fn settings_of(stage: Stage, config: &Config) -> Value {
    // Every field by name: a new setting does not compile until someone
    // decides which stages it changes.
    let Config {
        model: _, // by its files' checksums
        random_weights,
        ingest, // sources by their files' checksums
        checkpoints,
        rewarm_growth: _, // says whether a difference matters
        warmup,
        lora,
        gradients, // stored in one order, scored in theirs: the first one ranks
        method,
        cascade,
        gradient_store: _, // where, not what
        projection,
        store_dtype,
        shard_rows,
        aggregations,
        precondition,
        budget,
        selection,
        schema,
        report_rows,
        compute,
        devices: _,
        device_memory: _,
        seed,
        raw: _,
        origins: _,
    } = config;
    // Device, threads and batch size change when and where, not what, but for
    // rounding and for what dropout hides in the warm-up.
    let dtype = compute.precision();
    match stage {
        Stage::Ingest => {
            let EncodingSettings { chat_template, loss_turns, max_tokens } = &ingest.encoding;
            json!({
                "columns": ingest.columns, "chat-template": template_name(chat_template),
                "loss-turns": loss_turns, "max-tokens": max_tokens, "max-rejects": ingest.max_rejects,
            })
        }
        Stage::Warmup if checkpoints.is_some() => json!({}),
        Stage::Warmup => json!({
            "warmup": warmup, "lora": lora, "dtype": dtype, "seed": seed, "random-weights": random_weights,
        }),
        Stage::FirstPass => json!({
            "first-pass": config.first_pass(), "dtype": dtype, "random-weights": random_weights,
        }),
        Stage::Gradients => json!({
            "cascade": cascade, "gradient": config.stored_kinds(), "projection": projection, "store-dtype": store_dtype,
            "shard-rows": shard_rows, "dtype": dtype, "seed": seed, "random-weights": random_weights,
        }),
        Stage::Index => json!({}),
        Stage::Score if method.takes_gradients() => {
            json!({
                "method": method, "gradient": gradients, "aggregation": aggregations,
                "precondition": precondition,
            })
        }
        Stage::Score if method.is_drawn() => json!({ "method": method, "seed": seed }),
        Stage::Score => json!({ "method": method }),
        Stage::Report if method.takes_gradients() => json!({
            "method": method, "gradient": gradients, "aggregation": aggregations, "seed": seed,
            "report-rows": report_rows,
        }),
        Stage::Report => json!({ "method": method, "seed": seed, "report-rows": report_rows }),
        Stage::Select => json!({
            "method": method, "budget": budget.to_string(), "selection": selection.portable(),
            "schema": schema,
        }),
    }
}

/// Checksums of what a stage reads from outside the run directory.
fn outside_inputs(
    stage: Stage,
    config: &Config,
    checksums: &mut Checksums,
    files: &mut BTreeMap<String, String>,
) -> Result<(), PipelineError> {
    match stage {
        Stage::Ingest => {
            for (split, sources) in
                [("pool", &config.ingest.pool), ("target", &config.ingest.target)]
            {
                for source in sources {
                    let found = source.checksums(|path| checksums.of(path))?;
                    files.extend(
                        found.into_iter().map(|(file, sum)| (format!("{split} {file}"), sum)),
                    );
                }
            }
            if let TemplateSource::File(path) = &config.ingest.encoding.chat_template {
                files.insert("chat template".to_owned(), checksums.of(path)?);
            }
            Ok(add_folder("model", &config.model, ChatEncoder::reads, checksums, files)?)
        }
        Stage::FirstPass => add_weights(config, checksums, files),
        Stage::Warmup | Stage::Gradients => {
            add_weights(config, checksums, files)?;
            add_own_checkpoints(config, checksums, files)
        }
        Stage::Score | Stage::Report if config.method.takes_gradients() => {
            add_own_checkpoints(config, checksums, files)
        }
        Stage::Select => {
            for source in &config.selection.decontaminate {
                let found = source.checksums(|path| checksums.of(path))?;
                let named =
                    found.into_iter().map(|(file, sum)| (format!("evaluation {file}"), sum));
                files.extend(named);
            }
            Ok(())
        }
        Stage::Score | Stage::Index | Stage::Report => Ok(()),
    }
}

/// Adds checkpoints that the user brought, as far as they are read: a trainer's
/// folder holds more, and may be at work.
fn add_own_checkpoints(
    config: &Config,
    checksums: &mut Checksums,
    files: &mut BTreeMap<String, String>,
) -> Result<(), PipelineError> {
    let Some(dir) = &config.checkpoints else { return Ok(()) };
    for checkpoint in checkpoints_in(dir)? {
        for path in checkpoint.files() {
            let name = path.strip_prefix(dir).unwrap_or(&path).components();
            let words: Vec<_> = name.map(|part| part.as_os_str().to_string_lossy()).collect();
            files.insert(format!("checkpoint {}", words.join(" ")), checksums.of(&path)?);
        }
    }
    Ok(())
}

/// A template's name; a file is known by its content.
fn template_name(source: &TemplateSource) -> String {
    match source {
        TemplateSource::File(_) => "file".to_owned(),
        named => named.to_string(),
    }
}

/// Checksums of the model's configuration and weights.
///
/// # Errors
///
/// If one cannot be read.
pub fn model_files(
    config: &Config,
    checksums: &mut Checksums,
) -> Result<BTreeMap<String, String>, PipelineError> {
    let mut files = BTreeMap::new();
    add_weights(config, checksums, &mut files)?;
    Ok(files)
}

/// Adds the model's configuration and the files that its weights are read from.
fn add_weights(
    config: &Config,
    checksums: &mut Checksums,
    files: &mut BTreeMap<String, String>,
) -> Result<(), PipelineError> {
    let mut paths = vec![config.model.join("config.json")];
    match config.random_weights {
        None => paths.extend(shards::paths(&config.model)?),
        Some(_) if config.model.is_file() => paths.push(config.model.clone()),
        Some(_) => {}
    }
    for path in paths.iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.insert(format!("model {name}"), checksums.of(path)?);
    }
    Ok(())
}

/// Adds the wanted files of `dir` and its subfolders, named `LABEL PATH`; all of a
/// model that is one file.
fn add_folder(
    label: &str,
    dir: &Path,
    wanted: fn(&str) -> bool,
    checksums: &mut Checksums,
    files: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    if dir.is_file() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        files.insert(format!("{label} {name}"), checksums.of(dir)?);
        return Ok(());
    }
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            add_folder(&format!("{label} {name}"), &path, wanted, checksums, files)?;
        } else if wanted(&name) {
            files.insert(format!("{label} {name}"), checksums.of(&path)?);
        }
    }
    Ok(())
}
