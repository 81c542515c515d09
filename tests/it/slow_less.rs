//! LESS as plainly as it can be written: in f64, one example at a time, no
//! projection, nothing stored. What the program computes is compared with this.

use std::collections::BTreeMap;

use less_select::gradient::PerExampleGradients;
use less_select::gradient::direction::{AdamRule, GradientKind, Moments};
use less_select::influence::Aggregation;
use less_select::influence::index::subtask_name;
use less_select::pool::Example;

use crate::toy::{self, Table};

/// Γ of one coordinate, from the table in `gradient::direction`.
pub(crate) fn direction(kind: GradientKind, rule: AdamRule, g: f64, m: f64, v: f64) -> f64 {
    let AdamRule { beta1, beta2, epsilon, step } = rule;
    match kind {
        GradientKind::Adam => {
            let t = i32::try_from(step + 1).unwrap();
            let m_hat = (beta1 * m + (1.0 - beta1) * g) / (1.0 - beta1.powi(t));
            let v_hat = (beta2 * v + (1.0 - beta2) * g * g) / (1.0 - beta2.powi(t));
            m_hat / (v_hat.sqrt() + epsilon)
        }
        GradientKind::LessCode => (0.9 * m + 0.1 * g) / (0.999 * v + 0.001 * g * g + 1e-8).sqrt(),
        GradientKind::AdamV => {
            let v_hat = v / (1.0 - beta2.powi(i32::try_from(step).unwrap()));
            g / (v_hat.sqrt() + epsilon)
        }
        GradientKind::Sgd => g,
    }
}

/// The influence of every pool row (outer) on every subtask (inner, by name),
/// over the checkpoints `epoch-1`, … of the given learning rates.
pub(crate) fn influence(
    pool: &Table,
    target: &Table,
    learning_rates: &[f64],
    kind: GradientKind,
    aggregation: Aggregation,
) -> Vec<Vec<f64>> {
    let mut scores = vec![Vec::new(); pool.examples.len()];
    let sum_of_rates: f64 = learning_rates.iter().sum();
    for (epoch, rate) in (1..).zip(learning_rates) {
        let weight = rate / sum_of_rates;
        let mut subtasks: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
        for (row, example) in target.rows.iter().zip(&target.examples) {
            subtasks.entry(subtask_name(row)).or_default().push(gradient(example, epoch));
        }
        for (scores, example) in scores.iter_mut().zip(&pool.examples) {
            let x = directions(kind, &gradient(example, epoch), &toy::moments(epoch));
            scores.resize(subtasks.len(), 0.0);
            for (score, targets) in scores.iter_mut().zip(subtasks.values()) {
                *score += weight * similarity(&x, targets, aggregation);
            }
        }
    }
    scores
}

fn gradient(example: &Example, epoch: u64) -> Vec<f64> {
    let mut gradient = Vec::new();
    toy::model(epoch)
        .backward(&[example], &mut |_, rows| gradient.extend(rows.iter().copied().map(f64::from)))
        .unwrap();
    gradient
}

fn directions(kind: GradientKind, gradient: &[f64], moments: &Moments) -> Vec<f64> {
    let moment_pairs = moments.exp_avg.iter().zip(&moments.exp_avg_sq);
    gradient
        .iter()
        .zip(moment_pairs)
        .map(|(g, (m, v))| direction(kind, moments.rule, *g, f64::from(*m), f64::from(*v)))
        .collect()
}

fn similarity(x: &[f64], targets: &[Vec<f64>], aggregation: Aggregation) -> f64 {
    let n = targets.len() as f64;
    match aggregation {
        Aggregation::MeanOfCosines => targets.iter().map(|y| cosine(x, y)).sum::<f64>() / n,
        Aggregation::CosineOfMean => {
            let mean: Vec<f64> =
                (0..x.len()).map(|i| targets.iter().map(|y| y[i]).sum::<f64>() / n).collect();
            cosine(x, &mean)
        }
    }
}

fn cosine(x: &[f64], y: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// Spearman's rank correlation of two lists without ties.
pub(crate) fn rank_correlation(x: &[f64], y: &[f64]) -> f64 {
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut ranks = vec![0.0; values.len()];
        for (rank, at) in order.into_iter().enumerate() {
            ranks[at] = rank as f64;
        }
        ranks
    };
    let n = x.len() as f64;
    let squares = ranks(x).iter().zip(ranks(y)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}
