//! How fast gradients are, against what the machine can do.

use std::time::Instant;

use rand_chacha::rand_core::Rng;
use serde::Serialize;

use super::PerExampleGradients;
use super::direction::GradientKind;
use super::measure::{Measure, MeasureBatches};
use super::on_device::{OnDevice, bags};
use crate::compute::ComputeSettings;
use crate::model::probe::probe;
use crate::model::{LoraDecoder, ModelError};
use crate::pool::{Example, ExampleId};
use crate::projection::{Projection, ProjectionKind, ProjectionSettings};
use crate::seed::Seed;

/// Turns, of which the median counts.
const N_TURNS: usize = 5;

/// Gradients beside matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Speed {
    /// Tokens of a row; the second half carries loss.
    pub n_tokens: usize,
    /// Rows of a batch.
    pub n_rows: usize,
    /// Wall-clock seconds a row.
    pub seconds: f64,
    /// Speed of large matrix products in the same precision, in 10⁹ operations
    /// a second, measured in turn with the gradients.
    pub peak_gflops: f64,
    /// Operations that the gradients need
    /// ([`DecoderConfig::gradient_flop`](crate::model::DecoderConfig::gradient_flop))
    /// over those that matrix products do in the same time.
    pub share: f64,
}

/// Times the gradients of a full batch of random rows of `n_tokens` tokens: on
/// the host until they are handed over, on a CUDA device until they are
/// projected to 8192 dimensions.
///
/// # Errors
///
/// If the model fails.
///
/// # Panics
///
/// Never: 8192 is a power of two, and the projection is sparse.
pub fn speed(
    model: &mut LoraDecoder,
    compute: &ComputeSettings,
    n_tokens: usize,
) -> Result<Speed, ModelError> {
    let rows = random_rows((model.batch_tokens / n_tokens).max(1), n_tokens, model);
    let batch: Vec<&Example> = rows.iter().collect();
    let flop = model.config().gradient_flop(model.layout(), n_tokens - 1, n_tokens / 2);
    let timed = |work: &mut Work<'_>| {
        let peak_gflops = probe(compute).gflops;
        let start = Instant::now();
        work()?;
        let seconds = start.elapsed().as_secs_f64() / batch.len() as f64;
        let share = flop / seconds / (1e9 * peak_gflops);
        Ok(Speed { n_tokens, n_rows: batch.len(), seconds, peak_gflops, share })
    };
    if !model.device().is_cuda() {
        return median(|| timed(&mut || model.backward(&batch, &mut |_, _| ()).map(drop)));
    }
    let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: 8192 };
    let projection =
        Projection::new(settings, Seed(0), "speed", model.layout()).expect("a power of two");
    let measure = Measure { kinds: &[GradientKind::Sgd], moments: None, projection: &projection };
    let bags = bags(measure).expect("the projection is sparse");
    let mut there = OnDevice::new(model, measure, &bags)?;
    median(|| timed(&mut || there.measure(&batch).map(drop)))
}

/// What is timed.
type Work<'a> = dyn FnMut() -> Result<(), ModelError> + 'a;

/// The median turn, by its share.
fn median(mut turn: impl FnMut() -> Result<Speed, ModelError>) -> Result<Speed, ModelError> {
    // The first finds nothing warm.
    turn()?;
    let mut turns = (0..N_TURNS).map(|_| turn()).collect::<Result<Vec<_>, _>>()?;
    turns.sort_by(|a, b| a.share.total_cmp(&b.share));
    Ok(turns[N_TURNS / 2])
}

fn random_rows(n: usize, n_tokens: usize, model: &LoraDecoder) -> Vec<Example> {
    let mut rng = Seed(0).stream(&["speed", "rows"]);
    let vocab_size = model.config().vocab_size as u32;
    let mut row = || {
        let token_ids: Vec<u32> = (0..n_tokens).map(|_| rng.next_u32() % vocab_size).collect();
        let supervised: Vec<bool> = (0..n_tokens).map(|at| at >= n_tokens / 2).collect();
        Example { id: ExampleId::of(&token_ids, &supervised), token_ids, supervised }
    };
    (0..n).map(|_| row()).collect()
}
