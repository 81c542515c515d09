//! Measuring on the host: gradients come as plain numbers, parameter after
//! parameter, and are made directions and projected in one reading.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::ThreadPool;

use super::direction::Directions;
use super::measure::{BatchRows, Measure, MeasureBatches};
use super::{ExampleLoss, PerExampleGradients};
use crate::pool::Example;
use crate::projection::Projection;

/// A model, and what is measured of its gradients.
pub struct OnHost<'a, M> {
    model: &'a mut M,
    projection: &'a Projection,
    directions: Directions<'a>,
    threads: &'a ThreadPool,
}

impl<'a, M: PerExampleGradients> OnHost<'a, M> {
    /// Measures with `threads` between backward passes; the model's own threads
    /// rest meanwhile.
    ///
    /// # Panics
    ///
    /// If `measure` is not of `model`, or not [checked](Measure::check).
    pub fn new(model: &'a mut M, measure: Measure<'a>, threads: &'a ThreadPool) -> Self {
        assert_eq!(model.layout(), measure.projection.layout(), "the projection is the model's");
        let directions = Directions::new(measure.kinds, measure.moments);
        Self { model, projection: measure.projection, directions, threads }
    }
}

impl<M: PerExampleGradients> MeasureBatches for OnHost<'_, M> {
    type Error = M::Error;

    fn measure(&mut self, batch: &[&Example]) -> Result<BatchRows, M::Error> {
        let mut sums = Sums::new(self.projection, &self.directions, batch.len());
        let losses = self.model.backward(batch, &mut |param_idx, gradients| {
            self.threads.install(|| sums.add_param(param_idx, gradients));
        })?;
        Ok(sums.finish(losses))
    }

    fn is_out_of_memory(err: &M::Error) -> bool {
        M::is_out_of_memory(err)
    }
}

/// The projected directions of one batch, growing parameter by parameter.
struct Sums<'a> {
    directions: &'a Directions<'a>,
    projection: &'a Projection,
    /// `[n × kinds × proj_dim]`: the kinds of a row stand together, so that a
    /// piece of its gradient is read once for all of them.
    rows: Vec<f32>,
    /// One a row.
    is_nonzero: Vec<AtomicBool>,
    /// One a parameter.
    is_added: Vec<bool>,
}

impl<'a> Sums<'a> {
    /// # Panics
    ///
    /// If there is no kind of gradient.
    fn new(projection: &'a Projection, directions: &'a Directions<'a>, n_rows: usize) -> Self {
        let n_kinds = directions.kinds().len();
        assert!(n_kinds > 0, "at least one kind of gradient");
        Self {
            directions,
            projection,
            rows: vec![0.0; n_rows * n_kinds * projection.proj_dim()],
            is_nonzero: std::iter::repeat_with(AtomicBool::default).take(n_rows).collect(),
            is_added: vec![false; projection.layout().params().len()],
        }
    }

    /// Takes one parameter's gradients, `[n × n_coordinates]`. Runs on the
    /// current rayon pool; each row's sums run in one order.
    ///
    /// # Panics
    ///
    /// If the shape is another, or the parameter came before.
    fn add_param(&mut self, param_idx: usize, gradients: &[f32]) {
        let Self { directions, projection, is_nonzero, .. } = self;
        let param = &projection.layout().params()[param_idx];
        let len = param.n_coordinates();
        assert_eq!(gradients.len(), is_nonzero.len() * len, "one gradient a row");
        let is_added = std::mem::replace(&mut self.is_added[param_idx], true);
        assert!(!is_added, "parameter `{}` comes once", param.name);
        let kinds = directions.kinds();
        projection.accumulate(param_idx, &mut self.rows, |at, range, out| {
            let (row, kind) = (at / kinds.len(), kinds[at % kinds.len()]);
            let gradient = &gradients[row * len..][range.clone()];
            // Ends at the first value that is not zero: no second reading.
            if !is_nonzero[row].load(Relaxed) && gradient.iter().any(|value| *value != 0.0) {
                is_nonzero[row].store(true, Relaxed);
            }
            let range = param.offset + range.start..param.offset + range.end;
            directions.write(kind, range, gradient, out);
        });
    }

    /// # Panics
    ///
    /// If a parameter never came, or `losses` is not one a row.
    fn finish(self, losses: Vec<ExampleLoss>) -> BatchRows {
        assert!(self.is_added.iter().all(|is_added| *is_added), "every parameter comes once");
        assert_eq!(losses.len(), self.is_nonzero.len(), "one loss a row");
        let is_nonzero = self.is_nonzero.into_iter().map(AtomicBool::into_inner).collect();
        BatchRows { sums: self.rows, is_nonzero, losses }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::Rng;

    use super::*;
    use crate::gradient::direction::{AdamRule, GradientKind, Moments};
    use crate::gradient::layout::ParamLayout;
    use crate::gradient::measure::unmeasured;
    use crate::pool::ExampleId;
    use crate::projection::{ProjectionKind, ProjectionSettings};
    use crate::seed::Seed;
    use crate::store::Flag;

    const KINDS: [GradientKind; 4] = GradientKind::ALL;
    const PROJ_DIM: usize = 64;

    fn uniform(n: usize, purpose: &str) -> Vec<f32> {
        let mut rng = Seed(3).stream(&["measure", purpose]);
        (0..n).map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32).collect()
    }

    fn moments(grad_dim: usize) -> Moments {
        Moments {
            rule: AdamRule { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, step: 5 },
            exp_avg: uniform(grad_dim, "m").iter().map(|m| m - 0.5).collect(),
            exp_avg_sq: uniform(grad_dim, "v"),
        }
    }

    fn projection(layout: &ParamLayout) -> Projection {
        let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: PROJ_DIM };
        Projection::new(settings, Seed(3), "epoch-1", layout).unwrap()
    }

    /// Whole directions first, then one row and kind after the other,
    /// coordinate by coordinate. `gradients` is `[n × grad_dim]`.
    fn slow_sums(projection: &Projection, moments: &Moments, gradients: &[f32]) -> Vec<f32> {
        let (layout, mut sums) = (projection.layout(), Vec::new());
        for gradient in gradients.chunks_exact(layout.grad_dim()) {
            for kind in KINDS {
                let mut direction = vec![0.0; gradient.len()];
                let all = moments.slice(0..gradient.len());
                kind.write_direction(gradient, Some(all), &mut direction);
                let mut row = vec![0.0; PROJ_DIM];
                for param in layout.params() {
                    let mut words = Seed(3).stream(&["projection", "epoch-1", &param.name]);
                    for value in &direction[param.offset..][..param.n_coordinates()] {
                        let word = words.next_u32();
                        let sign = if word % 2 == 1 { -1.0 } else { 1.0 };
                        row[word as usize / (1 << 26)] += sign * value;
                    }
                }
                sums.extend(row);
            }
        }
        sums
    }

    #[test]
    fn one_pass_over_all_kinds_has_the_bits_of_one_pass_each() {
        let layout = ParamLayout::new([("a".to_owned(), vec![2500]), ("b".to_owned(), vec![3, 7])]);
        let (projection, moments) = (projection(&layout), moments(layout.grad_dim()));
        let directions = Directions::new(&KINDS, Some(&moments));
        for n_rows in [1, 2, 5] {
            let gradients = uniform(n_rows * layout.grad_dim(), "g");
            let expected = slow_sums(&projection, &moments, &gradients);
            for n_threads in [1, 2, 3] {
                let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build();
                let mut batch = Sums::new(&projection, &directions, n_rows);
                for (param_idx, param) in layout.params().iter().enumerate() {
                    let own = param.offset..param.offset + param.n_coordinates();
                    let rows = gradients.chunks_exact(layout.grad_dim());
                    let rows: Vec<f32> = rows.flat_map(|row| &row[own.clone()]).copied().collect();
                    threads.as_ref().unwrap().install(|| batch.add_param(param_idx, &rows));
                }
                let bits = |sums: &[f32]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&batch.rows),
                    bits(&expected),
                    "{n_rows} rows, {n_threads} threads"
                );
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_found_in_any_kind_and_zero_in_spite_of_momentum() {
        let layout = ParamLayout::new([("a".to_owned(), vec![2500])]);
        let (projection, moments) = (projection(&layout), moments(2500));
        let loss = ExampleLoss { loss: 1.0, n_supervised: 1 };
        for kind in KINDS {
            let kinds = [kind];
            let measure =
                Measure { kinds: &kinds, moments: Some(&moments), projection: &projection };
            let directions = Directions::new(&kinds, Some(&moments));
            let flag_of = |at: usize, value: f32| {
                let mut gradient = vec![0.0; 2500];
                gradient[at] = value;
                let mut batch = Sums::new(&projection, &directions, 1);
                batch.add_param(0, &gradient);
                let mut shard = unmeasured(vec![ExampleId::of(&[1], &[true])], measure);
                batch.finish(vec![loss]).write_to(&[0], &mut shard);
                shard.flags[0]
            };
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert_eq!(flag_of(2499, value), Some(Flag::NonFiniteGradient), "{kind}");
            }
            assert_eq!(flag_of(0, -0.0), Some(Flag::ZeroGradient), "{kind}");
            assert_eq!(flag_of(2499, 0.5), None, "{kind}");
        }
    }
}
