//! Measuring where the model is: a gradient is made a direction and projected
//! by libtorch on the model's device, and `proj_dim` floats a row leave it.
//!
//! The sparse projection is a sum over bags: output j of a parameter is the sum
//! of the coordinates whose bucket is j, each with its sign. The coordinates of
//! each bag are summed in order by one thread, so the result is the same every
//! time; but for the order in which parameters are added it is the host's sum.
//!
//! Memory on the device: 8 bytes a coordinate of the gradient for the
//! projection, and 4 for every moment that a kind of gradient needs.

use std::path::Path;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tch::{Device, Kind, Tensor};

use super::collect::{CollectError, CollectSettings, Collected, ExampleSource, Work, collect};
use super::direction::{AdamRule, GradientKind, Moments};
use super::layout::Param;
use super::measure::{BatchRows, Measure, MeasureBatches};
use crate::model::batch::Batch;
use crate::model::{LoraDecoder, ModelError, dim, memory};
use crate::pool::Example;
use crate::progress::Observer;
use crate::projection::SignedBuckets;

/// [`collect`] for the LoRA model: measured where the model is, unless that is
/// the host or the projection is not one that is computed elsewhere.
pub(crate) fn collect_lora(
    model: &mut LoraDecoder,
    source: &dyn ExampleSource,
    measure: Measure<'_>,
    dir: &Path,
    settings: &CollectSettings,
    observer: &dyn Observer,
) -> Result<Collected, Box<CollectError<ModelError>>> {
    if !model.device().is_cuda() {
        return Ok(collect(model, source, measure, dir, settings, observer)?);
    }
    settings.check(measure)?;
    let threads = settings.thread_pool().map_err(CollectError::from)?;
    let Some(bags) = threads.install(|| bags(measure)) else {
        return Ok(collect(model, source, measure, dir, settings, observer)?);
    };
    let batches = OnDevice::new(model, measure, &bags);
    drop(bags);
    let mut batches = batches.map_err(|source| CollectError::Prepare {
        checkpoint: settings.header.checkpoint.clone(),
        source,
    })?;
    let work = Work::new(source, measure, dir, settings, &threads, observer);
    Ok(work.map_err(CollectError::from)?.collect(&mut batches)?)
}

/// A model on its device, and what is measured of its gradients.
pub(super) struct OnDevice<'a> {
    model: &'a LoraDecoder,
    kinds: &'a [GradientKind],
    proj_dim: usize,
    params: Vec<ParamTables>,
}

impl<'a> OnDevice<'a> {
    /// Puts the tables of every parameter on `model`'s device.
    pub(super) fn new(
        model: &'a LoraDecoder,
        measure: Measure<'a>,
        bags: &[Bags],
    ) -> Result<Self, ModelError> {
        let params = memory::guarded(|| Ok(Self::tables(model, measure, bags)))?;
        let proj_dim = measure.projection.proj_dim();
        Ok(Self { model, kinds: measure.kinds, proj_dim, params })
    }

    fn tables(model: &LoraDecoder, measure: Measure<'_>, bags: &[Bags]) -> Vec<ParamTables> {
        let device = model.device();
        let needs_moments = measure.kinds.iter().any(|kind| kind.needs_moments());
        let moments = measure.moments.filter(|_| needs_moments);
        let tables = |(param, bags): (&Param, &Bags)| ParamTables {
            bags: bags.to_device(device),
            moments: moments.map(|moments| DeviceMoments::new(moments, param, device)),
        };
        measure.projection.layout().params().iter().zip(bags).map(tables).collect()
    }
}

impl MeasureBatches for OnDevice<'_> {
    type Error = ModelError;

    fn measure(&mut self, batch: &[&Example]) -> Result<BatchRows, ModelError> {
        memory::guarded(|| tch::no_grad(|| self.measure_batch(batch)))
    }

    fn is_out_of_memory(err: &ModelError) -> bool {
        matches!(err, ModelError::OutOfMemory(_))
    }
}

impl OnDevice<'_> {
    fn measure_batch(&self, examples: &[&Example]) -> Result<BatchRows, ModelError> {
        let device = self.model.device();
        let batch = Batch::new(examples, self.model.config(), device)?;
        let n_rows = dim(examples.len());
        // `[kinds, proj_dim, n]`.
        let shape = [dim(self.kinds.len()), dim(self.proj_dim), n_rows];
        let sums = Tensor::zeros(shape, (Kind::Float, device));
        let mut is_nonzero = Tensor::zeros([n_rows], (Kind::Bool, device));
        let losses = tch::with_grad(|| {
            self.model.backward_tensors(&batch, &mut |param_idx, gradient| {
                tch::no_grad(|| {
                    let gradient = gradient.flatten(1, -1).f_to_kind(Kind::Float)?;
                    let own = gradient.not_equal(0.0).any_dim(1, false);
                    is_nonzero = is_nonzero.logical_or(&own);
                    for (at, &kind) in self.kinds.iter().enumerate() {
                        let own = self.params[param_idx].project(kind, &gradient);
                        let _ = sums.get(dim(at)).f_add_(&own)?;
                    }
                    Ok(())
                })
            })
        })?;
        let sums = sums.permute([2, 0, 1]).contiguous().to_device(Device::Cpu);
        Ok(BatchRows {
            sums: Vec::try_from(sums.flatten(0, -1))?,
            is_nonzero: Vec::try_from(is_nonzero)?,
            losses,
        })
    }
}

/// What one parameter's gradients meet.
struct ParamTables {
    bags: DeviceBags,
    moments: Option<DeviceMoments>,
}

impl ParamTables {
    /// The projected direction of gradients `[n, len]`: `[proj_dim, n]`.
    fn project(&self, kind: GradientKind, gradient: &Tensor) -> Tensor {
        match (kind, &self.moments) {
            (GradientKind::Sgd, _) => self.bags.sums(gradient),
            (_, None) => unreachable!("moments are there for every kind that needs them"),
            (GradientKind::Adam, Some(moments)) => self.bags.sums(&moments.adam(gradient)),
            (GradientKind::LessCode, Some(moments)) => self.bags.sums(&moments.less_code(gradient)),
            (GradientKind::AdamV, Some(moments)) => self.bags.sums(&moments.adam_v(gradient)),
        }
    }
}

/// One parameter's part of the sparse projection, by output.
pub(super) struct Bags {
    /// Coordinates, bag after bag, `[len]`.
    coordinates: Vec<i32>,
    /// Where each bag starts, `[proj_dim]`.
    starts: Vec<i32>,
    /// ±1 of each of the coordinates, `[len]`.
    signs: Vec<f32>,
}

/// Every parameter's, on the current rayon pool; `None` if the projection is not
/// sparse.
pub(super) fn bags(measure: Measure<'_>) -> Option<Vec<Bags>> {
    let proj_dim = measure.projection.proj_dim();
    let of_param = |param_idx| {
        let signed_buckets = measure.projection.signed_buckets(param_idx)?;
        Some(Bags::new(signed_buckets, proj_dim))
    };
    (0..measure.projection.layout().params().len()).into_par_iter().map(of_param).collect()
}

impl Bags {
    fn new(signed_buckets: SignedBuckets<'_>, proj_dim: usize) -> Self {
        let mut starts = vec![0; proj_dim + 1];
        for (bucket, _) in signed_buckets.iter() {
            starts[bucket + 1] += 1;
        }
        for bucket in 0..proj_dim {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut coordinates = vec![0_i32; signed_buckets.len()];
        let mut signs = vec![0.0_f32; signed_buckets.len()];
        for (coordinate, (bucket, sign)) in signed_buckets.iter().enumerate() {
            coordinates[next[bucket]] = index(coordinate);
            signs[next[bucket]] = sign;
            next[bucket] += 1;
        }
        let starts = starts[..proj_dim].iter().map(|start| index(*start)).collect();
        Self { coordinates, starts, signs }
    }

    fn to_device(&self, device: Device) -> DeviceBags {
        DeviceBags {
            coordinates: Tensor::from_slice(&self.coordinates).to_device(device),
            starts: Tensor::from_slice(&self.starts).to_device(device),
            signs: Tensor::from_slice(&self.signs).to_device(device),
        }
    }
}

/// [`Bags`] where the gradients are.
struct DeviceBags {
    coordinates: Tensor,
    starts: Tensor,
    signs: Tensor,
}

impl DeviceBags {
    /// `[proj_dim, n]` of `[n, len]`.
    fn sums(&self, rows: &Tensor) -> Tensor {
        const SUM: i64 = 0;
        let (sums, ..) = Tensor::embedding_bag(
            &rows.transpose(0, 1).contiguous(),
            &self.coordinates,
            &self.starts,
            false,
            SUM,
            false,
            Some(&self.signs),
            false,
        );
        sums
    }
}

fn index(n: usize) -> i32 {
    i32::try_from(n).expect("a parameter has less than 2^31 coordinates")
}

/// Adam's moments of one parameter, f32 `[len]` each.
struct DeviceMoments {
    rule: AdamRule,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// The formulas of [`direction`](super::direction), on tensors `[n, len]`.
impl DeviceMoments {
    fn new(moments: &Moments, param: &Param, device: Device) -> Self {
        let own = moments.slice(param.offset..param.offset + param.n_coordinates());
        Self {
            rule: moments.rule,
            exp_avg: Tensor::from_slice(own.exp_avg).to_device(device),
            exp_avg_sq: Tensor::from_slice(own.exp_avg_sq).to_device(device),
        }
    }

    fn adam(&self, gradient: &Tensor) -> Tensor {
        let [p, q, r, s] = self.rule.adam_coefficients().map(f64::from);
        let root = (&self.exp_avg_sq * r + gradient.square() * s).sqrt_();
        (&self.exp_avg * p + gradient * q) / (root + self.rule.epsilon)
    }

    fn less_code(&self, gradient: &Tensor) -> Tensor {
        let root = (&self.exp_avg_sq * 0.999 + gradient.square() * 0.001 + 1e-8).sqrt_();
        (&self.exp_avg * 0.9 + gradient * 0.1) / root
    }

    fn adam_v(&self, gradient: &Tensor) -> Tensor {
        let correct = f64::from(self.rule.adam_v_correction());
        gradient / ((&self.exp_avg_sq * correct).sqrt_() + self.rule.epsilon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Dtype;
    use crate::gradient::lora::tests::{example, model_with};
    use crate::gradient::on_host::OnHost;
    use crate::projection::{Projection, ProjectionKind, ProjectionSettings};
    use crate::seed::Seed;

    const KINDS: [GradientKind; 4] = GradientKind::ALL;

    fn distance(found: &[f32], expected: &[f32]) -> f32 {
        let square = |x: f32| x * x;
        let error: f32 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
        (error / expected.iter().map(|x| square(*x)).sum::<f32>()).sqrt()
    }

    #[test]
    fn a_device_measures_what_the_host_does() {
        let examples = [
            example(&[8, 9, 10, 11], &[false, false, true, true]),
            example(&[1, 2, 3, 4, 5, 6], &[false, true, false, true, true, true]),
            example(&[5, 6, 7], &[false; 3]),
        ];
        let batch: Vec<&Example> = examples.iter().collect();
        let mut model = model_with(&["q_proj", "v_proj", "down_proj"], Dtype::F32);
        let layout = model.layout().clone();
        let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: 64 };
        let projection = Projection::new(settings, Seed(3), "epoch-1", &layout).unwrap();
        let grad_dim = layout.grad_dim();
        let moments = Moments {
            rule: AdamRule { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, step: 5 },
            exp_avg: (0..grad_dim).map(|at| 1e-3 * ((at % 11) as f32 - 5.0)).collect(),
            exp_avg_sq: (0..grad_dim).map(|at| 1e-4 * (1 + at % 13) as f32).collect(),
        };
        let measure = Measure { kinds: &KINDS, moments: Some(&moments), projection: &projection };
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let mut there = OnDevice::new(&model, measure, &bags(measure).unwrap()).unwrap();
        let there = there.measure(&batch).unwrap();
        let here = OnHost::new(&mut model, measure, &threads).measure(&batch).unwrap();
        assert_eq!(there.is_nonzero, here.is_nonzero);
        assert_eq!(there.is_nonzero, [true, true, false]);
        assert_eq!(there.losses, here.losses);
        for row in 0..batch.len() {
            for (kind, name) in KINDS.iter().enumerate() {
                let own = (row * KINDS.len() + kind) * 64..;
                let [there, here] = [&there.sums, &here.sums].map(|sums| &sums[own.clone()][..64]);
                if here.iter().any(|sum| *sum != 0.0) {
                    // Sums of thousands of f32 in another order.
                    assert!(distance(there, here) < 1e-5, "row {row}, {name}");
                } else {
                    assert!(there.iter().all(|sum| *sum == 0.0), "row {row}, {name}");
                }
            }
        }
    }
}
