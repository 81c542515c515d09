//! The `state_dict` of a `torch.optim` optimizer, as `torch.save` wrote it.
//!
//! ```text
//! state         by parameter: step, exp_avg, exp_avg_sq
//! param_groups  betas, eps, and the parameters of each, in order
//! ```
//!
//! A parameter is its number over all groups (PyTorch), or its name (FSDP, and
//! `torch.distributed.checkpoint`). The Trainer makes two groups, parameters
//! with weight decay and those without, and in each has them in the order of
//! the model. Every parameter of an adapter is in the first. LoRA+ (Hayou et
//! al., 2024) makes one of all A and one of all B, for B's larger rate.

use std::collections::BTreeMap;

use super::{OptimizerError, block_wise};
use crate::checkpoint::CheckpointErrorKind;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::params::{Adapted, Found, in_order};
use crate::checkpoint::peft_name::peft_name;
use crate::gradient::direction::{AdamRule, Moments};
use crate::gradient::layout::{Param, ParamLayout};
use crate::torch_file::{Node, TorchFile};

/// What wrote the state and how it calls parameters, and the moments.
pub(super) fn read(
    file: &TorchFile,
    config: &AdapterConfig,
    layout: &ParamLayout,
    adapted: &Adapted,
) -> Result<(&'static str, Moments), CheckpointErrorKind> {
    let root = file.root();
    let (Some(states), Some(groups)) = (root.get("state"), root.get("param_groups")) else {
        let why = "it has no `state` and `param_groups`".to_owned();
        return Err(OptimizerError::NotAdam(why).into());
    };
    let groups: Vec<Node<'_>> = groups.items().into_iter().flatten().collect();
    let constants = constants(&groups)?;
    let params: Vec<&Param> = layout.params().iter().filter(|param| adapted.has(param)).collect();
    let (is_numbered, states) = match named(states)? {
        Some(states) => (false, states),
        None => (true, numbered(states, &groups, &params, config)?),
    };
    let steps = params.iter().filter_map(|param| states.get(&param.name)).map(|state| step(*state));
    let rule = AdamRule { step: same(steps, "steps")?.unwrap_or(0), ..constants };
    if !rule.is_possible() || rule.step == 0 {
        return Err(CheckpointErrorKind::NoRule);
    }
    let moment = |which: Moment| {
        in_order(layout, adapted, which.prefix(), |param| match states.get(&param.name) {
            Some(state) => Ok(Some(which.of(*state, &param.name)?)),
            None => Ok(None),
        })
    };
    let (exp_avg, exp_avg_sq) = (moment(Moment::First)?, moment(Moment::Second)?);
    for param in layout.params() {
        if exp_avg_sq[param.offset..][..param.n_coordinates()].iter().any(|&v| v < 0.0) {
            return Err(OptimizerError::Negative(param.name.clone()).into());
        }
    }
    let is_eight_bit = states.values().any(|state| block_wise::get(*state, "state1").is_some());
    let kind = match (is_eight_bit, is_numbered) {
        (false, true) => "Adam by number",
        (false, false) => "Adam by name",
        (true, true) => "8-bit Adam of bitsandbytes by number",
        (true, false) => "8-bit Adam of bitsandbytes by name",
    };
    Ok((kind, Moments { rule, exp_avg, exp_avg_sq }))
}

/// Betas and ε of the groups that have parameters.
fn constants(groups: &[Node<'_>]) -> Result<AdamRule, CheckpointErrorKind> {
    let has_params = |group: &&Node<'_>| params_of(**group).next().is_some();
    let rules = groups.iter().filter(has_params).map(|group| {
        if group.get("amsgrad").and_then(Node::truth) == Some(true) {
            return Err(OptimizerError::NotAdam("`amsgrad` is on".to_owned()));
        }
        let betas = group.get("betas").and_then(Node::items).into_iter().flatten();
        let betas: Option<Vec<f64>> = betas.map(Node::number).collect();
        match (betas.as_deref(), group.get("eps").and_then(Node::number)) {
            (Some(&[beta1, beta2]), Some(epsilon)) => {
                Ok(AdamRule { beta1, beta2, epsilon, step: 0 })
            }
            _ => Err(OptimizerError::NotAdam("it has no two `betas` and `eps`".to_owned())),
        }
    });
    let rule = same(rules, "betas or epsilons")?;
    let none = || OptimizerError::NotAdam("no parameter is in its groups".to_owned());
    Ok(rule.ok_or_else(none)?)
}

fn params_of(group: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    group.get("params").and_then(Node::items).into_iter().flatten()
}

/// The states by parameter name; `None` if they have numbers.
fn named(states: Node<'_>) -> Result<Option<BTreeMap<String, Node<'_>>>, CheckpointErrorKind> {
    let mut found = BTreeMap::new();
    for (key, state) in states.entries().into_iter().flatten() {
        let Some(name) = key.text().map(peft_name) else { return Ok(None) };
        if found.contains_key(&name) {
            return Err(CheckpointErrorKind::Twice(name));
        }
        found.insert(name, state);
    }
    Ok(Some(found))
}

/// The states by the names of the parameters that have their numbers.
fn numbered<'a>(
    states: Node<'a>,
    groups: &[Node<'a>],
    params: &[&Param],
    config: &AdapterConfig,
) -> Result<BTreeMap<String, Node<'a>>, CheckpointErrorKind> {
    let groups: Vec<Vec<i64>> = groups
        .iter()
        .map(|group| params_of(*group).filter_map(Node::integer).collect())
        .filter(|numbers: &Vec<i64>| !numbers.is_empty())
        .collect();
    let names = trained(params, config, &groups);
    let by_number: BTreeMap<i64, Node<'_>> = states
        .entries()
        .into_iter()
        .flatten()
        .filter_map(|(key, state)| Some((key.integer()?, state)))
        .collect();
    let numbers = groups.concat();
    if numbers.len() != names.len() {
        let (found, expected) = (numbers.len(), names.len());
        return Err(OptimizerError::Count { found, expected }.into());
    }
    let named = numbers.iter().zip(names);
    Ok(named.filter_map(|(number, name)| Some((name, *by_number.get(number)?))).collect())
}

/// Names of what was trained, in the order of the groups that are not empty:
/// embeddings and the output projection too, where they were trained whole.
fn trained(params: &[&Param], config: &AdapterConfig, groups: &[Vec<i64>]) -> Vec<String> {
    let names = params.iter().map(|param| param.name.clone());
    if let [a, b] = groups
        && a.len() == b.len()
        && config.modules_to_save.is_empty()
    {
        let (a, b): (Vec<_>, Vec<_>) = names.partition(|name| name.ends_with(".lora_A.weight"));
        return [a, b].concat();
    }
    let whole = |known: &'static [&'static str]| {
        let saved = config.modules_to_save.iter();
        saved.filter(move |module| known.contains(&module.as_str())).cloned()
    };
    let first = whole(&["embed_tokens", "embed_in", "wte"]);
    first.chain(names).chain(whole(&["lm_head", "embed_out"])).collect()
}

/// The steps that a parameter took.
fn step(state: Node<'_>) -> Result<u64, OptimizerError> {
    let step = state.get("step").and_then(Node::number);
    let step = step.filter(|step| step.fract() == 0.0 && (0.0..1e15).contains(step));
    let none = || OptimizerError::NotAdam("a parameter has no `step`".to_owned());
    #[expect(clippy::cast_sign_loss, reason = "it is not negative")]
    step.map(|step| step as u64).ok_or_else(none)
}

/// The one value that all have; `None` of none.
fn same<T: PartialEq + Copy>(
    values: impl Iterator<Item = Result<T, OptimizerError>>,
    what: &'static str,
) -> Result<Option<T>, OptimizerError> {
    let mut first = None;
    for value in values {
        let value = value?;
        if *first.get_or_insert(value) != value {
            return Err(OptimizerError::Differ(what));
        }
    }
    Ok(first)
}

#[derive(Clone, Copy)]
enum Moment {
    First,
    Second,
}

impl Moment {
    fn key(self) -> &'static str {
        match self {
            Self::First => "exp_avg",
            Self::Second => "exp_avg_sq",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::First => "exp_avg.",
            Self::Second => "exp_avg_sq.",
        }
    }

    /// This moment in a parameter's state.
    fn of(self, state: Node<'_>, name: &str) -> Result<Found, OptimizerError> {
        if let Some(tensor) = state.get(self.key()).and_then(Node::tensor) {
            return Ok(tensor.into());
        }
        let number = match self {
            Self::First => 1,
            Self::Second => 2,
        };
        block_wise::moment(state, number, name)?.ok_or_else(|| {
            let keys = block_wise::keys(state);
            OptimizerError::NotAdam(format!(
                "`{name}` has no `{}`, but {}",
                self.key(),
                keys.join(", ")
            ))
        })
    }
}
