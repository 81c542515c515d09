//! The LoRA model as a [`Represent`].

use super::Represent;
use crate::model::{LoraDecoder, ModelError};
use crate::pool::Example;

impl Represent for LoraDecoder {
    type Error = ModelError;

    fn represent(&mut self, batch: &[&Example]) -> Result<Vec<Vec<f32>>, ModelError> {
        Self::represent(self, batch)
    }
}
