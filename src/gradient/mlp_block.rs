//! The MLP between its norms, forward and backward.

use tch::Tensor;

use super::adapted::Sink;
use super::modules::{Modules, through};
use super::norm::Norm;
use crate::model::ModelError;
use crate::model::joined::split_gate;
use crate::model::modules::LinearModule;

/// What is kept of an MLP until its backward pass, `[n_examples, n_sites,
/// intermediate_size]` each.
pub(super) struct MlpBlock<'a> {
    gate: Option<Tensor>,
    up: Tensor,
    after: Option<Norm<'a>>,
}

impl<'a> MlpBlock<'a> {
    /// The block's output for `input`, `[n_examples, n_sites, hidden_size]`, and its
    /// way back.
    pub(super) fn record(modules: &mut Modules<'a>, input: &Tensor) -> (Tensor, Self) {
        let norms = &modules.weights().mlp_norms;
        let (x, _) = modules.norm_if(norms.before.as_ref(), input);
        let (gate, up) = if modules.config().has(LinearModule::GateUp) {
            let [gate, up] = split_gate(&modules.forward(LinearModule::GateUp, &x));
            (Some(gate), up)
        } else if modules.config().has(LinearModule::Gate) {
            let gate = modules.forward(LinearModule::Gate, &x);
            (Some(gate), modules.forward(LinearModule::Up, &x))
        } else {
            (None, modules.forward(LinearModule::Up, &x))
        };
        let activation = modules.config().activation;
        let product = match &gate {
            Some(gate) => activation.forward(gate) * &up,
            None => activation.forward(&up),
        };
        let y = modules.forward(LinearModule::Down, &product);
        let (y, after) = modules.norm_if(norms.after.as_ref(), &y);
        (y, Self { gate, up, after })
    }

    /// From the gradient by the block's output to that by its input.
    pub(super) fn differentiate(
        self,
        modules: &mut Modules<'a>,
        input: &Tensor,
        gradient: &Tensor,
        sink: &mut Sink<'_>,
    ) -> Result<Tensor, ModelError> {
        let Self { gate, up, after } = self;
        let activation = modules.config().activation;
        let gradient = through(after, gradient.shallow_clone());
        let (x, before) = modules.norm_if(modules.weights().mlp_norms.before.as_ref(), input);
        let by_x = if let Some(gate) = gate {
            let mut opened = activation.forward(&gate);
            let by_product = modules.back(LinearModule::Down, &(&opened * &up), &gradient, sink)?;
            let by_up = opened.g_mul_(&by_product);
            let by_gate = activation.backward(&gate, &(by_product * up));
            by_gate_and_up(modules, &x, [by_gate, by_up], sink)?
        } else {
            let product = activation.forward(&up);
            let by_product = modules.back(LinearModule::Down, &product, &gradient, sink)?;
            modules.back(LinearModule::Up, &x, &activation.backward(&up, &by_product), sink)?
        };
        Ok(through(before, by_x))
    }
}

/// Back through what gave gate and way up.
fn by_gate_and_up(
    modules: &mut Modules<'_>,
    x: &Tensor,
    [by_gate, by_up]: [Tensor; 2],
    sink: &mut Sink<'_>,
) -> Result<Tensor, ModelError> {
    if modules.config().has(LinearModule::GateUp) {
        let by_both = Tensor::cat(&[by_gate, by_up], -1);
        return modules.back(LinearModule::GateUp, x, &by_both, sink);
    }
    let by_x = modules.back(LinearModule::Gate, x, &by_gate, sink)?;
    Ok(by_x + modules.back(LinearModule::Up, x, &by_up, sink)?)
}
