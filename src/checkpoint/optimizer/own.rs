//! `optimizer.safetensors`: AdamW's moments by parameter name.
//!
//! The Trainer's own `optimizer.pt` is a pickle whose entries are numbered, so
//! that a name follows only from the order; this file says it.

use std::path::Path;

use crate::checkpoint::CheckpointErrorKind;
use crate::checkpoint::params::{Adapted, Found, in_order};
use crate::gradient::direction::{AdamRule, Moments};
use crate::gradient::layout::ParamLayout;
use crate::tensor_file::{self, TensorFile};

pub(super) const FILE: &str = "optimizer.safetensors";
const RULE: &str = "adam";

pub(super) fn read(
    path: &Path,
    layout: &ParamLayout,
    adapted: &Adapted,
) -> Result<Moments, CheckpointErrorKind> {
    let file = TensorFile::open(path)?;
    let rule: AdamRule = file
        .metadata(RULE)
        .and_then(|text| serde_json::from_str(text).ok())
        .filter(|rule: &AdamRule| rule.is_possible() && rule.step > 0)
        .ok_or(CheckpointErrorKind::NoRule)?;
    let moment = |prefix: &str| {
        in_order(layout, adapted, prefix, |param| {
            Ok(file.tensor(&format!("{prefix}{}", param.name)).map(Found::from))
        })
    };
    Ok(Moments { rule, exp_avg: moment("exp_avg.")?, exp_avg_sq: moment("exp_avg_sq.")? })
}

pub(in crate::checkpoint) fn write(
    dir: &Path,
    layout: &ParamLayout,
    moments: &Moments,
) -> Result<(), CheckpointErrorKind> {
    let both = [("exp_avg", &moments.exp_avg), ("exp_avg_sq", &moments.exp_avg_sq)];
    let tensors = both.into_iter().flat_map(|(moment, values)| {
        layout.params().iter().map(move |param| {
            let own = &values[param.offset..][..param.n_coordinates()];
            (format!("{moment}.{}", param.name), param.shape.as_slice(), own)
        })
    });
    let rule = serde_json::to_string(&moments.rule)?;
    let bytes = tensor_file::serialize(tensors, RULE, &rule);
    crate::fs::write_atomic(&dir.join(FILE), |out| out.write_all(&bytes))?;
    Ok(())
}
