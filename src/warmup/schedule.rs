//! The learning rate by step, as `transformers` schedules it.

use serde::{Deserialize, Serialize};

/// How the learning rate falls once it has risen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Along a straight line to zero.
    Linear,
    /// Along half a cosine to zero.
    Cosine,
}

impl std::str::FromStr for Schedule {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            _ => Err(()),
        }
    }
}

impl Schedule {
    /// The share of the highest rate that step number `step`, from 0, uses:
    /// rising from zero for `n_rising` steps, then falling to zero at `n_steps`.
    ///
    /// The first of rising steps has a rate of zero, as in
    /// `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup`.
    pub fn factor(self, step: u64, n_rising: u64, n_steps: u64) -> f64 {
        if step < n_rising {
            return step as f64 / n_rising as f64;
        }
        let n_falling = n_steps.saturating_sub(n_rising).max(1);
        let progress = ((step - n_rising) as f64 / n_falling as f64).min(1.0);
        match self {
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::warmup::WarmupSettings;

    fn settings(schedule: Schedule) -> WarmupSettings {
        WarmupSettings {
            share: 0.05,
            epochs: 1,
            batch_size: 8,
            learning_rate: 1.0,
            schedule,
            warmup_ratio: 0.12,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        }
    }

    #[test]
    fn rates_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/model.json");
        let goldens: Value = serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            let name = serde_json::to_value(schedule).unwrap();
            let expected = goldens["schedule"][name.as_str().unwrap()].as_array().unwrap();
            for (step, expected) in expected.iter().enumerate() {
                let rate = settings(schedule).rate(step as u64, 20);
                approx::assert_abs_diff_eq!(rate, expected.as_f64().unwrap(), epsilon = 1e-12);
            }
        }
    }

    #[test]
    fn the_rate_stays_within_its_bounds_however_short_the_training() {
        for n_steps in 1..5 {
            for step in 0..n_steps {
                let rate = settings(Schedule::Cosine).rate(step, n_steps);
                assert!((0.0..=1.0).contains(&rate), "step {step} of {n_steps}: {rate}");
            }
        }
    }

    #[test]
    fn a_share_of_the_pool_is_at_least_64_rows_if_there_are_so_many() {
        let settings = settings(Schedule::Linear);
        assert_eq!([0, 1, 50, 400, 2010].map(|n| settings.n_rows(n)), [0, 1, 50, 64, 101]);
        assert_eq!([1, 8, 9].map(|n| settings.steps_per_epoch(n)), [1, 1, 2]);
    }
}
