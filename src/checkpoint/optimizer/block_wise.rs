//! Moments in eight bits, as bitsandbytes keeps them (Dettmers et al., *8-bit
//! Optimizers via Block-wise Quantization*, ICLR 2022).
//!
//! A moment's numbers, row-major, are cut into blocks. A number is a byte that
//! looks up a value in a table of 256, times the largest magnitude of its block:
//!
//! ```text
//! moment[i] = qmap[state[i]] · absmax[i / block]
//! ```

use safetensors::Dtype;

use super::OptimizerError;
use crate::checkpoint::params::Found;
use crate::torch_file::{Node, Tensor};

/// Numbers in a block: those of today's bitsandbytes, and of before 0.45.
const BLOCKS: [usize; 2] = [256, 2048];

/// Where newer versions hide these tensors from FSDP.
const WRAPPED: &str = "__bnb_optimizer_quant_state__";

/// What `state`, a parameter's, holds under `key`.
pub(super) fn get<'a>(state: Node<'a>, key: &str) -> Option<Node<'a>> {
    state.get(key).or_else(|| state.get(WRAPPED)?.get(key))
}

/// What a parameter's state holds, by name.
pub(super) fn keys(state: Node<'_>) -> Vec<&str> {
    let wrapped = state.get(WRAPPED);
    let entries = [Some(state), wrapped].into_iter().flatten().filter_map(Node::entries).flatten();
    entries.filter_map(|(key, _)| key.text()).filter(|key| *key != WRAPPED).take(8).collect()
}

/// The moment `number` (1 or 2) of the parameter `name`; `None` if `state` is
/// none of bitsandbytes. Small parameters keep theirs in f32.
pub(super) fn moment(
    state: Node<'_>,
    number: usize,
    name: &str,
) -> Result<Option<Found>, OptimizerError> {
    let tensor = |key: &str| get(state, &format!("{key}{number}")).and_then(Node::tensor);
    let Some(codes) = tensor("state") else { return Ok(None) };
    if codes.dtype() != Dtype::U8 {
        return Ok(Some(codes.into()));
    }
    let fail = |why: String| OptimizerError::EightBit { name: name.to_owned(), why };
    let (Some(table), Some(largest)) = (tensor("qmap"), tensor("absmax")) else {
        return Err(fail(format!("without `qmap{number}` and `absmax{number}` are not read")));
    };
    let (Some(table), Some(largest)) = (table.to_f32(), largest.to_f32()) else {
        return Err(fail("have a table of whole numbers".to_owned()));
    };
    let table = <[f32; 256]>::try_from(table);
    let table = table.map_err(|table| fail(format!("have a table of {} values", table.len())))?;
    let block = block_length(&codes, largest.len()).ok_or_else(|| {
        fail(format!("of {} numbers have {} blocks", codes.n_elements(), largest.len()))
    })?;
    let bytes = codes.bytes();
    let blocks = bytes.chunks(block).zip(largest);
    let values = blocks
        .flat_map(|(block, largest)| {
            block.iter().map(move |&code| table[usize::from(code)] * largest)
        })
        .collect();
    Ok(Some(Found { shape: codes.shape().to_vec(), dtype: Dtype::F32, values: Some(values) }))
}

/// The length that cuts the numbers into so many blocks.
fn block_length(codes: &Tensor<'_>, n_blocks: usize) -> Option<usize> {
    BLOCKS.into_iter().find(|block| codes.n_elements().div_ceil(*block) == n_blocks)
}
