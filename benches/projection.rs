//! Direction and projection of a batch of gradients, on all cores:
//! coordinates per second by kind of projection, kind of gradient and length.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use less_select::gradient::direction::{AdamRule, GradientKind, Moments};
use less_select::gradient::layout::ParamLayout;
use less_select::projection::{Projection, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use rand_chacha::rand_core::Rng;
use std::hint::black_box;

const N_ROWS: usize = 16;
const PROJ_DIM: usize = 8192;

fn uniform(n: usize, purpose: &str) -> Vec<f32> {
    let mut rng = Seed(0).stream(&["bench", purpose]);
    (0..n).map(|_| rng.next_u32() as f32 / u32::MAX as f32).collect()
}

fn projections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("projection of 16 rows to 8192");
    group.sample_size(10);
    for (kind, grad_dims) in [
        (ProjectionKind::Sjlt, [1 << 16, 1 << 20, 1 << 22].as_slice()),
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
    let moments = Moments {
        rule: AdamRule { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, step: 100 },
        exp_avg: uniform(GRAD_DIM, "exp_avg"),
        exp_avg_sq: uniform(GRAD_DIM, "exp_avg_sq"),
    };
    let gradients = uniform(N_ROWS * GRAD_DIM, "gradients");
    let mut rows = vec![0.0; N_ROWS * PROJ_DIM];
    let mut group = criterion.benchmark_group("direction and sjlt of 16 rows of 2^20");
    group.sample_size(10).throughput(Throughput::Elements((N_ROWS * GRAD_DIM) as u64));
    for kind in GradientKind::ALL {
        group.bench_function(kind.name(), |bencher| {
            bencher.iter(|| {
                projection.accumulate(0, &mut rows, |row, range, out| {
                    let gradient = &gradients[row * GRAD_DIM..][range.clone()];
                    kind.write_direction(gradient, Some(moments.slice(range)), out);
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

criterion_group!(benches, projections, directions, tables);
criterion_main!(benches);
