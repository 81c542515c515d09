//! The settings of the selection, checked.

use std::collections::BTreeMap;

use super::ConfigError;
use super::check::Settings;
use crate::pool::Source;
use crate::selection::{Budget, Fraction, Normalize, SelectionSettings, Selector, SourceLimits};

impl Settings<'_> {
    pub(super) fn selection(&self) -> Result<SelectionSettings, ConfigError> {
        let raw = self.raw;
        let near_duplicates = self.text("near-duplicates", raw.near_duplicates.as_ref())?;
        let selector = self.selector()?;
        Ok(SelectionSettings {
            selector,
            normalize: self.normalize(selector)?,
            neighbors: self.neighbors()?,
            redundancy_penalty: self.within(
                "redundancy-penalty",
                raw.redundancy_penalty,
                0.0,
                f64::MAX,
            )?,
            limits: self.limits()?,
            near_duplicates: match near_duplicates {
                "keep" => None,
                _ => Some(self.fraction("near-duplicates", near_duplicates, "keep or ")?),
            },
            target_budgets: self.target_budgets()?,
            subset_per_target: self.set("subset-per-target", raw.subset_per_target)?,
            decontaminate_target: self.set("decontaminate-target", raw.decontaminate_target)?,
            decontaminate: self.evaluations()?,
        })
    }

    fn selector(&self) -> Result<Selector, ConfigError> {
        let method = self.method()?;
        if self.raw.selector.as_deref() == Some("auto") {
            return Ok(Selector::by_default(method));
        }
        let selector: Selector =
            self.one_of("selector", self.raw.selector.as_ref(), Selector::CHOICES)?;
        let why = if selector.needs_rows() && !method.takes_gradients() {
            format!("compares gradients of the pool's rows, and method `{method}` takes none")
        } else if selector.needs_examples() && !method.has_target() {
            format!("serves target examples, and method `{method}` does not look at them")
        } else {
            return Ok(selector);
        };
        Err(self.invalid("selector", format!("`{selector}` {why}; `top` goes with every method")))
    }

    fn normalize(&self, selector: Selector) -> Result<Normalize, ConfigError> {
        let normalize =
            self.one_of("normalize", self.raw.normalize.as_ref(), Normalize::CHOICES)?;
        if normalize == Normalize::PerTask && selector == Selector::RoundRobin {
            let message = "puts the scores of subtasks on one scale, and `round-robin` goes by \
                           none; `selector = \"top\"` does";
            return Err(self.invalid("normalize", message.to_owned()));
        }
        Ok(normalize)
    }

    fn neighbors(&self) -> Result<Budget, ConfigError> {
        let text = self.text("neighbors", self.raw.neighbors.as_ref())?;
        let wrong = || {
            let message = format!("`{text}` is neither a share (1%) nor a number of rows");
            self.invalid("neighbors", message)
        };
        let budget = text.parse().map_err(|_| wrong())?;
        if matches!(budget, Budget::Tokens(_)) { Err(wrong()) } else { Ok(budget) }
    }

    fn limits(&self) -> Result<SourceLimits, ConfigError> {
        let shares = |setting: &'static str, value: Option<&Vec<String>>| {
            let share = |text: &str| self.fraction(setting, text, "");
            self.by_name(setting, value, "SOURCE=SHARE", &share)
        };
        let caps = shares("source-cap", self.raw.source_cap.as_ref())?;
        let floors = shares("source-floor", self.raw.source_floor.as_ref())?;
        let above = floors.iter().find(|(source, floor)| {
            caps.get(*source).is_some_and(|cap| cap.value() < floor.value())
        });
        if let Some((source, _)) = above {
            let message = format!("the floor of `{source}` is above its cap");
            return Err(self.invalid("source-floor", message));
        }
        let sum: f64 = floors.values().map(|floor| floor.value()).sum();
        if sum > 1.0 + 1e-9 {
            let message = format!("the floors are {:.1} % of the subset together", 100.0 * sum);
            return Err(self.invalid("source-floor", message));
        }
        Ok(SourceLimits { caps, floors })
    }

    fn target_budgets(&self) -> Result<BTreeMap<String, Budget>, ConfigError> {
        let setting = "target-budget";
        let budget =
            |text: &str| text.parse().map_err(|err| self.invalid(setting, format!("{err}")));
        self.by_name(setting, self.raw.target_budget.as_ref(), "TARGET=BUDGET", &budget)
    }

    fn evaluations(&self) -> Result<Vec<Source>, ConfigError> {
        let paths = self.raw.decontaminate.iter().flatten();
        let sources: Vec<Source> = paths.flat_map(|text| text.parse::<Source>()).collect();
        for source in &sources {
            source
                .check()
                .map_err(|err| self.invalid("decontaminate", super::check::describe(&err)))?;
        }
        Ok(sources)
    }

    /// A share such as `5%` or `0.05`, in `(0, 1]`.
    fn fraction(
        &self,
        setting: &'static str,
        text: &str,
        or: &str,
    ) -> Result<Fraction, ConfigError> {
        match text.parse() {
            Ok(Budget::Fraction(share)) => Ok(share),
            _ => Err(self.invalid(
                setting,
                format!("`{text}` is not {or}a share above 0 up to 100%, such as 20% or 0.2"),
            )),
        }
    }

    /// Entries `NAME=VALUE`, no name twice.
    fn by_name<T>(
        &self,
        setting: &'static str,
        entries: Option<&Vec<String>>,
        form: &str,
        parse: &dyn Fn(&str) -> Result<T, ConfigError>,
    ) -> Result<BTreeMap<String, T>, ConfigError> {
        let mut by_name = BTreeMap::new();
        for entry in entries.into_iter().flatten() {
            let Some((name, value)) = entry.rsplit_once('=').filter(|(name, _)| !name.is_empty())
            else {
                return Err(self.invalid(setting, format!("`{entry}` is not {form}")));
            };
            if by_name.insert(name.to_owned(), parse(value)?).is_some() {
                return Err(self.invalid(setting, format!("`{name}` stands there twice")));
            }
        }
        Ok(by_name)
    }
}
