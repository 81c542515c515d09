//! The projection is the matrix its documentation defines, whatever the batch
//! and the threads, and keeps inner products.

use less_select::gradient::PerExampleGradients;
use less_select::gradient::direction::GradientKind;
use less_select::gradient::layout::{Param, ParamLayout};
use less_select::progress::Silent;
use less_select::projection::fidelity::inner_product_error;
use less_select::projection::{Projection, ProjectionError, ProjectionKind, ProjectionSettings};
use less_select::seed::Seed;
use less_select::store::Split;
use less_select::store::gradient_store::GradientStore;
use ndarray::{Array2, ArrayView2, s};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::toy::{self, Setup, Table};

const KINDS: [ProjectionKind; 4] =
    [ProjectionKind::Sjlt, ProjectionKind::Srht, ProjectionKind::Rademacher, ProjectionKind::None];

fn layout() -> ParamLayout {
    // Lengths on both sides of the pieces and blocks the code works in.
    ParamLayout::new([
        ("lora_A".to_owned(), vec![3, 431]),
        ("lora_B".to_owned(), vec![7]),
        ("bias".to_owned(), vec![1024]),
    ])
}

fn projection(kind: ProjectionKind, proj_dim: usize, checkpoint: &str) -> Projection {
    let settings = ProjectionSettings { kind, proj_dim };
    Projection::new(settings, Seed(7), checkpoint, &layout()).unwrap()
}

/// Projects the rows of `vectors` (`[n × grad_dim]`).
fn project(projection: &Projection, vectors: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut rows = Array2::zeros((vectors.nrows(), projection.proj_dim()));
    for (param_idx, param) in projection.layout().params().iter().enumerate() {
        let rows = rows.as_slice_mut().unwrap();
        projection.accumulate(param_idx, rows, |row, range, out| {
            let vector = vectors.row(row).to_slice().unwrap();
            out.copy_from_slice(&vector[param.offset..][range]);
        });
    }
    rows
}

/// The whole matrix `[proj_dim × grad_dim]`, entry by entry from its definition.
fn matrix(kind: ProjectionKind, proj_dim: usize, checkpoint: &str) -> Array2<f64> {
    matrix_over(&layout(), kind, proj_dim, checkpoint)
}

fn matrix_over(
    layout: &ParamLayout,
    kind: ProjectionKind,
    proj_dim: usize,
    checkpoint: &str,
) -> Array2<f64> {
    let mut matrix = Array2::zeros((proj_dim, layout.grad_dim()));
    for param in layout.params() {
        let key = Seed(7).key(&["projection", checkpoint, &param.name]);
        if kind == ProjectionKind::Srht {
            add_srht(&mut matrix, key, param);
            continue;
        }
        let mut keystream = ChaCha8Rng::from_seed(key);
        for column in param.offset..param.offset + param.n_coordinates() {
            match kind {
                ProjectionKind::Sjlt => {
                    let word = keystream.next_u32();
                    let bucket = (u64::from(word) * proj_dim as u64) >> 32;
                    matrix[[bucket as usize, column]] = if word % 2 == 1 { -1.0 } else { 1.0 };
                }
                ProjectionKind::Rademacher => {
                    for word_idx in 0..proj_dim / 32 {
                        let word = keystream.next_u32();
                        for bit in 0..32 {
                            let sign = if word & (1 << bit) == 0 { 1.0 } else { -1.0 };
                            matrix[[word_idx * 32 + bit, column]] = sign / (proj_dim as f64).sqrt();
                        }
                    }
                }
                ProjectionKind::None => matrix[[column, column]] = 1.0,
                ProjectionKind::Srht => unreachable!("above"),
            }
        }
    }
    matrix
}

/// One parameter's columns of an `srht`.
fn add_srht(matrix: &mut Array2<f64>, key: [u8; 32], param: &Param) {
    const BLOCK: usize = 1 << 14;
    let proj_dim = matrix.nrows();
    let mut signs = ChaCha8Rng::from_seed(key);
    let words: Vec<u32> =
        (0..param.n_coordinates().div_ceil(32)).map(|_| signs.next_u32()).collect();
    let sign = |is_minus: bool| if is_minus { -1.0 } else { 1.0 };
    for (block, start) in (0..param.n_coordinates()).step_by(BLOCK).enumerate() {
        let columns = start..param.n_coordinates().min(start + BLOCK);
        let n = columns.len().next_power_of_two();
        let mut exchanges = ChaCha8Rng::from_seed(key);
        exchanges.set_stream(block as u64 + 1);
        let mut order: Vec<usize> = (0..n.max(proj_dim)).collect();
        for t in 0..n.min(proj_dim) {
            let word = exchanges.next_u32();
            let ahead = (u64::from(word) * (order.len() - t) as u64) >> 32;
            order.swap(t, t + ahead as usize);
            let (output, sum) = if n >= proj_dim { (order[t], t) } else { (t, order[t]) };
            for i in columns.clone() {
                let is_minus = (output & (i - start)).count_ones() % 2 == 1;
                let coordinate_is_minus = words[i / 32] & (1 << (i % 32)) != 0;
                matrix[[sum, param.offset + i]] =
                    sign(word % 2 == 1) * sign(is_minus) * sign(coordinate_is_minus)
                        / (n.min(proj_dim) as f64).sqrt();
            }
        }
    }
}

/// `n` vectors with a few large and many small coordinates, as gradients have.
fn heavy_tailed(n: usize, dim: usize, seed: u64) -> Array2<f32> {
    let mut rng = Seed(seed).stream(&["test vectors"]);
    Array2::from_shape_simple_fn((n, dim), || {
        let uniform = f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
        // Student's t with 2 degrees of freedom, cut where its tail ends the variance.
        (uniform / (1.0 - uniform * uniform).max(1e-4).sqrt()) as f32
    })
}

#[test]
fn the_first_entries_of_an_sjlt_never_change() {
    let unit =
        Array2::from_shape_fn((3, layout().grad_dim()), |(i, j)| f32::from(u8::from(i == j)));
    let rows = project(&projection(ProjectionKind::Sjlt, 8192, "epoch-1"), unit.view());
    let entries = rows.indexed_iter().filter(|(_, value)| **value != 0.0);
    let entries: Vec<_> = entries.map(|((_, output), value)| (output, *value)).collect();
    assert_eq!(entries, [(1014, 1.0), (2003, 1.0), (6282, -1.0)]);
}

#[test]
fn the_first_sums_of_an_srht_never_change() {
    let unit =
        Array2::from_shape_fn((1, layout().grad_dim()), |(_, j)| f32::from(u8::from(j == 5)));
    let rows = project(&projection(ProjectionKind::Srht, 64, "epoch-1"), unit.view());
    let signs: String =
        rows.iter().map(|value| if value.is_sign_negative() { '-' } else { '+' }).collect();
    insta::assert_snapshot!(signs, @"--+-++--++-+--+-+++--++-----+-+-----+--+----+-+-++-+--+++++--+-+");
}

/// The layout of several blocks of an `srht`, the last one short.
fn blocks(n_whole: usize) -> ParamLayout {
    ParamLayout::new([("gradient".to_owned(), vec![(n_whole << 14) + 100])])
}

#[test]
fn an_srht_of_several_blocks_is_the_matrix_of_its_definition() {
    let layout = blocks(1);
    let vectors = heavy_tailed(2, layout.grad_dim(), 6);
    let settings = ProjectionSettings { kind: ProjectionKind::Srht, proj_dim: 64 };
    let projection = Projection::new(settings, Seed(7), "epoch-1", &layout).unwrap();
    let matrix = matrix_over(&layout, ProjectionKind::Srht, 64, "epoch-1");
    let expected = vectors.mapv(f64::from).dot(&matrix.t());
    for (found, expected) in project(&projection, vectors.view()).iter().zip(&expected) {
        approx::assert_relative_eq!(
            f64::from(*found),
            *expected,
            epsilon = 1e-3,
            max_relative = 1e-5
        );
    }
}

#[test]
fn one_large_coordinate_a_block_is_no_worse_for_an_srht_than_many() {
    // First coordinates of blocks, for which a Hadamard matrix has ones only:
    // without signs behind it they would all meet.
    let layout = blocks(24);
    let vectors = Array2::from_shape_fn((24, layout.grad_dim()), |(row, at)| {
        f32::from(u8::from(at == row << 14))
    });
    let settings = ProjectionSettings { kind: ProjectionKind::Srht, proj_dim: 1024 };
    let projection = Projection::new(settings, Seed(7), "epoch-1", &layout).unwrap();
    let error = inner_product_error(vectors.view(), project(&projection, vectors.view()).view());
    assert!((0.8..=1.15).contains(&(error * 1024f64.sqrt())), "{}", error * 1024f64.sqrt());
}

#[test]
fn every_kind_is_the_matrix_of_its_definition() {
    let vectors = heavy_tailed(3, layout().grad_dim(), 1);
    for kind in KINDS {
        let projection = projection(kind, 128, "epoch-1");
        let expected =
            vectors.mapv(f64::from).dot(&matrix(kind, projection.proj_dim(), "epoch-1").t());
        let found = project(&projection, vectors.view());
        for (found, expected) in found.iter().zip(&expected) {
            approx::assert_relative_eq!(
                f64::from(*found),
                *expected,
                epsilon = 1e-3,
                max_relative = 1e-5
            );
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_with_any_number_of_threads() {
    // More rows than a tile of any matrix kernel, and some left over.
    let vectors = heavy_tailed(37, layout().grad_dim(), 2);
    for kind in KINDS {
        // Several tiles, and a scale that is no power of two.
        let projection = projection(kind, 8192, "epoch-1");
        let together = project(&projection, vectors.view());
        for n_threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            assert_eq!(pool.install(|| project(&projection, vectors.view())), together);
        }
        for row in [0, 17, 36] {
            let alone = project(&projection, vectors.slice(s![row..=row, ..]));
            assert_eq!(alone.row(0), together.row(row), "{kind:?}");
        }
    }
}

#[test]
fn parameters_may_come_in_any_order_up_to_rounding() {
    let vectors = heavy_tailed(1, layout().grad_dim(), 3);
    for kind in KINDS {
        let projection = projection(kind, 64, "epoch-1");
        let mut rows = Array2::zeros((1, projection.proj_dim()));
        for (param_idx, param) in projection.layout().params().iter().enumerate().rev() {
            projection.accumulate(param_idx, rows.as_slice_mut().unwrap(), |_, range, out| {
                let vector = vectors.as_slice().unwrap();
                out.copy_from_slice(&vector[param.offset..][range]);
            });
        }
        for (found, expected) in rows.iter().zip(&project(&projection, vectors.view())) {
            approx::assert_relative_eq!(*found, *expected, epsilon = 1e-3, max_relative = 1e-4);
        }
    }
}

#[test]
fn checkpoints_seeds_and_kinds_have_matrices_and_fingerprints_of_their_own() {
    let fingerprints = [
        projection(ProjectionKind::Sjlt, 64, "epoch-1"),
        projection(ProjectionKind::Sjlt, 64, "epoch-2"),
        projection(ProjectionKind::Sjlt, 128, "epoch-1"),
        projection(ProjectionKind::Rademacher, 64, "epoch-1"),
        Projection::new(
            ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim: 64 },
            Seed(8),
            "epoch-1",
            &layout(),
        )
        .unwrap(),
    ]
    .map(|projection| projection.fingerprint().to_owned());
    let distinct = std::collections::BTreeSet::from(fingerprints);
    assert_eq!(distinct.len(), 5);

    let vectors = heavy_tailed(1, layout().grad_dim(), 4);
    let first = project(&projection(ProjectionKind::Sjlt, 64, "epoch-1"), vectors.view());
    let second = project(&projection(ProjectionKind::Sjlt, 64, "epoch-2"), vectors.view());
    assert_ne!(first, second);
}

#[test]
fn a_length_that_is_no_power_of_two_is_refused() {
    for proj_dim in [0, 32, 100, 8191] {
        let settings = ProjectionSettings { kind: ProjectionKind::Sjlt, proj_dim };
        let error = Projection::new(settings, Seed(0), "epoch-1", &layout()).unwrap_err();
        assert_eq!(error, ProjectionError { proj_dim });
    }
    insta::assert_snapshot!(
        ProjectionError { proj_dim: 100 },
        @"projection to 100 dimensions: not a power of two between 64 and 2^31"
    );
}

/// 24 real rows of at most 120 tokens, tokenized as a run does.
#[cfg(feature = "torch")]
fn real_rows() -> Table {
    use less_select::pool::table::ExampleTable;

    let dir = tempfile::tempdir().unwrap();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/example");
    let output = crate::support::less_select()
        .current_dir(dir.path())
        .args(["ingest", "--run", "run", "--pool"])
        .arg(data.join("pool"))
        .arg("--target")
        .arg(data.join("gsm8k.jsonl"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pool = ExampleTable::open(&dir.path().join("run/pool/pool.parquet")).unwrap();
    let examples = pool.examples(0..pool.rows().len()).unwrap();
    let short = examples.into_iter().filter(|example| example.token_ids.len() <= 120);
    toy::table(short.take(24).map(|example| (example, "example", None)))
}

/// The dense projection, at two million coordinates a second, has a model of
/// 23,040 of them.
#[cfg(feature = "torch")]
#[test]
#[ignore = "slow: needs SmolLM2 in the cache"]
fn slow_smollm2_gradients_keep_their_inner_products() {
    use crate::parity::smollm2_with;
    use less_select::compute::Dtype;

    let rows = real_rows();
    let all = ["q_proj", "k_proj", "v_proj", "o_proj"];
    for (kinds, rank, targets) in [
        (&[ProjectionKind::Sjlt, ProjectionKind::Srht][..], 16, &all[..]),
        (&[ProjectionKind::Rademacher][..], 1, &["v_proj"][..]),
    ] {
        let mut model = smollm2_with(Dtype::F32, rank, targets);
        let errors = errors_on_gradients(&mut model, &rows, kinds, 8192);
        for (kind, error) in kinds.iter().zip(errors) {
            let error = error * 8192f64.sqrt();
            println!("{kind:?}, {} coordinates: {error:.3}/√8192", model.layout().grad_dim());
            assert!(error <= 1.15, "{kind:?}: {error}");
        }
    }
}

/// The errors of inner products of a model's own gradients after each of
/// `projections` (see [`inner_product_error`]), as they come out of the store.
fn errors_on_gradients<M: PerExampleGradients>(
    model: &mut M,
    examples: &Table,
    projections: &[ProjectionKind],
    proj_dim: usize,
) -> Vec<f64> {
    let mut collected = |projection| {
        let kinds = vec![GradientKind::Sgd];
        let setup = Setup {
            kinds,
            projection,
            proj_dim,
            // Few batches: a dense projection makes its signs anew for each.
            batch_tokens: 2048,
            n_threads: 0,
            ..Setup::default()
        };
        let dir = tempfile::tempdir().unwrap();
        setup.collect_with(model, examples, Split::Pool, 1, dir.path(), &Silent).unwrap();
        let store = GradientStore::open(dir.path()).unwrap();
        let mut gradients = Vec::new();
        for shard in store.shards() {
            let sgd = shard.kind(GradientKind::Sgd).unwrap();
            for (at, norm) in sgd.norms.iter().enumerate() {
                let unit = sgd.unit.decode(at..at + 1);
                gradients.extend(unit.iter().map(|value| value * norm));
            }
        }
        Array2::from_shape_vec((store.n_rows(), store.header().proj_dim), gradients).unwrap()
    };
    let exact = collected(ProjectionKind::None);
    let error = |kind: &ProjectionKind| inner_product_error(exact.view(), collected(*kind).view());
    projections.iter().map(error).collect()
}

#[test]
fn a_models_gradients_keep_their_inner_products() {
    // With 1640 coordinates, of which few are large, a bound for the dense
    // projection only: an sjlt's error hangs on which few of them meet.
    let (mut model, pool) = (toy::model(1), toy::pool(30, 1));
    let error = errors_on_gradients(&mut model, &pool, &[ProjectionKind::Rademacher], 512)[0];
    assert!(error <= 1.15 / 512f64.sqrt(), "{}", error * 512f64.sqrt());
}

#[test]
fn inner_products_survive_8192_dimensions() {
    const GRAD_DIM: usize = 20_000;
    let layout = ParamLayout::new([("gradient".to_owned(), vec![GRAD_DIM])]);
    let vectors = heavy_tailed(24, GRAD_DIM, 5);
    for kind in [ProjectionKind::Sjlt, ProjectionKind::Srht, ProjectionKind::Rademacher] {
        let settings = ProjectionSettings { kind, proj_dim: 8192 };
        let projection = Projection::new(settings, Seed(7), "epoch-1", &layout).unwrap();
        let error =
            inner_product_error(vectors.view(), project(&projection, vectors.view()).view());
        let unit = 1.0 / 8192f64.sqrt();
        // Not too good either: an error far below one would mean a wrong measure.
        // Two blocks of an srht share 0.7 of the pairs' products, half as wrong.
        let least = if kind == ProjectionKind::Srht { 0.7 } else { 0.8 };
        assert!((least * unit..=1.15 * unit).contains(&error), "{kind:?}: {}", error / unit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Small whole numbers, so that sums are exact and linear to the bit.
    #[test]
    fn a_projection_is_linear(seed: u64, factor in -8i8..8) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dim = layout().grad_dim();
        let mut whole = || Array2::from_shape_simple_fn((1, dim), || (rng.next_u32() % 64) as f32);
        let (x, y) = (whole(), whole());
        let factor = f32::from(factor);
        for kind in KINDS {
            // A power of four, whose root scales exactly.
            let projection = projection(kind, 256, "epoch-1");
            let sum = project(&projection, (&x + &(factor * &y)).view());
            let parts = project(&projection, x.view()) + factor * project(&projection, y.view());
            if kind == ProjectionKind::Srht {
                // The shortest parameter has the root of eight.
                for (sum, parts) in sum.iter().zip(&parts) {
                    approx::assert_relative_eq!(sum, parts, epsilon = 1e-2, max_relative = 1e-5);
                }
            } else {
                prop_assert_eq!(sum, parts);
            }
        }
    }

    #[test]
    fn neighboring_outputs_of_an_sjlt_add_to_the_sjlt_of_half_the_length(
        seed: u64,
        log2 in 7u32..14,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let vectors =
            Array2::from_shape_simple_fn((1, layout().grad_dim()), || (rng.next_u32() % 64) as f32);
        let long = project(&projection(ProjectionKind::Sjlt, 1 << log2, "epoch-1"), vectors.view());
        let short =
            project(&projection(ProjectionKind::Sjlt, 1 << (log2 - 1), "epoch-1"), vectors.view());
        let folded: Vec<f32> = long.as_slice().unwrap().chunks(2).map(|pair| pair[0] + pair[1]).collect();
        prop_assert_eq!(folded.as_slice(), short.as_slice().unwrap());
    }
}
