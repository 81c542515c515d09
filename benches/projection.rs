//! Direction and projection of a batch of gradients: first their time a
//! coordinate beside one streaming read of gradient and moments, alternating, at
//! one thread and at two; then, on all cores, coordinates per second by kind of
//! projection, kind of gradient and length.

#![expect(clippy::print_stdout, reason = "ratios are for people, and criterion has none")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use less_select::gradient::direction::{AdamRule, Directions, GradientKind, Moments};
use less_select::gradient::layout::ParamLayout;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

const N_ROWS: usize = 16;
const PROJ_DIM: usize = 8192;

fn uniform(n: usize, purpose: &str) -> Vec<f32> {
    let mut rng = Seed(0).stream(&["bench", purpose]);
    (0..n).map(|_| rng.next_u32() as f32 / u32::MAX as f32).collect()
}

fn moments(grad_dim: usize) -> Moments {
    Moments {
        rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 100 },
        exp_avg: uniform(grad_dim, "exp_avg"),
        exp_avg_sq: uniform(grad_dim, "exp_avg_sq"),
    }
}

/// What is timed against one another: a batch whose gradients and moments are
/// larger than any cache.
struct Race {
    moments: Moments,
    gradients: Vec<f32>,
}

impl Race {
    const GRAD_DIM: usize = 1 << 21;
    const N_ROWS: usize = 8;
    /// Rounds, of which the median counts.
    const N_ROUNDS: usize = 9;

    fn new() -> Self {
        Self {
            moments: moments(Self::GRAD_DIM),
            gradients: uniform(Self::N_ROWS * Self::GRAD_DIM, "gradients"),
        }
    }

    /// Reads gradient and both moments once for every coordinate of every row.
    fn read(&self) -> u32 {
        const PART: usize = 1 << 14;
        let or = |values: &[f32]| values.iter().fold(0, |all, value| all | value.to_bits());
        let Moments { exp_avg, exp_avg_sq, .. } = &self.moments;
        let parts = self.gradients.par_chunks(PART).enumerate();
        let read = parts.map(|(part, gradient)| {
            let at = part * PART % Self::GRAD_DIM;
            or(gradient) | or(&exp_avg[at..at + PART]) | or(&exp_avg_sq[at..at + PART])
        });
        read.reduce(|| 0, |a, b| a | b)
    }

    /// Projects the first `grad_dim` coordinates of every row.
    fn project(&self, projection: &Projection, directions: &Directions<'_>, rows: &mut [f32]) {
        let kind = directions.kinds()[0];
        projection.accumulate(0, rows, |row, range, out| {
            let gradient = &self.gradients[row * Self::GRAD_DIM..][range.clone()];
            directions.write(kind, range, gradient, out);
        });
        black_box(rows);
    }

    /// Nanoseconds a coordinate: the read, then each case.
    fn run(&self, cases: &[(&str, Projection, Directions<'_>)]) -> Vec<f64> {
        let mut times = vec![Vec::new(); 1 + cases.len()];
        let mut rows = vec![0.0; Self::N_ROWS * PROJ_DIM];
        for _ in 0..Self::N_ROUNDS {
            let begin = Instant::now();
            black_box(self.read());
            times[0].push(nanoseconds(begin) / (Self::N_ROWS * Self::GRAD_DIM) as f64);
            for ((_, projection, directions), times) in cases.iter().zip(&mut times[1..]) {
                let begin = Instant::now();
                self.project(projection, directions, &mut rows);
                let n = Self::N_ROWS * projection.layout().grad_dim();
                times.push(nanoseconds(begin) / n as f64);
            }
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        times.into_iter().map(median).collect()
    }
}

fn nanoseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e9
}

fn ratios(_: &mut Criterion) {
    use GradientKind::{Adam, AdamV, Sgd};
    use ProjectionKind::{Rademacher, Sjlt, Srht};

    const FEW: usize = 1 << 11;
    let race = Race::new();
    let case = |name, kind, grad_dim, direction: &'static [GradientKind]| {
        let layout = ParamLayout::new([("gradient".to_owned(), vec![grad_dim])]);
        let settings = ProjectionSettings { kind, proj_dim: PROJ_DIM };
        let projection =
            Projection::new(settings, Seed(0), "epoch-1", &layout).expect("a power of two");
        (name, projection, Directions::new(direction, Some(&race.moments)))
    };
    let cases = [
        case("sjlt, adam", Sjlt, Race::GRAD_DIM, &[Adam]),
        case("sjlt, adam-v", Sjlt, Race::GRAD_DIM, &[AdamV]),
        case("sjlt, sgd", Sjlt, Race::GRAD_DIM, &[Sgd]),
        case("srht, sgd", Srht, Race::GRAD_DIM, &[Sgd]),
        case("rademacher, sgd", Rademacher, FEW, &[Sgd]),
    ];
    for n_threads in [1, 2] {
        let threads =
            rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads");
        let times = threads.install(|| race.run(&cases));
        let names = std::iter::once("reading g, m, v").chain(cases.iter().map(|case| case.0));
        println!("{n_threads} threads, 8 rows to 8192: ns a coordinate, against reading");
        for (name, time) in names.zip(&times) {
            println!("  {name:<16} {time:>9.3} {:>9.2}", time / times[0]);
        }
    }
}

fn projections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("projection of 16 rows to 8192");
    group.sample_size(10);
    for (kind, grad_dims) in [
        (ProjectionKind::Sjlt, [1 << 16, 1 << 20, 1 << 22].as_slice()),
        (ProjectionKind::Srht, [1 << 16, 1 << 20, 1 << 22].as_slice()),
        (ProjectionKind::Rademacher, [1 << 12, 1 << 14].as_slice()),
    ] {
        for &grad_dim in grad_dims {
            let layout = ParamLayout::new([("gradient".to_owned(), vec![grad_dim])]);
            let settings = ProjectionSettings { kind, proj_dim: PROJ_DIM };
            let projection =
                Projection::new(settings, Seed(0), "epoch-1", &layout).expect("a power of two");
            let gradients = uniform(N_ROWS * grad_dim, "gradients");
            let mut rows = vec![0.0; N_ROWS * PROJ_DIM];
            group.throughput(Throughput::Elements((N_ROWS * grad_dim) as u64));
            let id = BenchmarkId::new(format!("{kind:?}").to_lowercase(), grad_dim);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    projection.accumulate(0, &mut rows, |row, range, out| {
                        out.copy_from_slice(&gradients[row * grad_dim..][range]);
                    });
                    black_box(&rows);
                });
            });
        }
    }
    group.finish();
}

fn directions(criterion: &mut Criterion) {
    const GRAD_DIM: usize = 1 << 20;
    let layout = ParamLayout::new([("gradient".to_owned(), vec![GRAD_DIM])]);
    let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: PROJ_DIM };
    let projection =
        Projection::new(settings, Seed(0), "epoch-1", &layout).expect("a power of two");
    let moments = moments(GRAD_DIM);
    let directions = Directions::new(&GradientKind::ALL, Some(&moments));
    let gradients = uniform(N_ROWS * GRAD_DIM, "gradients");
    let mut rows = vec![0.0; N_ROWS * PROJ_DIM];
    let mut group = criterion.benchmark_group("direction and sjlt of 16 rows of 2^20");
    group.sample_size(10).throughput(Throughput::Elements((N_ROWS * GRAD_DIM) as u64));
    for kind in GradientKind::ALL {
        group.bench_function(kind.name(), |bencher| {
            bencher.iter(|| {
                projection.accumulate(0, &mut rows, |row, range, out| {
                    let gradient = &gradients[row * GRAD_DIM..][range.clone()];
                    directions.write(kind, range, gradient, out);
                });
                black_box(&rows);
            });
        });
    }
    group.finish();
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("making an sjlt to 8192");
    group.sample_size(10);
    for grad_dim in [1 << 20, 1 << 22] {
        // As many parameters as there may be cores.
        let layout =
            ParamLayout::new((0..16).map(|i| (format!("parameter {i}"), vec![grad_dim / 16])));
        let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: PROJ_DIM };
        group.throughput(Throughput::Elements(grad_dim as u64));
        group.bench_function(BenchmarkId::from_parameter(grad_dim), |bencher| {
            bencher.iter(|| Projection::new(settings, Seed(0), "epoch-1", black_box(&layout)));
        });
    }
    group.finish();
}

criterion_group!(benches, ratios, projections, directions, tables);
criterion_main!(benches);
