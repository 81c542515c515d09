//! Values of parameters, out of whichever kind of file, in the order of a layout.

use std::collections::BTreeSet;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::CheckpointErrorKind;
use super::peft_name::module_of;
use crate::gradient::layout::{Param, ParamLayout};
use crate::tensor_file;
use crate::torch_file::Tensor;

/// A tensor that a file has for a parameter.
pub(super) struct Found {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    /// Row-major; `None` if the dtype is no floating point.
    pub(super) values: Option<Vec<f32>>,
}

impl From<TensorView<'_>> for Found {
    fn from(tensor: TensorView<'_>) -> Self {
        let values = tensor_file::to_f32(&tensor);
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), values }
    }
}

impl From<Tensor<'_>> for Found {
    fn from(tensor: Tensor<'_>) -> Self {
        Self { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), values: tensor.to_f32() }
    }
}

impl Found {
    /// The values, if they can be those of a parameter of this name and shape.
    fn checked(self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointErrorKind> {
        let name = || name.to_owned();
        if self.shape != shape {
            let (found, expected) = (self.shape, shape.to_vec());
            return Err(CheckpointErrorKind::Shape { name: name(), found, expected });
        }
        let Some(values) = self.values else {
            return Err(CheckpointErrorKind::Dtype { name: name(), dtype: self.dtype });
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(CheckpointErrorKind::NotFinite(name()));
        }
        Ok(values)
    }
}

/// The modules of a model that an adapter sits on.
///
/// The decoder has an adapter on every module of a name or on none. One of zero
/// is as good as none: the gradients of its A and B are zero, and so is every
/// direction that is made of them.
#[derive(Debug)]
pub(super) enum Adapted {
    /// All that have one of the targets' names.
    All,
    /// Those with these full names, as `peft` has them.
    Only(BTreeSet<String>),
}

impl Adapted {
    /// Whether the adapter has the parameter.
    pub(super) fn has(&self, param: &Param) -> bool {
        match (self, module_of(&param.name)) {
            (Self::Only(modules), Some(module)) => modules.contains(module),
            _ => true,
        }
    }

    /// How many parameters of `layout` the adapter has.
    pub(super) fn n_params(&self, layout: &ParamLayout) -> usize {
        layout.params().iter().filter(|param| self.has(param)).count()
    }
}

/// What `find` has for the parameters of `layout`, one behind the other; zero
/// for those that the adapter does not have. `prefix` goes before a parameter's
/// name in errors.
pub(super) fn in_order(
    layout: &ParamLayout,
    adapted: &Adapted,
    prefix: &str,
    mut find: impl FnMut(&Param) -> Result<Option<Found>, CheckpointErrorKind>,
) -> Result<Vec<f32>, CheckpointErrorKind> {
    let mut values = Vec::with_capacity(layout.grad_dim());
    for param in layout.params() {
        if !adapted.has(param) {
            values.resize(values.len() + param.n_coordinates(), 0.0);
            continue;
        }
        let name = format!("{prefix}{}", param.name);
        match find(param)? {
            Some(found) => values.extend(found.checked(&name, &param.shape)?),
            None => return Err(CheckpointErrorKind::Missing(name)),
        }
    }
    Ok(values)
}
