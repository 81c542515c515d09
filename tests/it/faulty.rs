//! The closed-form model with what may go wrong in a real one.

use std::collections::BTreeMap;

use less_select::gradient::layout::ParamLayout;
use less_select::gradient::linear::{LinearError, LinearModel};
use less_select::gradient::{ExampleLoss, PerExampleGradients};
use less_select::pool::{Example, ExampleId};

use crate::toy;

/// What goes wrong with an example.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Every coordinate of its gradient is this.
    Gradient(f32),
    /// Every coordinate of its gradient is multiplied by this.
    Times(f32),
    /// Its loss is this.
    Loss(f32),
    /// Its batch fails.
    Fails,
}

/// The closed-form model with faults at some examples.
pub(crate) struct Faulty {
    model: LinearModel,
    faults: BTreeMap<ExampleId, Fault>,
}

impl Faulty {
    /// The model at `epoch-N`.
    pub(crate) fn new(epoch: u64, faults: impl IntoIterator<Item = (ExampleId, Fault)>) -> Self {
        Self { model: toy::model(epoch), faults: faults.into_iter().collect() }
    }
}

impl PerExampleGradients for Faulty {
    type Error = LinearError;

    fn layout(&self) -> &ParamLayout {
        self.model.layout()
    }

    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, LinearError> {
        let faults: Vec<_> = batch.iter().map(|example| self.faults.get(&example.id)).collect();
        if let Some(failing) = faults.iter().position(|fault| matches!(fault, Some(Fault::Fails))) {
            let id = batch[failing].id;
            return Err(LinearError { id, token: 99, n_tokens: 12 });
        }
        let mut losses = self.model.backward(batch, &mut |param_idx, rows| {
            let mut rows = rows.to_vec();
            let len = rows.len() / batch.len();
            for (row, fault) in rows.chunks_exact_mut(len).zip(&faults) {
                match fault {
                    Some(Fault::Gradient(value)) => row.fill(*value),
                    Some(Fault::Times(factor)) => row.iter_mut().for_each(|x| *x *= factor),
                    Some(Fault::Loss(_) | Fault::Fails) | None => {}
                }
            }
            sink(param_idx, &rows);
        })?;
        for (loss, fault) in losses.iter_mut().zip(&faults) {
            if let Some(Fault::Loss(value)) = fault {
                loss.loss = *value;
            }
        }
        Ok(losses)
    }
}

/// The closed-form model with memory for so many rows.
pub(crate) struct Narrow {
    model: LinearModel,
    n_rows: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("too many rows")]
pub(crate) struct TooManyRows;

impl Narrow {
    pub(crate) fn new(n_rows: usize) -> Self {
        Self { model: toy::model(1), n_rows }
    }
}

impl PerExampleGradients for Narrow {
    type Error = TooManyRows;

    fn layout(&self) -> &ParamLayout {
        self.model.layout()
    }

    fn backward(
        &mut self,
        batch: &[&Example],
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Vec<ExampleLoss>, TooManyRows> {
        if batch.len() > self.n_rows {
            return Err(TooManyRows);
        }
        Ok(self.model.backward(batch, sink).unwrap())
    }

    fn is_out_of_memory(_err: &TooManyRows) -> bool {
        true
    }
}
