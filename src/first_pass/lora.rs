//! The LoRA model in a first pass.

use super::{Predict, Represent};
use crate::model::{LoraDecoder, ModelError};
use crate::pool::Example;

impl Represent for LoraDecoder {
    type Error = ModelError;

    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, ModelError> {
        Self::represent(self, batch)
    }
}

impl Predict for LoraDecoder {
    type Error = ModelError;

    fn mean_losses(&mut self, batch: &[&Example]) -> Result<Vec<f32>, ModelError> {
        Ok(self.assess(batch)?.into_iter().map(|found| found.loss).collect())
    }
}
