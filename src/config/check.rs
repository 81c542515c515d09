//! From settings as written to settings that can be run on.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use super::layers::{self, Layer, Origin};
use super::{Config, ConfigError, RawConfig, location};
use crate::checkpoint::LoraSettings;
use crate::compute::{ComputeSettings, Device};
use crate::influence::precondition::Precondition;
use crate::method::Method;
use crate::pool::{
    COLUMN_ROLES, EncodingSettings, IngestSettings, LossTurns, Source, TemplateSource,
};
use crate::projection::ProjectionSettings;
use crate::seed::Seed;
use crate::warmup::WarmupSettings;

impl Config {
    /// Joins layers, lowest first, and checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be run on, with who set it and what would
    /// be right. Files the settings name are looked for, not opened.
    pub fn resolve(layers: &[Layer]) -> Result<Self, ConfigError> {
        let (raw, origins) = layers::join(layers);
        Settings { raw: &raw, origins: &origins }.check().map(|config| Self {
            raw: raw.clone(),
            origins: origins.clone(),
            ..config
        })
    }
}

/// How a model of the hub gets here.
const FETCHING: &str = if cfg!(feature = "hub") {
    "`ORG/NAME` is, where HF_HUB_OFFLINE does not forbid it"
} else {
    "`hf download NAME`; a program that is built with `--features hub` does so itself"
};

/// The joined layers while they are checked.
pub(super) struct Settings<'a> {
    pub(super) raw: &'a RawConfig,
    origins: &'a BTreeMap<String, Origin>,
}

impl Settings<'_> {
    fn check(&self) -> Result<Config, ConfigError> {
        Ok(Config {
            model: self.model()?,
            random_weights: self.raw.random_weights.map(Seed),
            ingest: self.ingest()?,
            checkpoints: self.checkpoints()?,
            warmup: self.warmup()?,
            rewarm_growth: self.share("rewarm-growth", self.raw.rewarm_growth.as_ref(), false)?,
            lora: self.lora()?,
            gradients: self.some_of(
                "gradient",
                self.raw.gradient.as_ref(),
                "adam-v, adam, less-code, sgd",
            )?,
            method: self.method()?,
            cascade: self.cascade()?,
            gradient_store: self.raw.gradient_store.as_ref().map(PathBuf::from),
            projection: self.projection()?,
            store_dtype: self.one_of(
                "store-dtype",
                self.raw.store_dtype.as_ref(),
                "f32, f16, i8, i4 or i1",
            )?,
            shard_rows: self.count("shard-rows", self.raw.shard_rows)?,
            aggregations: self.some_of(
                "aggregation",
                self.raw.aggregation.as_ref(),
                "mean-of-cosines, cosine-of-mean",
            )?,
            precondition: self.precondition()?,
            budget: self.budget()?,
            selection: self.selection()?,
            schema: self.one_of(
                "schema",
                self.raw.schema.as_ref(),
                "messages, messages-only or original",
            )?,
            report_rows: self.set("report-rows", self.raw.report_rows)? as usize,
            compute: self.compute()?,
            devices: self.devices()?,
            device_memory: self.share("device-memory", self.raw.device_memory.as_ref(), false)?,
            seed: Seed(self.set("seed", self.raw.seed)?),
            raw: RawConfig::default(),
            origins: BTreeMap::new(),
        })
    }

    fn model(&self) -> Result<PathBuf, ConfigError> {
        let model = self.text("model", self.raw.model.as_ref())?;
        location::model_dir(model).ok_or_else(|| {
            let cache = location::cache_dir().unwrap_or_default().join("models");
            self.invalid("model", format!(
                "no model `{model}`: it is neither a folder nor a GGUF file, nor in `{}`, nor was it \
                 fetched from the Hugging Face hub ({FETCHING}); `scripts/less-select` fetches the \
                 default model, `--model DIR` names another",
                cache.display()
            ))
        })
    }

    fn ingest(&self) -> Result<IngestSettings, ConfigError> {
        Ok(IngestSettings {
            pool: self.sources("pool", self.raw.pool.as_ref())?,
            target: self.sources("target", self.raw.target.as_ref())?,
            columns: self.columns()?,
            encoding: self.encoding()?,
            max_rejects: self.share("max-rejects", self.raw.max_rejects.as_ref(), true)?,
        })
    }

    fn encoding(&self) -> Result<EncodingSettings, ConfigError> {
        let chat_template = self.one_of(
            "chat-template",
            self.raw.chat_template.as_ref(),
            &TemplateSource::choices(),
        )?;
        if let TemplateSource::File(path) = &chat_template
            && !path.is_file()
        {
            let choices = TemplateSource::choices();
            let message = format!("`{}` is not one of {choices}", path.display());
            return Err(self.invalid("chat-template", message));
        }
        let loss_turns =
            self.one_of("loss-turns", self.raw.loss_turns.as_ref(), LossTurns::CHOICES)?;
        let max_tokens = self.count("max-tokens", self.raw.max_tokens)?.get();
        Ok(EncodingSettings { chat_template, loss_turns, max_tokens })
    }

    fn sources(
        &self,
        setting: &'static str,
        value: Option<&Vec<String>>,
    ) -> Result<Vec<Source>, ConfigError> {
        let sources: Vec<_> =
            value.into_iter().flatten().flat_map(|text| text.parse::<Source>()).collect();
        if sources.is_empty() {
            return Err(
                self.invalid(setting, format!("give at least one `--{setting} [NAME=]PATH`"))
            );
        }
        for source in &sources {
            source.check().map_err(|err| self.invalid(setting, describe(&err)))?;
        }
        Ok(sources)
    }

    fn columns(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        let entries = self.raw.columns.iter().flatten();
        entries
            .map(|entry| match entry.split_once('=') {
                Some((role, column)) if COLUMN_ROLES.contains(&role) && !column.is_empty() => {
                    Ok((role.to_owned(), column.to_owned()))
                }
                _ => Err(self.invalid(
                    "columns",
                    format!(
                        "`{entry}` is not ROLE=COLUMN with a role of {}",
                        COLUMN_ROLES.join(", ")
                    ),
                )),
            })
            .collect()
    }

    fn checkpoints(&self) -> Result<Option<PathBuf>, ConfigError> {
        let Some(dir) = self.raw.checkpoints.as_ref().map(PathBuf::from) else { return Ok(None) };
        if !dir.is_dir() {
            return Err(self.invalid("checkpoints", format!("`{}` is not a folder", dir.display())));
        }
        Ok(Some(dir))
    }

    fn warmup(&self) -> Result<WarmupSettings, ConfigError> {
        Ok(WarmupSettings {
            share: self.share("warmup-share", self.raw.warmup_share.as_ref(), false)?,
            min_rows: self.count("warmup-min-rows", self.raw.warmup_min_rows)?.get(),
            epochs: u32::try_from(self.count("epochs", self.raw.epochs.map(u64::from))?.get())
                .expect("it was one"),
            batch_size: self.count("batch-size", self.raw.batch_size)?.get(),
            learning_rate: self.positive("learning-rate", self.raw.learning_rate)?,
            schedule: self.one_of("schedule", self.raw.schedule.as_ref(), "linear or cosine")?,
            warmup_ratio: self.within("warmup-ratio", self.raw.warmup_ratio, 0.0, 1.0)?,
            weight_decay: self.within("weight-decay", self.raw.weight_decay, 0.0, 10.0)?,
            max_grad_norm: self.positive("max-grad-norm", self.raw.max_grad_norm)?,
        })
    }

    fn lora(&self) -> Result<LoraSettings, ConfigError> {
        let targets = self.set("lora-targets", self.raw.lora_targets.clone())?;
        if targets.is_empty() || targets.iter().any(String::is_empty) {
            return Err(self.invalid("lora-targets", "name at least one module, such as `q_proj`"));
        }
        let dropout = self.within("lora-dropout", self.raw.lora_dropout, 0.0, 1.0)?;
        if dropout >= 1.0 {
            return Err(self.invalid("lora-dropout", "1 would drop everything"));
        }
        Ok(LoraSettings {
            rank: self.count("lora-rank", self.raw.lora_rank)?.get(),
            alpha: self.positive("lora-alpha", self.raw.lora_alpha)?,
            dropout,
            targets,
        })
    }

    pub(super) fn method(&self) -> Result<Method, ConfigError> {
        self.one_of("method", self.raw.method.as_ref(), Method::CHOICES)
    }

    fn cascade(&self) -> Result<Option<f64>, ConfigError> {
        let text = self.text("cascade", self.raw.cascade.as_ref())?;
        if text == "off" {
            return Ok(None);
        }
        let method = self.method()?;
        if !method.takes_gradients() {
            let message = format!(
                "the cascade leaves out gradients, and method `{method}` takes none; it goes with \
                 `--method less`, and `--cascade off` with the others"
            );
            return Err(self.invalid("cascade", message));
        }
        self.share("cascade", self.raw.cascade.as_ref(), false).map(Some)
    }

    /// What it is made from is that of one kind of gradient.
    fn precondition(&self) -> Result<Precondition, ConfigError> {
        let name = "precondition";
        let wanted = "none, pool, whiten or target";
        let precondition: Precondition =
            self.one_of(name, self.raw.precondition.as_ref(), wanted)?;
        let n_gradients = self.raw.gradient.as_ref().map_or(1, Vec::len);
        if precondition != Precondition::None && n_gradients > 1 {
            let message = "it goes with one `--gradient`, not with several".to_owned();
            return Err(self.invalid(name, message));
        }
        if !precondition.is_built_in() {
            let message = "`whiten` and `target` take a program that is built with `--features \
                           linalg`; `pool` does without"
                .to_owned();
            return Err(self.invalid(name, message));
        }
        Ok(precondition)
    }

    fn projection(&self) -> Result<ProjectionSettings, ConfigError> {
        let proj_dim = self.count("proj-dim", self.raw.proj_dim)?.get();
        if !proj_dim.is_power_of_two() || !(64..=1 << 20).contains(&proj_dim) {
            let message = format!("{proj_dim} is not a power of two between 64 and 1048576");
            return Err(self.invalid("proj-dim", message));
        }
        let kind = self.one_of(
            "projection",
            self.raw.projection.as_ref(),
            "sjlt, srht, rademacher or none",
        )?;
        Ok(ProjectionSettings { kind, proj_dim })
    }

    fn budget(&self) -> Result<crate::selection::Budget, ConfigError> {
        let text = self.text("budget", self.raw.budget.as_ref())?;
        text.parse().map_err(|err| self.invalid("budget", format!("{err}")))
    }

    /// In one precision: `auto` settles on one for all of them.
    fn devices(&self) -> Result<Vec<Device>, ConfigError> {
        let names = self.set("devices", self.raw.devices.clone())?;
        let parse = |name: &String| self.parse("devices", name, "auto, cpu or cuda:N");
        let devices = names.iter().map(parse).collect::<Result<Vec<Device>, _>>()?;
        if devices.is_empty() {
            return Err(self.invalid("devices", "name at least one, such as `cpu` or `cuda:0`"));
        }
        let is_cuda = |device: &Device| matches!(device, Device::Cuda(_));
        if devices.iter().any(is_cuda) && !devices.iter().all(is_cuda) {
            let message = "CUDA devices and others side by side differ in their numbers";
            return Err(self.invalid("devices", message));
        }
        Ok(devices)
    }

    fn compute(&self) -> Result<ComputeSettings, ConfigError> {
        Ok(ComputeSettings {
            device: self.devices()?[0],
            dtype: self.one_of("dtype", self.raw.dtype.as_ref(), "auto, f32 or bf16")?,
            threads: NonZeroUsize::new(self.set("threads", self.raw.threads)? as usize),
            batch_tokens: NonZeroUsize::new(
                self.set("batch-tokens", self.raw.batch_tokens)? as usize
            ),
            recompute: self.set("recompute", self.raw.recompute)?,
        })
    }

    pub(super) fn set<T>(&self, setting: &'static str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| self.invalid(setting, "it has no value"))
    }

    pub(super) fn text<'a>(
        &self,
        setting: &'static str,
        value: Option<&'a String>,
    ) -> Result<&'a str, ConfigError> {
        self.set(setting, value.map(String::as_str))
    }

    pub(super) fn one_of<T: FromStr>(
        &self,
        setting: &'static str,
        value: Option<&String>,
        choices: &str,
    ) -> Result<T, ConfigError> {
        self.parse(setting, self.text(setting, value)?, choices)
    }

    /// At least one of `choices`, none of them twice.
    fn some_of<T: FromStr + PartialEq>(
        &self,
        setting: &'static str,
        names: Option<&Vec<String>>,
        choices: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let mut chosen = Vec::new();
        for name in self.set(setting, names)? {
            let one = self.parse(setting, name, choices)?;
            if chosen.contains(&one) {
                return Err(self.invalid(setting, format!("`{name}` stands there twice")));
            }
            chosen.push(one);
        }
        if chosen.is_empty() {
            return Err(self.invalid(setting, format!("name at least one of {choices}")));
        }
        Ok(chosen)
    }

    fn parse<T: FromStr>(
        &self,
        setting: &'static str,
        text: &str,
        choices: &str,
    ) -> Result<T, ConfigError> {
        text.parse().map_err(|_| self.invalid(setting, format!("`{text}` is not one of {choices}")))
    }

    fn count(
        &self,
        setting: &'static str,
        value: Option<u64>,
    ) -> Result<NonZeroUsize, ConfigError> {
        NonZeroUsize::new(self.set(setting, value)? as usize)
            .ok_or_else(|| self.invalid(setting, "it must be at least 1"))
    }

    fn positive(&self, setting: &'static str, value: Option<f64>) -> Result<f64, ConfigError> {
        let number = self.set(setting, value)?;
        if number > 0.0 && number.is_finite() {
            return Ok(number);
        }
        Err(self.invalid(setting, format!("{number} is not above 0")))
    }

    pub(super) fn within(
        &self,
        setting: &'static str,
        value: Option<f64>,
        low: f64,
        high: f64,
    ) -> Result<f64, ConfigError> {
        let number = self.set(setting, value)?;
        if (low..=high).contains(&number) {
            return Ok(number);
        }
        Err(self.invalid(setting, format!("{number} is outside {low} to {high}")))
    }

    /// A share such as `5%` or `0.05`, in `(0, 1]`, or `[0, 1]` where none is fine.
    fn share(
        &self,
        setting: &'static str,
        value: Option<&String>,
        may_be_zero: bool,
    ) -> Result<f64, ConfigError> {
        let text = self.text(setting, value)?;
        let number = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => text.trim().parse(),
        };
        match number {
            Ok(share) if (0.0..=1.0).contains(&share) && (may_be_zero || share > 0.0) => Ok(share),
            _ => Err(self.invalid(setting, format!("`{text}` is not a share such as 5% or 0.05"))),
        }
    }

    pub(super) fn invalid(&self, setting: &'static str, message: impl Into<String>) -> ConfigError {
        let origin = self.origins.get(setting).cloned().unwrap_or(Origin::Default);
        ConfigError::Invalid { setting, origin, message: message.into() }
    }
}

/// An error and its causes in one line.
pub(super) fn describe(err: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(err.source(), |cause| cause.source());
    causes.fold(err.to_string(), |text, cause| format!("{text}: {cause}"))
}
