//! Means, differences and their intervals.
//!
//! Of contender c, trial s and evaluation example i there is a value `x_csi`: a loss, or
//! one where the answer is exact. A contender's mean is over all of its trials and the
//! examples. Two things make it uncertain, the examples and the seeds, and its standard
//! error has both:
//!
//! ```text
//! SE² = Var_i( mean_s x_csi ) / n  +  σ² / k_c
//! ```
//!
//! σ² is the variance of a trial's mean between seeds, pooled over all contenders with
//! several: three seeds of one contender alone say little. A difference of two
//! contenders is taken example by example, so that hard examples do not count as noise:
//! x becomes the difference of the means, and both have their share of σ². The interval
//! is Student's at 95 %, its degrees of freedom those of Welch and Satterthwaite.

use std::collections::BTreeMap;

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::Outcome;

/// A mean and half the width of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of the interval's width.
    pub half_width: f64,
}

/// A contender on one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Standing {
    /// Who.
    pub contender: String,
    /// Trials.
    pub n_trials: usize,
    /// Distinct rows of a trial, on average.
    pub n_rows: f64,
    /// Tokens trained on, on average.
    pub n_tokens: f64,
    /// Mean over the examples of their mean loss a supervised token, in nats.
    pub loss: Estimate,
    /// Share of the examples whose answer is exact.
    pub exact: Estimate,
    /// Mean F1 of the words of its own answers, where it was asked for them.
    pub f1: Option<Estimate>,
    /// Its loss less the reference's; `None` for the reference, or without one.
    pub loss_difference: Option<Estimate>,
    /// Its share of exact answers less the reference's.
    pub exact_difference: Option<Estimate>,
    /// Its F1 less the reference's.
    pub f1_difference: Option<Estimate>,
}

/// All contenders on one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// The evaluation's name.
    pub eval: String,
    /// Its examples.
    pub n_examples: usize,
    /// With whom the others are compared.
    pub reference: Option<String>,
    /// Contenders, lowest loss first.
    pub standings: Vec<Standing>,
}

/// Compares contenders on every evaluation, evaluations in order of name. `f1` has a
/// value an outcome and example, if there are answers. `reference` is the contender that
/// the others are compared with, if it is among them.
///
/// # Panics
///
/// If the outcomes are not all of the same examples.
pub fn compare(outcomes: &[Outcome], f1: Option<&[Vec<f64>]>, reference: &str) -> Vec<Comparison> {
    let Some(first) = outcomes.first() else { return Vec::new() };
    let mut evals: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, row) in first.eval.iter().enumerate() {
        evals.entry(&row.source).or_default().push(at);
    }
    evals
        .iter()
        .map(|(eval, examples)| Table::new(outcomes, f1, examples).compare(eval, reference))
        .collect()
}

/// Values of one evaluation: contenders, their trials, the examples.
struct Table<'a> {
    contenders: Vec<(&'a str, Vec<Judged<'a>>)>,
    examples: &'a [usize],
}

/// An outcome with the F1 of its answers.
#[derive(Clone, Copy)]
struct Judged<'a> {
    outcome: &'a Outcome,
    f1: Option<&'a Vec<f64>>,
}

impl<'a> Table<'a> {
    fn new(outcomes: &'a [Outcome], f1: Option<&'a [Vec<f64>]>, examples: &'a [usize]) -> Self {
        let mut contenders: Vec<(&str, Vec<Judged<'_>>)> = Vec::new();
        for (at, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.eval.len(), outcomes[0].eval.len(), "the same examples");
            let judged = Judged { outcome, f1: f1.map(|f1| &f1[at]) };
            match contenders.iter_mut().find(|(name, _)| *name == outcome.contender) {
                Some((_, trials)) => trials.push(judged),
                None => contenders.push((&outcome.contender, vec![judged])),
            }
        }
        Self { contenders, examples }
    }

    fn compare(&self, eval: &str, reference: &str) -> Comparison {
        let loss = Metric::new(self, |trial, at| f64::from(trial.outcome.eval[at].loss));
        let exact =
            Metric::new(self, |trial, at| f64::from(u8::from(trial.outcome.eval[at].is_exact)));
        let has_answers =
            self.contenders.iter().flat_map(|(_, trials)| trials).all(|t| t.f1.is_some());
        let f1 = has_answers
            .then(|| Metric::new(self, |trial, at| trial.f1.map_or(f64::NAN, |f1| f1[at])));
        let reference_idx = self.contenders.iter().position(|(name, _)| *name == reference);
        let mut standings: Vec<Standing> = (0..self.contenders.len())
            .map(|idx| {
                let (contender, trials) = &self.contenders[idx];
                let mean = |of: &dyn Fn(&Outcome) -> f64| {
                    trials.iter().map(|trial| of(trial.outcome)).sum::<f64>() / trials.len() as f64
                };
                let other = reference_idx.filter(|other| *other != idx);
                Standing {
                    contender: (*contender).to_owned(),
                    n_trials: trials.len(),
                    n_rows: mean(&|trial| trial.n_rows as f64),
                    n_tokens: mean(&|trial| trial.n_tokens as f64),
                    loss: loss.estimate(idx),
                    exact: exact.estimate(idx),
                    f1: f1.as_ref().map(|f1| f1.estimate(idx)),
                    loss_difference: other.map(|other| loss.difference(idx, other)),
                    exact_difference: other.map(|other| exact.difference(idx, other)),
                    f1_difference: other
                        .zip(f1.as_ref())
                        .map(|(other, f1)| f1.difference(idx, other)),
                }
            })
            .collect();
        standings.sort_by(|a, b| {
            a.loss.mean.total_cmp(&b.loss.mean).then_with(|| a.contender.cmp(&b.contender))
        });
        Comparison {
            eval: eval.to_owned(),
            n_examples: self.examples.len(),
            reference: reference_idx.map(|_| reference.to_owned()),
            standings,
        }
    }
}

/// One kind of value.
struct Metric {
    /// By contender: the mean over its trials, `[n_examples]`.
    means: Vec<Vec<f64>>,
    n_trials: Vec<usize>,
    /// Of a trial's mean between seeds, with its degrees of freedom; `None` where
    /// nobody has two trials.
    between_seeds: Option<(f64, f64)>,
}

impl Metric {
    fn new(table: &Table<'_>, value: impl Fn(&Judged<'_>, usize) -> f64) -> Self {
        let n = table.examples.len() as f64;
        let (mut means, mut n_trials) = (Vec::new(), Vec::new());
        let (mut squares, mut df) = (0.0, 0.0);
        for (_, trials) in &table.contenders {
            let k = trials.len() as f64;
            let values = |trial: &Judged<'_>| -> Vec<f64> {
                table.examples.iter().map(|at| value(trial, *at)).collect()
            };
            let values: Vec<Vec<f64>> = trials.iter().map(values).collect();
            let of_trials: Vec<f64> =
                values.iter().map(|values| values.iter().sum::<f64>() / n).collect();
            squares += variance(&of_trials).unwrap_or(0.0) * (k - 1.0);
            df += k - 1.0;
            n_trials.push(trials.len());
            let mean = |at| values.iter().map(|values| values[at]).sum::<f64>() / k;
            means.push((0..table.examples.len()).map(mean).collect());
        }
        let between_seeds = (df > 0.0).then_some((squares / df, df));
        Self { means, n_trials, between_seeds }
    }

    fn estimate(&self, idx: usize) -> Estimate {
        self.interval(&self.means[idx], 1.0 / self.n_trials[idx] as f64)
    }

    /// The mean of contender `idx` less that of `other`.
    fn difference(&self, idx: usize, other: usize) -> Estimate {
        let pairs = self.means[idx].iter().zip(&self.means[other]);
        let differences: Vec<f64> = pairs.map(|(a, b)| a - b).collect();
        let [k, k_other] = [idx, other].map(|idx| self.n_trials[idx] as f64);
        self.interval(&differences, 1.0 / k + 1.0 / k_other)
    }

    /// The mean of `values`, of which the seeds have so many parts of their variance.
    fn interval(&self, values: &[f64], seed_parts: f64) -> Estimate {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let of_examples = variance(values).map(|variance| (variance / n, n - 1.0));
        let of_seeds = self.between_seeds.map(|(variance, df)| (variance * seed_parts, df));
        Estimate { mean, half_width: half_width([of_examples, of_seeds]) }
    }
}

/// The mean of `values`, with Student's interval.
pub(super) fn student(values: &[f64]) -> Estimate {
    let n = values.len() as f64;
    let of_values = variance(values).map(|variance| (variance / n, n - 1.0));
    Estimate { mean: values.iter().sum::<f64>() / n, half_width: half_width([of_values]) }
}

/// The sample variance, if there are two values.
fn variance(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| squares / (n - 1.0))
}

/// Half the width of the 95 % interval of a sum of independent parts, each with its
/// squared standard error and degrees of freedom; infinite where none is known.
fn half_width<const N: usize>(parts: [Option<(f64, f64)>; N]) -> f64 {
    let parts: Vec<(f64, f64)> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return f64::INFINITY;
    }
    let sum: f64 = parts.iter().map(|(square, _)| square).sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let freedom = sum.powi(2) / parts.iter().map(|(square, df)| square.powi(2) / df).sum::<f64>();
    let student = StudentsT::new(0.0, 1.0, freedom);
    student.map_or(f64::INFINITY, |student| student.inverse_cdf(0.975) * sum.sqrt())
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;
    use crate::verify::EvalRow;

    fn outcome(contender: &str, losses: &[f32]) -> Outcome {
        let row = |loss: &f32| EvalRow {
            source: "eval".to_owned(),
            subtask: None,
            loss: *loss,
            is_exact: *loss < 1.0,
            said: None,
        };
        Outcome {
            contender: contender.to_owned(),
            n_rows: 2,
            n_tokens: 10,
            seconds: 1.0,
            eval: losses.iter().map(row).collect(),
        }
    }

    #[test]
    fn one_trial_each_has_the_interval_of_a_paired_t_test() {
        let outcomes = [outcome("a", &[1.0, 2.0, 3.0]), outcome("random", &[1.5, 2.0, 4.0])];
        let found = &compare(&outcomes, None, "random")[0];
        let a = &found.standings[0];
        // Differences -0.5, 0 and -1: mean -0.5, deviation 0.5, t(2) = 4.3027.
        let difference = a.loss_difference.unwrap();
        assert_abs_diff_eq!(difference.mean, -0.5, epsilon = 1e-12);
        assert_abs_diff_eq!(difference.half_width, 4.302_653 * 0.5 / 3_f64.sqrt(), epsilon = 1e-5);
        assert_eq!(
            (&*found.standings[1].contender, found.standings[1].loss_difference),
            ("random", None)
        );
    }

    #[test]
    fn seeds_that_differ_widen_the_interval() {
        // Every example has the same value, so that only the seeds are uncertain:
        // means 1 and 3, variance 2, one degree of freedom, t(1) = 12.7062.
        let outcomes =
            [outcome("a", &[1.0; 50]), outcome("a", &[3.0; 50]), outcome("b", &[2.0; 50])];
        let found = &compare(&outcomes, None, "b")[0];
        let a = found.standings.iter().find(|standing| standing.contender == "a").unwrap();
        assert_abs_diff_eq!(a.loss.half_width, 12.706_205, epsilon = 1e-4);
        // Of b there is one trial, whose share is twice a's.
        let difference = a.loss_difference.unwrap();
        assert_abs_diff_eq!(difference.half_width, 12.706_205 * 3_f64.sqrt(), epsilon = 1e-4);
    }

    #[test]
    fn exact_answers_and_f1_have_differences_example_by_example() {
        // Of a, the first and the third are exact, of the other the third alone.
        let outcomes = [
            outcome("a", &[0.5, 2.0, 0.5, 2.0]),
            outcome("a", &[0.5, 2.0, 0.5, 2.0]),
            outcome("random", &[2.0, 2.0, 0.5, 2.0]),
        ];
        // Means of a: 0.5, 0.5, 1 and 0; its trials' means are both 0.5.
        let f1 = [vec![0.4, 0.6, 1.0, 0.0], vec![0.6, 0.4, 1.0, 0.0], vec![0.5, 0.3, 0.6, 0.2]];
        let found = &compare(&outcomes, Some(&f1), "random")[0];
        let [a, random] = ["a", "random"].map(|name| {
            found.standings.iter().find(|standing| standing.contender == name).unwrap()
        });
        // Both seeds say the same, so that the examples alone are uncertain: t(3) = 3.1824.
        let of_examples = |deviation: f64| 3.182_446 * deviation / 2.0;
        // Differences 1, 0, 0 and 0: deviation 1/2.
        let exact = a.exact_difference.unwrap();
        assert_abs_diff_eq!(exact.mean, 0.25, epsilon = 1e-12);
        assert_abs_diff_eq!(exact.half_width, of_examples(0.5), epsilon = 1e-5);
        // Differences 0, 0.2, 0.4 and -0.2: squares about the mean of 0.1 sum to 0.2.
        let f1 = a.f1_difference.unwrap();
        assert_abs_diff_eq!(f1.mean, 0.1, epsilon = 1e-12);
        assert_abs_diff_eq!(f1.half_width, of_examples((0.2_f64 / 3.0).sqrt()), epsilon = 1e-5);
        assert_eq!((random.exact_difference, random.f1_difference), (None, None));
    }

    #[test]
    fn the_share_of_exact_answers_is_a_mean_like_any_other() {
        let found = &compare(&[outcome("a", &[0.5, 2.0, 0.1, 3.0])], None, "random")[0];
        assert_abs_diff_eq!(found.standings[0].exact.mean, 0.5);
        let differences = (found.standings[0].exact_difference, found.standings[0].f1_difference);
        assert_eq!((&found.reference, differences), (&None, (None, None)));
    }

    #[test]
    fn one_example_and_one_seed_say_nothing_of_the_width() {
        let found = &compare(&[outcome("a", &[0.5])], None, "random")[0];
        assert!(found.standings[0].loss.half_width.is_infinite());
    }
}
